"""The pieces of a text make the text, and end before a stop string."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from rsoup.serving.text import Detokenizer, StopStrings
from tiny import build_tokenizer

TEXTS = ["the kettle lid", "Ünïcode: 日本語 🙂 end", "  two  blanks\n\nand lines ", "a"]


def of_bytes() -> Any:
    """Return a tokenizer of single bytes, written as byte-level BPE writes them."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({sign: place for place, sign in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def of_words() -> Any:
    """Return a tokenizer that writes a space before words, and drops it from the first one."""
    words = ["<unk>", "▁the", "▁kettle", "▁lid", "s"]
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


def told(tokenizer: Any, ids: list[int], context: tuple[int, ...] = ()) -> list[str]:
    detokenizer = Detokenizer(tokenizer, context)
    return [*(detokenizer.add(token) for token in ids), detokenizer.rest()]


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_of_bytes_are_whole_characters(text: str) -> None:
    tokenizer = of_bytes()
    pieces = told(tokenizer, tokenizer(text)["input_ids"])
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)


def test_a_character_that_stays_broken_is_told_at_the_end() -> None:
    tokenizer = of_bytes()
    ids = tokenizer("a🙂")["input_ids"][:-1]
    assert told(tokenizer, ids) == ["a", "", "", "", "\ufffd"]


def test_words_keep_their_spaces() -> None:
    assert told(of_words(), [1, 2, 3, 4]) == ["the", " kettle", " lid", "s", ""]
    assert told(of_words(), [2, 3], context=(1,)) == [" kettle", " lid", ""]
    assert told(of_words(), [4, 3], context=(1, 2)) == ["s", " lid", ""]


def test_special_tokens_are_not_shown() -> None:
    tokenizer = build_tokenizer()
    the, end = tokenizer.convert_tokens_to_ids(["the", "<eos>"])
    assert "".join(told(tokenizer, [the, end, the])) == "the the"


def test_a_long_text_is_that_of_all_its_tokens() -> None:
    tokenizer = of_bytes()
    ids = tokenizer(" ".join(TEXTS) * 20)["input_ids"]
    assert "".join(told(tokenizer, ids)) == tokenizer.decode(ids)


@pytest.mark.parametrize(
    ("pieces", "stops", "shown", "found"),
    [
        (["one ", "two three"], ["two"], ["one ", ""], True),
        (["one t", "w", "o"], ["two"], ["one ", "", ""], True),
        (["one t", "w", "x"], ["two"], ["one ", "", "twx"], False),
        (["aab", "aab", "aac"], ["aabaac"], ["", "aab", ""], True),
        (["xENDyEN"], ["EN", "END"], ["x"], True),
        (["..", ".", "."], ["...."], ["", "", ""], True),
        (["abc"], [], ["abc"], False),
    ],
)
def test_nothing_is_shown_past_a_stop_string(
    pieces: list[str], stops: list[str], shown: list[str], found: bool
) -> None:
    own = StopStrings(stops)
    assert [own.add(piece) for piece in pieces][: len(shown)] == shown
    assert own.found == found


def test_what_only_began_a_stop_string_is_shown_at_the_end() -> None:
    own = StopStrings(["two"])
    assert (own.add("one tw"), own.rest(), own.found) == ("one ", "tw", False)
