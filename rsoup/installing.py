"""The command that adds an extra, to rsoup as it is installed here."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import unquote, urlsplit

NAME = "rewarded-soups"
ROOT = Path(__file__).resolve().parents[1]


def pip_line(*extras: str) -> str:
    """Return the command that installs extras: from the source tree that rsoup runs in or came from, else by name."""
    wanted = f"[{','.join(extras)}]"
    if (ROOT / "pyproject.toml").is_file():
        return f'pip install -e "{"." if Path.cwd() == ROOT else ROOT}{wanted}"'
    return f'pip install "{_from(_origin(), wanted)}"'


def _origin() -> dict[str, object]:
    """Return what pip noted of where the distribution came from (PEP 610); nothing if that is an index."""
    try:
        noted = json.loads(distribution(NAME).read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        return {}
    return noted if isinstance(noted, dict) else {}


def _from(origin: dict[str, object], wanted: str) -> str:
    url, control = str(origin.get("url", "")), origin.get("vcs_info")
    if isinstance(control, dict):
        return f"{NAME}{wanted} @ {control.get('vcs', 'git')}+{url}"
    path = unquote(urlsplit(url).path)
    return f"{path}{wanted}" if url.startswith("file:") and Path(path).exists() else f"{NAME}{wanted}"
