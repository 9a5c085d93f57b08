"""Imports point down the list of the README."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LISTED = (ROOT / "README.md").read_text().partition("    rsoup/\n")[2].partition("    recipes/")[0]
HEADS = re.findall(r"^ +((?:\w+(?:/|\.py) *)+)", LISTED, re.MULTILINE)
PARTS = [part for head in HEADS for part in re.findall(r"(\w+)(?:/|\.py)", head)]


def imported(path: Path) -> set[str]:
    """Return the parts of rsoup that a file imports."""
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
    return {(node.module or "").split(".")[1] for node in nodes if (node.module or "").startswith("rsoup.")}


def test_every_part_is_listed():
    own = {path.stem for path in (ROOT / "rsoup").iterdir() if path.name[0].isalpha() and path.suffix in ("", ".py")}
    assert set(PARTS) == own


@pytest.mark.parametrize("part", PARTS)
def test_imports_point_down(part):
    files = [ROOT / f"rsoup/{part}.py", *(ROOT / "rsoup" / part).rglob("*.py")]
    found = set().union(*(imported(path) for path in files if path.exists())) - {part}
    assert found <= set(PARTS[PARTS.index(part) + 1 :])
