"""What commands are given, made once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from breaking.disturbing import Yard
from breaking.works import Stock, make_other


@pytest.fixture(scope="package")
def stock(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_run: Path) -> Stock:
    """A base, a model made from it, and a finished run."""
    own = Stock(tmp_path_factory.mktemp("stock"))
    shutil.copytree(tiny_model, own.model)
    shutil.copytree(tiny_run / "run", own.run)
    make_other(own)
    return own


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory, stock: Stock) -> Yard:
    """A folder in which commands are disturbed."""
    return Yard(tmp_path_factory.mktemp("yard"), stock)
