"""Prompts that end with the beginning of a reference answer, and what rewards then read as the answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from rsoup.recipe import TaskSection
from rsoup.tasks import Task, resolve_task
from rsoup.tasks.loading import Example, load_examples
from rsoup.tasks.responses import apply_rule, read_responses
from tiny import build_tokenizer


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of single bytes, for which most characters are several tokens."""
    vocabulary = {letter: index for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE({**vocabulary, "<eos>": len(vocabulary)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>")


def word_piece_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer whose words carry the space before them, as those of Llama do."""
    words = ["▁", "▁say", ":", "▁the", "▁ket", "tle", "▁boils", "▁lid", "<unk>"]
    tokenizer = Tokenizer(models.Unigram([(word, -1.0) for word in words], unk_id=8))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<eos>")


def examples(
    tmp_path: Path, rows: list[dict[str, Any]], tokenizer: Any = None, seed: int = 0, **settings: Any
) -> tuple[Example, ...]:
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {"prefix": (2, 4), "template": "{post} :", "reference": "answer", **settings}
    task = Task("t", str(source), eval_data=str(source), **settings)
    return load_examples(task, tokenizer or build_tokenizer(), "train", seed).rows


ROWS = [{"id": f"r{i}", "post": "the kettle", "answer": "good great bad awful battery cable chair"} for i in range(60)]


def test_a_prompt_ends_with_the_first_tokens_of_its_reference(tmp_path: Path) -> None:
    reference = build_tokenizer()(ROWS[0]["answer"])["input_ids"]
    found = examples(tmp_path, ROWS)
    for example in found:
        count = len(example.prefix_tokens)
        assert list(example.prefix_tokens) == reference[:count] == list(example.tokens[-count:])
        assert example.prompt == f"the kettle :{example.prefix}"
        assert example.prefix == " ".join(ROWS[0]["answer"].split()[:count])
    assert {len(example.prefix_tokens) for example in found} == {2, 3, 4}


def test_the_length_depends_on_the_seed_and_the_id_alone(tmp_path: Path) -> None:
    found = {example.id: example for example in examples(tmp_path, ROWS)}
    fewer = examples(tmp_path, [{**row, "post": "the lid"} for row in reversed(ROWS[10:20])])
    assert {one.id: len(one.prefix_tokens) for one in fewer} == {
        f"r{i}": len(found[f"r{i}"].prefix_tokens) for i in range(10, 20)
    }
    other = examples(tmp_path, ROWS, seed=1)
    assert [len(one.prefix_tokens) for one in other] != [len(one.prefix_tokens) for one in found.values()]


def test_without_a_reference_or_with_the_rule_off_the_prompt_is_the_template_alone(tmp_path: Path) -> None:
    rows = [{"id": "a", "post": "the kettle", "answer": None}]
    assert examples(tmp_path, rows)[0].prompt == "the kettle :"
    assert examples(tmp_path, ROWS, prefix=None)[0].tokens == examples(tmp_path, rows)[0].tokens


def test_a_short_reference_is_taken_whole(tmp_path: Path) -> None:
    assert examples(tmp_path, [{"post": "the kettle", "answer": "good"}], prefix=(5, 7))[0].prefix == "good"


def test_a_prefix_does_not_end_within_a_character(tmp_path: Path) -> None:
    rows = [{"id": str(i), "post": "чай", "answer": "крышка 破損した"} for i in range(40)]
    found = examples(tmp_path, rows, byte_tokenizer(), prefix=(1, 9))
    assert all("\ufffd" not in example.prefix for example in found)
    assert {len(example.prefix_tokens) for example in found} == {2, 4, 6, 8, 10}
    assert {example.prefix for example in found} == {"крышка"[:length] for length in range(1, 6)}


def test_a_space_between_prompt_and_reference_goes_to_the_first_word(tmp_path: Path) -> None:
    tokenizer = word_piece_tokenizer()
    rows = [{"post": "the lid", "answer": "the kettle boils"}]
    example = examples(tmp_path, rows, tokenizer, template="say: {post}: ", prefix=(2, 2))[0]
    assert tokenizer.convert_ids_to_tokens(example.tokens) == ["▁say", ":", "▁the", "▁lid", ":", "▁the", "▁ket"]
    assert example.prefix == "the ket"


def test_rewards_read_the_prefix_and_the_completion_as_one_text(tmp_path: Path) -> None:
    tokenizer = word_piece_tokenizer()
    rows = [{"post": "the lid", "answer": "the kettle boils"}, {"post": "the lid", "answer": None}]
    found = examples(tmp_path, rows, tokenizer, template="say: {post}: ", prefix=(2, 2))
    completion = tokenizer.convert_tokens_to_ids(["tle", "▁boils"])
    assert read_responses(tokenizer, found, [completion, completion]) == ["the kettle boils", "tle boils"]


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("the lid broke. It was cheap.", "the lid broke."),
        ("the lid broke", "the lid broke."),
        ("", "."),
        (". the lid", "."),
        ("It cost 3.50 euros", "It cost 3."),
        ("крышка. сломалась", "крышка."),
    ],
)
def test_the_first_sentence_is_what_comes_before_the_first_full_stop_and_a_stop(text: str, read: str) -> None:
    assert apply_rule(text, "first_sentence") == read
    assert apply_rule(text, "whole") == text


def test_a_prefix_of_a_summary_does_not_end_the_sentence(tmp_path: Path) -> None:
    """The paper's code writes a comma for each full stop of a reference summary."""
    rows = [{"id": str(i), "post": "post", "answer": "a.b.c.d.e"} for i in range(20)]
    for example in examples(tmp_path, rows, byte_tokenizer(), prefix=(2, 7), response="first_sentence"):
        assert "." not in example.prefix
        assert example.prefix == "a,b,c,d"[: len(example.prefix)]


@pytest.mark.parametrize("name", ["summary", "stack", "review", "assistant"])
def test_the_papers_tasks_end_prompts_with_two_to_seven_tokens(name: str) -> None:
    assert resolve_task(TaskSection(name=name)).prefix == (2, 7)
    assert resolve_task(TaskSection(name=name, prefix=False)).prefix is None
    assert resolve_task(TaskSection(name=name, prefix=[1, 1])).prefix == (1, 1)
