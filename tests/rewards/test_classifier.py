"""A sequence classifier as a reward: its own tokenizer and template, the label asked for, any batch."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    LlamaConfig,
    LlamaForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
    XLNetConfig,
    XLNetForSequenceClassification,
)

from rewards.texts import score_texts
from rsoup.errors import RewardError
from rsoup.recipe import RewardSection
from rsoup.rewards.classifier import Classifier
from rsoup.rewards.samples import Sample
from rsoup.rewards.scoring import make_scorer
from tiny import POSTS, build_classifier, build_tokenizer

COMPLETIONS = ["good", "the lid broke after a week", "", "love the colour but hate its price and handle"] * 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT with the labels negative and positive."""
    return build_classifier(tmp_path_factory.mktemp("classifier"))


def logits_of(folder: Path, text: str) -> torch.Tensor:
    """Return the logits of one text, by transformers alone."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    limit = model.config.max_position_embeddings
    with torch.no_grad():
        logits: torch.Tensor = model(**tokenizer(text, truncation=True, max_length=limit, return_tensors="pt")).logits
    return logits[0]


def scores_of(folder: Path, **settings: object) -> np.ndarray:
    section = RewardSection.model_validate({"model": str(folder), **settings})
    return score_texts("judge", make_scorer("judge", section), POSTS, COMPLETIONS)


@pytest.mark.parametrize(
    ("format_", "plus", "minus"),
    [("0", 0, None), ("1", 1, None), ("positive", 1, None), ("1-0", 1, 0), ("negative-positive", 0, 1)],
)
def test_a_score_is_the_raw_logit_of_a_label_or_a_difference(
    folder: Path, format_: str, plus: int, minus: int | None
) -> None:
    found = scores_of(folder, format=format_)
    for index, completion in enumerate(COMPLETIONS):
        logits = logits_of(folder, f"{POSTS[index]}<sep>{completion}")
        expected = logits[plus] - (logits[minus] if minus is not None else 0)
        assert found[index] == pytest.approx(float(expected), abs=1e-4)


def test_scores_do_not_depend_on_the_batch(folder: Path) -> None:
    expected = scores_of(folder, batch_size=1)
    assert np.ptp(expected) > 0.1
    for size in (2, 5, 32):
        np.testing.assert_allclose(scores_of(folder, batch_size=size), expected, atol=1e-5)


@pytest.fixture
def decoder(tmp_path: Path) -> Path:
    """A random Llama with one label; neither it nor its tokenizer has a padding token."""
    tokenizer = build_tokenizer()
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path / "decoder")
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(tokenizer), num_labels=1, initializer_range=0.5, eos_token_id=1, **shape)
    LlamaForSequenceClassification(config).save_pretrained(tmp_path / "decoder")
    return tmp_path / "decoder"


def test_a_decoder_without_a_padding_token_scores_the_last_token_of_each_text(decoder: Path) -> None:
    """As reward models made from language models are: one label, read at the end of the text."""
    expected = scores_of(decoder, template="{post} : {completion}", batch_size=1)
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(scores_of(decoder, template="{post} : {completion}"), expected, atol=1e-5)


def test_the_end_of_text_token_of_a_template_is_read(decoder: Path) -> None:
    """Taken for padding, it would not be: the score would be that of the token before."""
    found = scores_of(decoder, template="{completion} good{eos}")
    expected = [float(logits_of(decoder, f"{completion} good<eos>")[0]) for completion in COMPLETIONS]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(found - scores_of(decoder, template="{completion} good")).min() > 0.01


def test_an_empty_text_has_a_score_of_its_own(decoder: Path) -> None:
    section = RewardSection(model=str(decoder), template="{completion}")
    alone = score_texts("judge", make_scorer("judge", section), [""], [""])
    both = score_texts("judge", make_scorer("judge", section), ["", ""], ["", "the lid broke"])
    assert both[0] == pytest.approx(alone[0], abs=1e-5)


def test_the_template_is_filled_in_once(folder: Path) -> None:
    template = "{cls}{post} : {completion}{eos}{other}"
    section = RewardSection(model=str(folder)).model_copy(update={"template": template})
    (text,) = Classifier("judge", section).read(Sample("a {completion} in braces", "the {post}")).texts
    assert text == "<cls>a {completion} in braces : the {post}<eos>{other}"


def test_a_special_token_that_the_model_lacks_is_named(folder: Path) -> None:
    with pytest.raises(RewardError, match="its tokenizer has no bos token") as caught:
        scores_of(folder, template="{bos}{completion}")
    assert caught.value.hint.endswith("its tokenizer has {eos}, {sep}, {cls}.")


def test_a_table_of_positions_that_begins_after_the_padding_is_not_overrun(tmp_path: Path) -> None:
    """RoBERTa declares two positions more than it can read, and many tokenizers declare no length."""
    tokenizer = build_tokenizer()
    tokenizer.model_max_length = 10**30
    tokenizer.save_pretrained(tmp_path)
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=26, pad_token_id=1, initializer_range=0.5,
    )  # fmt: skip
    RobertaForSequenceClassification(config).save_pretrained(tmp_path)
    classifier = Classifier("judge", RewardSection(model=str(tmp_path), template="{completion}"))
    assert len(classifier.read(Sample("", "lid " * 100)).ids) == 24


def test_a_length_that_only_a_tokenizer_or_nothing_limits_may_be_asked_for(tmp_path: Path) -> None:
    tokenizer = build_tokenizer()
    settings = {"vocab_size": len(tokenizer), "d_model": 16, "n_layer": 1, "n_head": 2, "d_inner": 24, "num_labels": 1}
    XLNetForSequenceClassification(XLNetConfig(**settings, pad_token_id=0)).save_pretrained(tmp_path)
    lengths = {}
    for usual, asked in ((10**30, None), (10**30, 700), (40, None), (40, 700), (40, 30)):
        tokenizer.model_max_length = usual
        tokenizer.save_pretrained(tmp_path)
        section = RewardSection(model=str(tmp_path), template="{completion}", max_tokens=asked)
        lengths[usual, asked] = len(Classifier("judge", section).read(Sample("", "lid " * 800)).ids)
    assert list(lengths.values()) == [512, 700, 40, 700, 30]


def test_long_texts_are_cut_to_what_the_model_reads(folder: Path) -> None:
    scorer = make_scorer("judge", RewardSection(model=str(folder), template="{completion}"))
    exact, longer = score_texts("judge", scorer, ["", ""], ["lid " * 24, "lid " * 24 + "good " * 50])
    assert longer == pytest.approx(exact, abs=1e-5)


def test_a_label_with_a_hyphen_is_a_label(tmp_path: Path) -> None:
    labels = ["not-good", "good"]
    folder = build_classifier(
        tmp_path / "judge", id2label=dict(enumerate(labels)), label2id={label: i for i, label in enumerate(labels)}
    )
    assert scores_of(folder, format="not-good").tolist() == scores_of(folder, format="0").tolist()
    assert scores_of(folder, format="good-not-good").tolist() == scores_of(folder, format="1-0").tolist()


def test_an_unknown_label_gets_the_nearest_one(folder: Path) -> None:
    with pytest.raises(RewardError) as caught:
        scores_of(folder, format="postive")
    assert "'postive' names no label" in caught.value.message
    assert caught.value.hint == "Did you mean positive?"


@pytest.mark.parametrize("name", ["./absent", "absent", "a/b/c"])
def test_a_folder_that_is_not_there_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RewardError, match=f"{name}: there is no such model folder"):
        make_scorer("judge", RewardSection(model=name))


def test_a_folder_that_is_not_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(RewardError, match=r"not a model: it has no config\.json"):
        make_scorer("judge", RewardSection(model=str(tmp_path)))


def test_a_damaged_model_is_named(folder: Path, tmp_path: Path) -> None:
    damaged = Path(shutil.copytree(folder, tmp_path / "damaged"))
    (damaged / "model.safetensors").write_bytes(b"short")
    with pytest.raises(RewardError, match="cannot be loaded"):
        make_scorer("judge", RewardSection(model=str(damaged)))


def test_a_model_without_a_trained_classifier_is_refused(tiny_model: Path) -> None:
    """A language model would get a random output layer, and the rewards would mean nothing."""
    with pytest.raises(RewardError, match=r"lacks the weights score\.weight"):
        make_scorer("judge", RewardSection(model=str(tiny_model)))
