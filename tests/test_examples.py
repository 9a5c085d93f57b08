"""Every command's help ends with examples, and these and the README's commands are what the parser takes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from cli_tree import commands, read_line
from command import Command
from rsoup.cli.examples import EXAMPLES
from rsoup.recipe_file import parse_recipe
from rsoup.recipe_yaml import parse_yaml

ROOT = Path(__file__).parents[1]
NAMES = dict(commands())
PAGES = [(ROOT / name).read_text() for name in ("README.md", "recipes/README.md")]
BLOCKS = [block for page in PAGES for block in re.findall(r"(?:^    .*\n)+", page, re.MULTILINE)]
LINES = [re.split(r" {3,}", line.strip())[0] for block in BLOCKS for line in block.splitlines()]
SHOWN = sorted({line for line in LINES if line.startswith("rsoup ") and not re.search(r"[>|]|\.\.\.", line)})
RECIPES = [block for page in PAGES for block in re.findall(r"^ *```yaml\n(.*?)^ *```", page, re.MULTILINE | re.DOTALL)]
REWARDS = {name: {"function": f"own:{name}"} for name in ("positive", "faithful", "short", "helpful")}
PARTS: dict[str, Any] = {"model": {"base": "m"}, "task": {"data": "d.jsonl"}, "rewards": REWARDS}
REST = {**PARTS, "morl": [{"positive": 1, "faithful": 1}]}


@pytest.mark.parametrize("text", RECIPES)
def test_a_recipe_or_a_part_of_one_in_the_readme_is_a_recipe(text: str) -> None:
    """Each block is YAML, and of keys and values that a recipe may have; where it is a part, with any rest."""
    content = parse_yaml(text, "README.md")
    own = REST | ({"morl": []} if "rewards" in content else {})
    parse_recipe({**own, **content}, "README.md")


def test_there_are_examples_of_each_command_and_of_no_other() -> None:
    assert EXAMPLES.keys() == NAMES.keys()


@pytest.mark.parametrize("name", NAMES)
def test_a_help_ends_with_examples_that_can_be_typed(
    name: str, rsoup: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    lines = [line.strip() for line in rsoup(*name.split(), "--help").lines if line.strip()]
    shown = [line.removeprefix("Example: ") for line in lines[-len(EXAMPLES[name]) :]]
    assert shown == list(EXAMPLES[name])
    for line in shown:
        assert line.startswith(f"rsoup {name.removesuffix(' show')} ")
        read_line(line)


@pytest.mark.parametrize("line", SHOWN)
def test_the_parser_takes_what_the_readme_shows(line: str) -> None:
    read_line(line)


@pytest.mark.parametrize(
    "line", ["rsoup mix A --nonsense", "rsoup rewards check", "rsoup runn x", "rsoup train --steps many"]
)
def test_a_line_that_cannot_be_typed_is_found(line: str) -> None:
    with pytest.raises(Exception, match=r"No such|Missing|valid integer"):
        read_line(line)
