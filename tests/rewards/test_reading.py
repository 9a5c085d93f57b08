"""A reward model reads as it was trained to: its chat template, a pair, a text; each row as transformers scores it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from rewards.models import CHAT, CHATS, GROUPED, PAIRS, SHAPE, TEXTS, bert_words, decoder, encoder, save, word_tokenizer
from rsoup.errors import RecipeError, RewardError
from rsoup.recipe import RewardSection
from rsoup.recipe_file import parse_reward_section
from rsoup.rewards.classifier import Classifier
from rsoup.rewards.samples import Sample, plain_samples
from rsoup.rewards.scoring import score
from rsoup.tiny.models import build_judge

POSTS = ["the kettle boils fast", "a", "the lid of the kettle broke , and it gets hot . not good", "fine ?"] * 2
COMPLETIONS = ["good", "the kettle is hot and the lid is fine", "bad .", "", "not fine", "", "a lid", "it is"]
SAMPLES = plain_samples(POSTS, COMPLETIONS)


def classifier(folder: Path, **settings: Any) -> Classifier:
    return Classifier("judge", RewardSection.model_validate({"model": str(folder), "format": "0", **settings}))


def scores(folder: Path, samples: list[Sample] | None = None, **settings: Any) -> np.ndarray:
    return score("judge", classifier(folder, **settings), SAMPLES if samples is None else samples)


def one_by_one(folder: Path, encode: Callable[[Any, Sample], Any], samples: list[Sample] | None = None) -> np.ndarray:
    """Return transformers' scores of what ``encode`` makes of each sample with the model's tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        rows = [encode(tokenizer, sample) for sample in samples or SAMPLES]
        return np.array([float(model(**row).logits[0, 0]) for row in rows])


def conversation(tokenizer: Any, sample: Sample) -> Any:
    asked = sample.messages or [{"role": "user", "content": sample.post}]
    turns = [*asked, {"role": "assistant", "content": sample.completion}]
    return tokenizer.apply_chat_template(turns, return_tensors="pt", return_dict=True)


def pair(tokenizer: Any, sample: Sample) -> Any:
    return tokenizer([sample.post], [sample.completion], return_tensors="pt")


def text(tokenizer: Any, sample: Sample) -> Any:
    row = tokenizer(f"{sample.post}</s>{sample.completion}", return_tensors="pt")
    return {key: row[key] for key in ("input_ids", "attention_mask")}


READ_AS = {
    **{name: (make, conversation, {}) for name, make in CHATS.items()},
    **{name: (make, pair, {}) for name, make in PAIRS.items()},
    **{name: (make, text, {"template": "{post}{eos}{completion}"}) for name, make in TEXTS.items()},
}


@pytest.mark.parametrize("name", READ_AS)
def test_a_score_is_that_of_the_row_alone_at_any_batch_size(name: str, tmp_path: Path) -> None:
    """Whatever side the tokenizer pads on, and whether positions are counted from the row's begin or not."""
    make, encode, settings = READ_AS[name]
    folder = save(tmp_path, *make())
    expected = one_by_one(folder, encode)
    assert np.ptp(expected) > 0.01
    for size in (1, 3, 32):
        np.testing.assert_allclose(scores(folder, batch_size=size, **settings), expected, atol=1e-5)


# Chat templates


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama whose tokenizer begins every text with <s>, as its chat template does."""
    return save(tmp_path_factory.mktemp("llama"), *CHATS["llama"]())


def with_chat(folder: Path, llama: Path, chat: str) -> Path:
    """Return the model with another chat template."""
    tokenizer = AutoTokenizer.from_pretrained(llama)
    tokenizer.chat_template = chat
    return save(folder, AutoModelForSequenceClassification.from_pretrained(llama), tokenizer)


def test_a_conversation_is_read_turn_by_turn(llama: Path) -> None:
    turns = (
        {"role": "system", "content": "not good"},
        {"role": "user", "content": "the kettle"},
        {"role": "assistant", "content": "it boils"},
        {"role": "user", "content": "a lid ?"},
    )
    samples = [Sample("a lid ?", "fine", messages=turns), Sample("a lid ?", "fine")]
    expected = one_by_one(llama, conversation, samples)
    np.testing.assert_allclose(scores(llama, samples), expected, atol=1e-5)
    assert abs(expected[0] - expected[1]) > 0.01


FIELDS = "<start>user {post}<end><start>assistant {completion}<end>"


@pytest.mark.parametrize("template", [f"{{bos}}{FIELDS}", f"<s>{FIELDS}", FIELDS, "chat", None])
def test_a_text_begins_with_one_bos_however_it_is_written(template: str | None, llama: Path) -> None:
    expected = one_by_one(llama, conversation)
    np.testing.assert_allclose(scores(llama, template=template), expected, atol=1e-5)
    ids = classifier(llama, template=template).read(SAMPLES[0]).ids
    assert ids[:2] == (1, 4)


def test_a_bos_within_the_text_stays(llama: Path) -> None:
    read = classifier(llama, template="{post}{bos}{completion}").read(Sample("kettle", "lid"))
    assert read.tokens == ("<s>", "kettle", "<s>", "lid")


def test_an_end_that_the_tokenizer_adds_too_counts_once(tmp_path: Path) -> None:
    folder = save(tmp_path, *PAIRS["t5"]())
    read = classifier(folder, template="{post}{eos}{completion}{eos}").read(Sample("the kettle", "lid"))
    assert read.tokens == ("▁the", "▁kettle", "</s>", "▁lid", "</s>")


def test_a_chat_template_that_wants_parts_gets_them(llama: Path, tmp_path: Path) -> None:
    parts = "{% for p in message.content %}{{ p.text }}{% endfor %}"
    folder = with_chat(tmp_path / "nothing", llama, CHAT.replace("message.content", "message.contents"))
    with pytest.raises(RewardError, match="its chat template leaves out what the user or the assistant says"):
        classifier(folder)
    folder = with_chat(tmp_path / "cuts", llama, CHAT.replace("message.content", "message.content[:9]"))
    with pytest.raises(RewardError, match="its chat template leaves out what the user or the assistant says"):
        classifier(folder)
    chat = "{{ bos_token }}{% for message in messages %}<start>{{ message.role }} " + parts + "<end>{% endfor %}"
    folder = with_chat(tmp_path / "parts", llama, chat)
    np.testing.assert_allclose(scores(folder), one_by_one(llama, conversation), atol=1e-5)


def test_a_chat_template_that_refuses_a_turn_is_told(llama: Path, tmp_path: Path) -> None:
    chat = "{% if messages[0].role == 'system' %}{{ raise_exception('no system here') }}{% endif %}" + CHAT
    folder = with_chat(tmp_path, llama, chat)
    turns = ({"role": "system", "content": "a"}, {"role": "user", "content": "b"})
    with pytest.raises(RewardError, match="cannot write the turns system, user, assistant: no system"):
        scores(folder, [Sample("b", "c", messages=turns)])
    assert np.isfinite(scores(folder)).all()


def test_a_model_without_a_way_to_read_is_asked_for_a_template(tmp_path: Path) -> None:
    tokenizer = word_tokenizer()
    folder = save(tmp_path, decoder("Llama", tokenizer, **GROUPED), tokenizer)
    with pytest.raises(RewardError, match="neither a chat template nor a sep token") as caught:
        classifier(folder)
    assert caught.value.hint.endswith("its tokenizer has {eos}, and adds <s> by itself.")  # {bos} would be a second one
    with pytest.raises(RewardError, match="has no chat template"):
        classifier(folder, template="chat")
    with pytest.raises(RewardError, match="its tokenizer puts nothing between two texts"):
        classifier(folder, template="pair")


# Pairs


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of 24 positions with the labels no and yes."""
    tokenizer = bert_words()
    model = encoder("Bert", tokenizer, max_position_embeddings=24, id2label={0: "no", 1: "yes"}, num_labels=2, **SHAPE)
    return save(tmp_path_factory.mktemp("bert"), model, tokenizer)


def test_a_pair_has_segments_and_a_text_has_none(bert: Path) -> None:
    sample = Sample("the kettle", "a lid")
    joined, as_text = (classifier(bert, template=template).read(sample) for template in ("pair", "text"))
    assert joined.ids == as_text.ids
    assert (joined.segments, as_text.segments) == ((0, 0, 0, 0, 1, 1, 1), None)
    assert abs(joined.logits["no"] - as_text.logits["no"]) > 0.01
    assert classifier(bert).read(sample) == joined


def test_a_word_in_the_place_of_a_template_is_one_of_three() -> None:
    with pytest.raises(RecipeError) as caught:
        parse_reward_section({"model": "m", "template": "pairs"}, "the flags")
    assert caught.value.hint == "Did you mean pair?"


# What is too long


def test_of_a_pair_the_post_is_cut_as_transformers_cuts_it(bert: Path) -> None:
    sample = Sample("the kettle boils fast , and " * 6, "the lid broke")

    def cut(tokenizer: Any, sample: Sample) -> Any:
        return tokenizer(sample.post, sample.completion, truncation="only_first", max_length=24, return_tensors="pt")

    np.testing.assert_allclose(scores(bert, [sample]), one_by_one(bert, cut, [sample]), atol=1e-5)
    read = classifier(bert).read(sample)
    assert (len(read.ids), read.cut, read.left_out) == (24, 36 + 3 + 3 - 24, "of the post")
    assert read.tokens[-4:] == ("the", "lid", "broke", "[SEP]")


def test_of_a_completion_that_is_too_long_by_itself_the_end_is_cut(bert: Path) -> None:
    read = classifier(bert).read(Sample("the kettle", "good " * 30))
    assert read.tokens == ("[CLS]", "[SEP]", *["good"] * 21, "[SEP]")
    assert (read.cut, read.left_out) == (11, "of the post and the completion")


def test_of_a_conversation_the_oldest_turns_are_cut_and_its_form_stays(llama: Path) -> None:
    turns = (
        {"role": "system", "content": "not good"},
        {"role": "user", "content": "the kettle boils"},
        {"role": "assistant", "content": "fast"},
        {"role": "user", "content": "a week and it broke"},
    )
    read = classifier(llama, max_tokens=23).read(Sample("", "the lid", messages=turns))
    assert read.texts == (
        "<s><start>system not good<end><start>user <end><start>assistant <end><start>user and it broke<end>"
        "<start>assistant the lid<end>",
    )
    assert (len(read.ids), read.cut, read.left_out) == (23, 6, "of the earlier turns")


def test_of_a_text_what_is_far_from_the_completion_is_cut_and_the_templates_words_stay(llama: Path) -> None:
    sample = Sample("the kettle boils fast", "a lid")
    before = classifier(llama, template="user {post} assistant {completion}{eos}", max_tokens=8).read(sample)
    assert before.tokens == ("<s>", "user", "boils", "fast", "assistant", "a", "lid", "</s>")
    after = classifier(llama, template="assistant {completion} user {post}{eos}", max_tokens=8).read(sample)
    assert after.tokens == ("<s>", "assistant", "a", "lid", "user", "the", "kettle", "</s>")
    assert before.cut == after.cut == 2


def test_a_length_that_the_template_alone_exceeds_is_refused(llama: Path) -> None:
    with pytest.raises(RewardError, match="reads 5 tokens, and an empty post and completion already make 7"):
        scores(llama, max_tokens=5)


@pytest.mark.parametrize(
    ("template", "way"), [("chat", "chat template"), ("pair", "pair of texts"), ("text", "one text")]
)
def test_a_small_stand_in_reads_in_the_way_that_is_asked_for(template: str, way: str, tmp_path: Path) -> None:
    """As ``run --tiny`` makes one for a model that is not here."""
    section = RewardSection(model="someone/judge", template=template)
    stand_in = build_judge(tmp_path / "judge", section)
    read = Classifier("judge", section.model_copy(update={"model": str(stand_in)})).read(SAMPLES[0])
    assert way in read.way
    assert read.tokens.count("[SEP]") == {"chat": 0, "pair": 2, "text": 2}[template]
