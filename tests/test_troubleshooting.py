"""Errors name headings of the README's section on what goes wrong, and each of these is named by an error."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from rsoup.errors import see

ROOT = Path(__file__).parents[1]
SECTION = (ROOT / "README.md").read_text().partition("## When something goes wrong\n")[2].partition("\n## ")[0]
HEADINGS = re.findall(r"^### (.+)$", SECTION, re.MULTILINE)


def anchor_of(heading: str) -> str:
    """Return the anchor that a heading of Markdown gets: lower case, dashes for spaces, no other signs."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def named() -> set[str]:
    """Return the anchors that the code names."""
    sources = (path.read_text() for path in (ROOT / "rsoup").rglob("*.py"))
    calls = (
        node
        for source in sources
        if re.search(r"^from rsoup\.errors import .*\bsee\b", source, re.MULTILINE)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "see"
    )
    return {ast.literal_eval(call.args[0]) for call in calls}


def test_each_anchor_is_a_heading_and_each_heading_is_named_by_an_error() -> None:
    assert len(HEADINGS) == len(set(HEADINGS)) >= 10
    assert named() == {anchor_of(heading) for heading in HEADINGS}


def test_an_error_ends_with_the_place_in_the_readme() -> None:
    assert see("no-network") == " (README: #no-network)"


def anchors_in(page: Path) -> set[str]:
    """Return the anchors of a page's headings, those in blocks of code left out."""
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return {anchor_of(heading) for heading in re.findall(r"^#+ (.+)$", prose, re.MULTILINE)}


PAGES = sorted(
    str(path.relative_to(ROOT))
    for pattern in ("*.md", "recipes/**/*.md", "rsoup/**/*.md", "tests/**/*.md")
    for path in ROOT.glob(pattern)
)


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_to_a_file_and_a_heading_that_are_there(name: str) -> None:
    page = ROOT / name
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text()):
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), link
        assert not anchor or anchor in anchors_in(target), link


def test_every_page_of_the_repository_is_looked_at() -> None:
    assert {"README.md", "CHANGELOG.md", "recipes/README.md", "recipes/COSTS.md", "tests/benchmarks/README.md"} <= {
        *PAGES
    }
