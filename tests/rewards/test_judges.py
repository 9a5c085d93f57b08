"""The paper's six reward models, as small random models of their classes: the very text, ids and logits.

The vocabularies are written out, so that the ids expected here are written by hand from the paper's text formats.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    BartConfig,
    BartForSequenceClassification,
    BartTokenizer,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    DebertaV2Tokenizer,
    ElectraConfig,
    ElectraForSequenceClassification,
    ElectraTokenizer,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2Tokenizer,
)

from rewards.texts import score_texts
from rsoup.errors import RecipeError, RewardError
from rsoup.recipe import RewardSection
from rsoup.recipe_file import parse_recipe
from rsoup.rewards import JUDGES, REWARDS, complete_reward, split_weight
from rsoup.rewards.classifier import Classifier
from rsoup.rewards.heads import describe_outputs, parse_format
from rsoup.rewards.samples import Sample
from rsoup.rewards.scoring import make_scorer, weighted_score

POST, RESPONSE = "the kettle boils", "a lid"

BYTES = {"<|endoftext|>": 0, "a": 1, "Ġlid": 2, "Ġ": 3, "the": 4, "Ġkettle": 5, "Ġboils": 6, "Ġthe": 7}
BART = {
    "<s>": 0,
    "<pad>": 1,
    "</s>": 2,
    "<unk>": 3,
    "<mask>": 4,
    "a": 5,
    "Ġlid": 6,
    "the": 7,
    "Ġkettle": 8,
    "Ġboils": 9,
}
PIECES = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "▁the", "▁kettle", "▁boils", "▁a", "▁lid"]
PIECES += ["▁Generate", "▁movie", "▁review", ".", "▁", "[MASK]"]
WORDS = {word: index for index, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "kettle"])}
WORDS |= {"boils": 7, "a": 8, "lid": 9, "generate": 10, "movie": 11, "review": 12, ".": 13}


def byte_pairs(vocabulary: dict[str, int]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Complete a byte-level vocabulary with its letters and the merges that build its words letter by letter."""
    words = [word for word in vocabulary if not word.startswith("<") and len(word) > 1]
    words.sort(key=lambda word: not word.startswith("Ġ"))  # a space is merged first, as in the real tables
    pieces = [(word[:end], word[end]) for word in words for end in range(1, len(word))]
    more = {letter for piece in pieces for letter in (*piece, "".join(piece))} | set("abcdefghijklmnopqrstuvwxyzĠ.")
    known = {**vocabulary, **{piece: 100 + index for index, piece in enumerate(sorted(more - set(vocabulary)))}}
    return known, list(dict.fromkeys(pieces))


def build(folder: Path, architecture: str, labels: tuple[str, ...]) -> Path:
    """Save a random model of a class with its tokenizer and the labels it has on the hub."""
    torch.manual_seed(0)
    shape: dict[str, Any] = {
        "id2label": dict(enumerate(labels)),
        "label2id": {label: index for index, label in enumerate(labels)},
        "initializer_range": 0.5,
    }
    tokenizer: Any
    if architecture == "gpt2":
        vocabulary, merges = byte_pairs(BYTES)
        tokenizer = GPT2Tokenizer(vocab=vocabulary, merges=merges, model_max_length=1024)
        config: Any = GPT2Config(
            vocab_size=200, n_embd=8, n_layer=2, n_head=2, n_positions=1024, bos_token_id=0, eos_token_id=0, **shape
        )
        model: Any = GPT2ForSequenceClassification(config)
    elif architecture == "bart":
        vocabulary, merges = byte_pairs(BART)
        tokenizer = BartTokenizer(vocab=vocabulary, merges=merges, model_max_length=1024)
        config = BartConfig(
            vocab_size=200, d_model=8, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
            decoder_attention_heads=2, encoder_ffn_dim=8, decoder_ffn_dim=8, max_position_embeddings=1024,
            init_std=0.5, **shape,
        )  # fmt: skip
        model = BartForSequenceClassification(config)
    elif architecture == "deberta-v2":
        tokenizer = DebertaV2Tokenizer(
            vocab=[(piece, -1.0 - index / 9) for index, piece in enumerate(PIECES)], unk_id=3
        )
        config = DebertaV2Config(
            vocab_size=len(PIECES), hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
            type_vocab_size=0, position_biased_input=False, relative_attention=True, pos_att_type=["p2c", "c2p"],
            position_buckets=256, norm_rel_ebd="layer_norm", share_att_key=True, pooler_hidden_size=8, **shape,
        )  # fmt: skip
        model = DebertaV2ForSequenceClassification(config)
    else:
        tokenizer = ElectraTokenizer(vocab=WORDS, model_max_length=512)
        config = ElectraConfig(
            vocab_size=len(WORDS), embedding_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=8, **shape,
        )  # fmt: skip
        model = ElectraForSequenceClassification(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for each of the six models, at the place where its hub id points from the parent folder."""
    root = tmp_path_factory.mktemp("hub")
    return {
        name: build(root / entry.judge.model, entry.judge.architecture, entry.judge.labels)
        for name, entry in REWARDS.items()
        if entry.judge is not None
    }


@pytest.fixture
def hub(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Call in a folder where the six models lie under their hub ids, so that these ids find them."""
    root = next(iter(folders.values())).parent.parent
    monkeypatch.chdir(root)
    return root  # type: ignore[return-value]


def test_there_are_the_six_models_of_the_paper() -> None:
    assert set(JUDGES) == {
        "Tristan/gpt2_reward_summarization",
        "CogComp/bart-faithful-summary-detector",
        "OpenAssistant/reward-model-deberta-v3-base",
        "OpenAssistant/reward-model-electra-large-discriminator",
        "OpenAssistant/reward-model-deberta-v3-large-v2",
        "theblackcat102/reward-model-deberta-v3-base-v2",
    }


ANSWER_TEXT = "the kettle boils[SEP]a lid"
DEBERTA_IDS = [1, 4, 5, 6, 2, 7, 8, 2]
ELECTRA_IDS = [2, 5, 6, 7, 3, 8, 9, 3]
READINGS = {
    # gpt2: {response} {bos} {post}; the space before the special token stays, no token is added
    "summary-gpt2": ("a lid <|endoftext|> the kettle boils", [1, 2, 3, 0, 7, 5, 6]),
    # bart: {response}{eos}{eos}{post}, between the <s> and </s> that the tokenizer adds
    "faithful-bart": ("a lid</s></s>the kettle boils", [0, 5, 6, 2, 2, 7, 8, 9, 2]),
    # the others: {post}{sep}{response}, between [CLS] and [SEP]
    "answer-deberta-base": (ANSWER_TEXT, DEBERTA_IDS),
    "answer-deberta-large-v2": (ANSWER_TEXT, DEBERTA_IDS),
    "answer-deberta-base-v2": (ANSWER_TEXT, DEBERTA_IDS),
    "answer-electra-large": (ANSWER_TEXT, ELECTRA_IDS),
}


@pytest.mark.parametrize("name", READINGS)
def test_a_model_reads_the_papers_text_and_ids(name: str, hub: Path) -> None:
    scorer = make_scorer(name, RewardSection())
    assert isinstance(scorer, Classifier)
    reading = scorer.read(Sample(POST, RESPONSE))
    assert (reading.texts, list(reading.ids)) == ((READINGS[name][0],), READINGS[name][1])
    assert reading.cut == 0


@pytest.mark.parametrize(
    ("name", "ids"),
    [
        ("answer-deberta-base", [1, 1, 9, 7, 10, 11, 12, 2, 7, 8, 2]),
        ("answer-electra-large", [2, 2, 10, 8, 11, 12, 13, 3, 8, 9, 3]),
    ],
)
def test_a_movie_review_is_read_after_a_cls_token_and_its_instruction(name: str, ids: list[int], hub: Path) -> None:
    section = complete_reward(name, RewardSection(), task="review")
    scorer = Classifier(name, section)
    reading = scorer.read(Sample("Generate a movie review.", RESPONSE))
    assert reading.texts == ("[CLS]Generate a movie review.[SEP]a lid",)
    assert list(reading.ids) == ids


@pytest.mark.parametrize("name", READINGS)
def test_a_score_is_the_raw_logit_of_these_ids(name: str, folders: dict[str, Path], hub: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(folders[name]).eval()
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([READINGS[name][1]])).logits[0].double()
    expected = logits[1] - logits[0] if name == "faithful-bart" else logits[0]
    posts, completions = [POST, "the", "the kettle the"], [RESPONSE, "a", "a lid a lid"]
    found = score_texts(name, make_scorer(name, RewardSection()), posts, completions)
    assert found[0] == pytest.approx(float(expected), abs=1e-5)
    assert len(set(found)) == 3
    alone = score_texts(name, make_scorer(name, RewardSection(batch_size=1)), posts, completions)
    np.testing.assert_allclose(found, alone, atol=1e-5)


def test_a_label_goes_by_its_name_too(hub: Path) -> None:
    by_name = RewardSection(model="CogComp/bart-faithful-summary-detector", format="FAITHFUL-HALLUCINATED")
    found = score_texts("x", make_scorer("x", by_name), [POST], [RESPONSE])
    assert found == score_texts("y", make_scorer("y", RewardSection(use="faithful-bart")), [POST], [RESPONSE])


def test_a_hub_id_takes_what_the_registry_knows_of_it() -> None:
    for name, entry in REWARDS.items():
        if entry.judge is None:
            continue
        by_id = complete_reward("mine", RewardSection(model=entry.judge.model))
        assert by_id == complete_reward(name, RewardSection()) == complete_reward("mine", RewardSection(use=name))
        assert (by_id.template, by_id.format) == (entry.judge.template, entry.judge.format)
    given = complete_reward("mine", RewardSection(use="faithful-bart", format="1", max_tokens=9))
    assert (given.format, given.max_tokens, given.template) == ("1", 9, "{completion}{eos}{eos}{post}")


def test_a_recipe_says_what_its_rewards_read() -> None:
    content: dict[str, Any] = {"model": {"base": "m"}, "task": {"name": "review"}}
    content["rewards"] = {"a": {"use": "answer-deberta-base"}, "own": {"model": "x/y"}, "brief": None}
    rewards = parse_recipe(content, "r.yaml").rewards
    assert rewards["a"].model == "OpenAssistant/reward-model-deberta-v3-base"
    assert rewards["a"].template == "{cls}{post}{sep}{completion}"
    assert (rewards["own"].template, rewards["own"].format) == (None, None)  # as the model says, once it is loaded
    again = parse_recipe({**content, "rewards": {name: one.model_dump() for name, one in rewards.items()}}, "r.yaml")
    assert again.rewards == rewards


def test_what_is_too_long_is_cut_off_the_post(hub: Path) -> None:
    long = "the kettle boils " * 400
    for name in ("answer-electra-large", "summary-gpt2", "faithful-bart"):
        section = RewardSection(use=name, max_tokens=40)
        scorer = make_scorer(name, section)
        assert isinstance(scorer, Classifier)
        reading = scorer.read(Sample(long, RESPONSE))
        assert len(reading.ids) == 40
        assert reading.cut > 0
        assert {"a", "Ġlid", "lid"} & set(reading.tokens)
    full = make_scorer("e", RewardSection(use="answer-electra-large"))
    assert isinstance(full, Classifier)
    assert len(full.read(Sample(long, RESPONSE)).ids) == 512


# Formats


LABELS = {0: "HALLUCINATED", 1: "FAITHFUL", 2: "not-sure"}
OUTPUTS = describe_outputs({"logits": torch.zeros(1, 3)}, 1, LABELS)


@pytest.mark.parametrize(
    ("text", "signs"),
    [
        ("0", [(0, 1)]),
        ("1-0", [(1, 1), (0, -1)]),
        ("FAITHFUL-HALLUCINATED", [(1, 1), (0, -1)]),
        ("not-sure", [(2, 1)]),
        ("FAITHFUL-not-sure", [(1, 1), (2, -1)]),
        ("1+2-0", [(1, 1), (2, 1), (0, -1)]),
    ],
)
def test_a_format_names_labels_with_their_signs(text: str, signs: list[tuple[int, int]]) -> None:
    assert parse_format("r", text, OUTPUTS) == signs


@pytest.mark.parametrize(
    ("text", "hint"),
    [("3", "Known: "), ("FAITHFULL", "Did you mean FAITHFUL?"), ("1-0x0.6", "morl"), ("", "Known: "), ("1-", "Did")],
)
def test_a_format_of_no_label_is_refused(text: str, hint: str) -> None:
    with pytest.raises(RewardError, match="names no label") as caught:
        parse_format("r", text, OUTPUTS)
    assert hint in caught.value.hint


def test_formats_with_weights_give_the_weighted_mean_of_the_paper() -> None:
    """0x0.4 and 1-0x0.6 mean 0.4 R1 + 0.6 R2, divided by the sum of the weights."""
    assert split_weight("0x0.4") == ("0", 0.4)
    assert split_weight("1-0x0.6") == ("1-0", 0.6)
    assert split_weight("1-0") == ("1-0", 1.0)
    assert split_weight("extra") == ("extra", 1.0)
    scores = {"r1": np.array([2.0]), "r2": np.array([-1.0])}
    assert weighted_score(scores, {"r1": 0.4, "r2": 0.6}) == pytest.approx(0.4 * 2 - 0.6)
    assert weighted_score(scores, {"r1": 1.0, "r2": 3.0}) == pytest.approx((2 - 3) / 4)


def test_a_classifier_key_on_another_reward_is_refused() -> None:
    content: dict[str, Any] = {
        "model": {"base": "m"},
        "task": {"name": "review"},
        "rewards": {"brief": {"format": "1"}},
    }
    with pytest.raises(RecipeError, match=r"r\.yaml: rewards\.brief: format is for a classifier"):
        parse_recipe(content, "r.yaml")
