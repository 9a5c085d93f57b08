"""How an extra is added to rsoup as it is installed: from a clone, or by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rsoup import installing
from rsoup.installing import _from, pip_line


def test_in_a_clone_it_is_the_clone_that_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(installing.ROOT)
    assert pip_line("train", "rewards") == 'pip install -e ".[train,rewards]"'
    monkeypatch.chdir(tmp_path)
    assert pip_line("serve") == f'pip install -e "{installing.ROOT}[serve]"'


def test_a_distribution_is_installed_from_where_it_came(tmp_path: Path) -> None:
    clone: dict[str, Any] = {"url": tmp_path.as_uri(), "dir_info": {}}
    assert _from(clone, "[serve]") == f"{tmp_path}[serve]"
    assert _from({**clone, "url": "file:///gone/since"}, "[serve]") == "rewarded-soups[serve]"
    remote = {"url": "https://host/rsoup", "vcs_info": {"vcs": "git"}}
    assert _from(remote, "[serve]") == "rewarded-soups[serve] @ git+https://host/rsoup"
    assert _from({}, "[serve]") == "rewarded-soups[serve]"
