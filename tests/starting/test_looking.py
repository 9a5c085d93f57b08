"""What a look at rows tells of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rsoup.errors import DataError
from rsoup.starting.looking import kind_of, look, median_words, remarks_on


def rows_of(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize(
    ("answers", "kind"),
    [
        (["42", "-3.5", "1,000", "50%", "$7"], "numbers"),
        (["2 + 2 = 4 of them\n#### 4", "#### 1,200"], "numbers"),
        (["A", "(b)".upper(), "C."], "letters"),
        (["Paris", "the red fox"], "words"),
        (["A long answer that goes on and on", "And so does this other one here"], "texts"),
        (["4", "A long answer that goes on and on"], "texts"),
        ([], "none"),
    ],
)
def test_references_are_what_nine_in_ten_of_them_are(answers: list[str], kind: str) -> None:
    assert kind_of(answers) == kind


def test_the_median_of_words_is_that_of_the_middle_one() -> None:
    assert median_words(["one", "one two three", "one two"]) == 2
    assert median_words([]) == 0


def test_rows_are_counted_as_the_training_will(tmp_path: Path) -> None:
    rows = [{"question": f"What is {n} + 1?", "answer": str(n + 1)} for n in range(50)]
    seen = look(rows_of(tmp_path / "sums.jsonl", [*rows, {"question": "", "answer": "1"}]))
    assert (seen.training, seen.held_out, seen.references, seen.talks) == (40, 10, "numbers", False)
    assert seen.dropped == {"no text": 1}
    assert seen.said == "Rows are questions (question, answer); the reference is answer."
    assert seen.lines[-1] == "1 rows are left out: no text (1)."
    assert "10 held-out rows tell little" in remarks_on(seen)[0]


def talk(text: str, answer: str | None = None) -> list[dict[str, str]]:
    said = [{"role": "user", "content": text}]
    return said if answer is None else [*said, {"role": "assistant", "content": answer}]


@pytest.mark.parametrize(
    ("rows", "kind", "said"),
    [
        ([{"messages": talk("q"), "answer": "4"}], "numbers", "the reference is answer."),
        ([{"messages": talk("q"), "gold": 4}], "numbers", "the reference is gold."),
        ([{"messages": talk("q"), "mood": "4"}], "none", "they have no reference answer."),
        ([{"messages": talk("q"), "answer": None}], "none", "the reference is answer, which is empty in all."),
        ([{"messages": talk("q", "4")}], "numbers", "the reference is the assistant's turn after the prompt."),
        (
            [{"messages": talk("q", "4"), "answer": "5"}, {"messages": talk("q"), "answer": "6"}],
            "numbers",
            "the reference is the assistant's turn after the prompt, or else answer.",
        ),
        (
            [{"messages": talk("q", "4")}, {"messages": talk("q")}],
            "numbers",
            "the reference is the assistant's turn after the prompt (of 50% of them).",
        ),
    ],
)
def test_what_is_said_of_the_references_of_conversations_is_so(
    rows: list[dict[str, Any]], kind: str, said: str, tmp_path: Path
) -> None:
    seen = look(rows_of(tmp_path / "talks.jsonl", rows * 10))
    assert (seen.references, seen.talks) == (kind, True)
    assert seen.said == f"Rows are conversations (messages); {said}"
    assert any("--reference NAME" in line for line in remarks_on(seen)) is (kind == "none" and len(rows[0]) > 1)


def test_rows_with_few_references_have_none(tmp_path: Path) -> None:
    rows = [{"question": f"Q{n}", "answer": "4" if n == 0 else None} for n in range(10)]
    assert look(rows_of(tmp_path / "few.jsonl", rows)).references == "none"


def test_a_column_that_cannot_be_guessed_is_asked_for_by_its_flag(tmp_path: Path) -> None:
    source = rows_of(tmp_path / "odd.jsonl", [{"body": f"The lid {n}.", "tag": "x"} for n in range(10)])
    with pytest.raises(DataError) as refused:
        look(source)
    assert refused.value.hint.startswith("Name it: --column NAME.")
    assert look(source, column="body").training == 8


def test_a_bundled_task_is_named_and_not_read_as_a_file() -> None:
    seen = look("reviews")
    assert seen.task.name == "reviews"
    assert seen.task.data is None
    assert seen.held_out >= 64
