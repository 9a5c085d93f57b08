"""What a model returns for a text, and the columns that a format picks from it."""

from __future__ import annotations

import pytest
import torch

from rsoup.errors import RewardError
from rsoup.rewards.heads import describe_outputs, parse_format

ARMO = {"rewards": torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), "score": torch.tensor([7.0, 8.0])}
ARMO |= {"logits": torch.tensor([7.0, 8.0]), "hidden": torch.zeros(2, 100)}


def test_the_outputs_of_a_model_lie_side_by_side_the_logits_first() -> None:
    outputs = describe_outputs(ARMO, 2, {0: "helpful", 1: "honest", 2: "brief"})
    assert outputs.names == ("logits", "rewards.0", "rewards.1", "rewards.2", "score")
    assert outputs.values(ARMO).tolist() == [[7, 1, 2, 3, 7], [8, 4, 5, 6, 8]]
    assert outputs.shape == "rewards (n, 3), score (n,), logits (n,), hidden (n, 100)"


@pytest.mark.parametrize(
    ("text", "signs"),
    [
        ("0", [(0, 1)]),
        ("logits", [(0, 1)]),
        ("score", [(4, 1)]),
        ("rewards.2", [(3, 1)]),
        ("rewards.honest-rewards.0", [(2, 1), (1, -1)]),
    ],
)
def test_a_format_may_name_another_output(text: str, signs: list[tuple[int, int]]) -> None:
    outputs = describe_outputs(ARMO, 2, {0: "helpful", 1: "honest", 2: "brief"})
    assert parse_format("r", text, outputs) == signs


def test_a_label_that_only_another_output_has_is_suggested_there() -> None:
    with pytest.raises(RewardError, match=r"which returns rewards \(n, 3\), score \(n,\), logits \(n,\)") as caught:
        parse_format("r", "2", describe_outputs(ARMO, 2, {}))
    assert caught.value.hint == "Did you mean rewards.2?"


def test_a_label_that_is_another_labels_index_is_not_guessed() -> None:
    outputs = describe_outputs({"logits": torch.zeros(1, 3)}, 1, {0: "1", 1: "2", 2: "3"})
    with pytest.raises(RewardError, match=r"'1' is not clear: 1 may be logits\.0 or logits\.1"):
        parse_format("stars", "1", outputs)
    assert parse_format("stars", "logits.1-0", outputs) == [(1, 1), (0, -1)]
    same = describe_outputs({"logits": torch.zeros(1, 2)}, 1, {0: "0", 1: "1"})
    assert parse_format("stars", "1", same) == [(1, 1)]


def test_labels_of_the_same_name_go_by_index() -> None:
    outputs = describe_outputs({"logits": torch.zeros(1, 2)}, 1, {0: "X", 1: "X"})
    with pytest.raises(RewardError, match="is not clear"):
        parse_format("r", "X", outputs)
    assert parse_format("r", "1", outputs) == [(1, 1)]


def test_names_of_a_configuration_that_are_more_than_the_logits_are_none() -> None:
    outputs = describe_outputs({"logits": torch.zeros(1, 1)}, 1, {0: "LABEL_0", 1: "LABEL_1"})
    assert outputs.names == ("logits",)
    with pytest.raises(RewardError, match="names no label"):
        parse_format("r", "LABEL_1", outputs)


def test_a_head_for_each_of_many_labels_is_one_to_pick_from() -> None:
    """As the quantiles of a distributional reward model."""
    labels = {place: f"q{place}" for place in range(100)}
    outputs = describe_outputs({"logits": torch.zeros(2, 100), "hidden": torch.zeros(2, 100)}, 2, labels)
    assert parse_format("r", "q90-q10", outputs) == [(90, 1), (10, -1)]
    assert outputs.fields == ("logits",)
    with pytest.raises(RewardError) as caught:
        parse_format(
            "r", "POSITIVE", describe_outputs({"logits": torch.zeros(1, 2)}, 1, {0: "negative", 1: "positive"})
        )
    assert caught.value.hint == "Did you mean positive?"


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ({"logits": torch.zeros(2, 7, 2)}, r"logits \(n, 7, 2\), which is not one score"),
        ({"logits": torch.zeros(2, 4000)}, r"logits \(n, 4000\)"),
        ({"last_hidden_state": torch.zeros(2, 7, 8)}, r"last_hidden_state \(n, 7, 8\)"),
        ({"loss": None}, "no tensors"),
    ],
)
def test_an_output_that_is_no_score_of_a_text_is_refused_with_its_shape(output: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        describe_outputs(output, 2, {})
