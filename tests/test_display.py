"""What the terminal shows breaks between words, and what a program reads does not break."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from cli_tree import commands
from command import Command
from rsoup.cli import display, info
from rsoup.cli.chatting import help_for
from rsoup.errors import RsoupError

NAMES = ["", *(name for name, _ in commands())]
WORDS = "a reward that is named here and there, " * 6 + "and one word of forty signs " + "x" * 100


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Console:
    """Stand for stdout and stderr: a terminal of 80 columns."""
    shown = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=80, highlight=False, emoji=False)
    monkeypatch.setattr(display, "err", shown)
    monkeypatch.setattr(display, "out", shown)
    return shown


def lines_of(shown: Console) -> list[str]:
    return shown.file.getvalue().splitlines()


def signs(page: str) -> list[str]:
    """Return the words of a help page, without the lines around them."""
    return re.sub(r"[│╭╮╰╯─]", " ", page).split()


@pytest.mark.parametrize("name", NAMES)
def test_a_help_page_of_80_columns_breaks_no_word(name: str, rsoup: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = []
    for columns in ("80", "400"):
        monkeypatch.setenv("COLUMNS", columns)
        pages.append(rsoup(*name.split(), "--help").out)
    narrow, wide = pages
    assert sorted(signs(narrow)) == sorted(signs(wide))
    assert "…" not in narrow


def test_remarks_break_between_words_and_go_on_below_the_first(terminal: Console) -> None:
    display.say(f"note   {WORDS}")
    lines = lines_of(terminal)
    assert " ".join(lines).split() == f"note {WORDS}".split()
    assert all(len(line) <= 80 or len(line.split()) == 1 for line in lines)
    assert {line[:8] for line in lines[1:]} == {" " * 7 + line[7] for line in lines[1:]}


def test_errors_break_between_words(terminal: Console) -> None:
    display.show_error(RsoupError(f"[bold] {WORDS}", WORDS))
    lines = lines_of(terminal)
    assert all(len(line) <= 80 or len(line.split()) == 1 for line in lines)
    heads = [line[:7] for line in lines if not line.startswith(" ")]
    assert heads == ["error: ", "try:   "]
    assert " ".join(lines).split() == ["error:", "[bold]", *WORDS.split(), "try:", *WORDS.split()]


def test_a_command_to_copy_stays_one_line(terminal: Console) -> None:
    command = "rsoup mix " + "runs/a/long/name/adapters/one " * 4
    display.say(f"then  {command}")
    assert lines_of(terminal) == [f"then  {command}"]


def test_what_is_no_terminal_gets_one_line() -> None:
    assert display.folded(WORDS, Console(file=io.StringIO(), width=80)) == WORDS


def test_the_help_of_a_chat_names_what_the_run_has() -> None:
    two = help_for(["overlap", "brief"], ["overlap", "brief"])
    assert two.splitlines()[0].split("  ") == ["/weights overlap=0.7", "other weights; brief takes the rest"]
    assert "expert:overlap, soup:overlap=0.7,brief=0.3, prefer:overlap=0.6,brief=0.4" in two
    assert "left and right" in two
    three = help_for(["a", "b", "c"], [])
    assert three.splitlines()[0].split("  ") == ["/weights a=0.7,b=0.3", "other weights, which sum to 1"]
    assert not {"prefer", "positive", "left"} & set(re.findall(r"\w+", three))
    assert "a model: base" in help_for([], []).splitlines()[0]


@pytest.mark.parametrize("words", [["rewards"], ["recipes"], ["rewards", "summary-gpt2"]])
def test_a_list_breaks_between_words(
    words: list[str], rsoup: Command, terminal: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(info, "out", terminal)
    called = rsoup(*words)
    lines = lines_of(terminal)
    assert (called.code, called.out) == (0, "") or called.code == 1  # a model that is not here ends it
    assert len(lines) > 1
    assert all(len(line) <= 80 or len(line.split()) == 1 for line in lines)
