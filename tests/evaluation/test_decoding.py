"""A token depends on its own row and its own random numbers, even where two tokens are all but equally likely."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from rsoup.evaluation.decoding import Chooser
from rsoup.evaluation.generation import shared_tokens
from rsoup.models.language_model import LanguageModel
from rsoup.models.load import load_language_model
from rsoup.models.sampling import Completions, draw, generator_for, sample
from tiny import build_tiny_model

PROMPTS = [[5 + (3 * row + column) % 40 for column in range(3 + row % 9)] for row in range(32)]


@pytest.fixture(scope="module")
def torn(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """A model with two words for everything: each pair of tokens has logits that differ in the last digits only."""
    folder = build_tiny_model(tmp_path_factory.mktemp("models") / "torn", seed=3, hidden_size=64)
    model = load_language_model(str(folder), revision=None, dtype="float32")
    weight = model.head.weight.data
    half = len(weight) // 2
    noise = torch.randn(half, weight.shape[1], generator=torch.Generator().manual_seed(0))
    weight[half : 2 * half] = weight[:half] * (1 + 3e-7 * noise)
    return model


def complete(
    model: LanguageModel, prompts: Sequence[Sequence[int]], temperature: float, choose: Any = None, group: int = 1
) -> Completions:
    ids, mask = model.pad(prompts)
    randoms = [[generator_for(0, str(list(prompt)), number) for number in range(group)] for prompt in prompts]
    choose = choose or Chooser(model, prompts, temperature, randoms)
    return sample(model, ids, mask, max_new_tokens=16, temperature=temperature, choose=choose, group=group)


def in_batches(model: LanguageModel, size: int, temperature: float, choose: Any = None) -> list[list[int]]:
    rows = []
    for start in range(0, len(PROMPTS), size):
        rows += complete(model, PROMPTS[start : start + size], temperature, choose).ids[:, 0].tolist()
    return rows


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_batches_of_any_size_choose_the_same_tokens(torn: LanguageModel, temperature: float) -> None:
    alone = in_batches(torn, 1, temperature)
    for size in (2, 5, 32):
        assert in_batches(torn, size, temperature) == alone


def test_the_likeliest_token_of_the_batch_would_not_do(torn: LanguageModel) -> None:
    """Without settling close calls alone, rounding decides: this is what the property above is worth."""

    def likeliest(logits: Tensor, _prompts: Tensor, _running: Tensor, _ids: Tensor) -> Tensor:
        return draw(logits, 0.0, None)

    found = {str(in_batches(torn, size, 0.0, likeliest)) for size in (1, 2, 5, 32)}
    assert len(found) > 1


def test_the_race_draws_from_the_softmax(language_model: LanguageModel) -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0]]).expand(4000, -1)
    randoms = [[torch.Generator().manual_seed(row)] for row in range(4000)]
    chooser = Chooser(language_model, [[5]] * 4000, 0.7, randoms)
    empty = torch.zeros(4000, 1, 0, dtype=torch.long)
    running = torch.zeros(4000, 1, dtype=torch.bool)
    counts = chooser(logits, torch.arange(4000), running, empty).bincount(minlength=4)
    expected = 4000 * torch.softmax(logits[0].double() / 0.7, -1)
    assert chisquare(counts.numpy(), expected.numpy()).pvalue > 1e-3


def test_models_that_nearly_agree_nearly_always_draw_the_same(language_model: LanguageModel) -> None:
    """With the noise shared, two softmaxes at a total variation distance d differ at most 2 d / (1 + d) of the time."""
    first = torch.randn(60, generator=torch.Generator().manual_seed(1))
    second = first + 0.1 * torch.randn(60, generator=torch.Generator().manual_seed(2))
    drawn = []
    for logits in (first, second):
        randoms = [[torch.Generator().manual_seed(row)] for row in range(2000)]
        chooser = Chooser(language_model, [[5]] * 2000, 1.0, randoms)
        none = torch.zeros(2000, 1, 0, dtype=torch.long)
        stopped = torch.zeros(2000, 1, dtype=torch.bool)
        drawn.append(chooser(logits.expand(2000, -1), torch.arange(2000), stopped, none))
    distance = 0.5 * float((first.softmax(-1) - second.softmax(-1)).abs().sum())
    differ = float((drawn[0] != drawn[1]).float().mean())
    assert 0 < differ < 2 * distance / (1 + distance) + 0.02


def test_samples_of_a_prompt_do_not_depend_on_how_many_there_are(language_model: LanguageModel) -> None:
    one, three = (complete(language_model, PROMPTS[:4], 1.0, group=group) for group in (1, 3))
    assert three.ids[:, 0].tolist() == one.ids[:, 0].tolist()
    assert three.ids[:, 0].tolist() != three.ids[:, 1].tolist()


def test_rows_that_end_early_leave_the_others_as_they_are(language_model: LanguageModel) -> None:
    ids, mask = language_model.pad(PROMPTS)
    whole = complete(language_model, PROMPTS, 0.0)
    stop = int(whole.ids.flatten().mode().values)
    chooser = Chooser(language_model, PROMPTS, 0.0, [])
    stopped = sample(
        language_model, ids, mask, max_new_tokens=16, temperature=0.0, choose=chooser, stop_ids=[stop], keep_states=True
    )
    lengths = stopped.mask.sum(-1).flatten().tolist()
    assert len(set(lengths)) > 3
    for row, length in enumerate(lengths):
        assert stopped.ids[row, 0, :length].tolist() == whole.ids[row, 0, :length].tolist()
        assert length == stopped.ids.shape[-1] or stopped.ids[row, 0, length - 1] == stop
    assert stopped.states is not None
    predicted = language_model.logits(stopped.states[stopped.mask]).argmax(-1)
    assert predicted.tolist() == stopped.ids[stopped.mask].tolist()


def test_the_order_of_the_prompts_does_not_matter(torn: LanguageModel) -> None:
    there = complete(torn, PROMPTS, 1.0).ids[:, 0].tolist()
    back = complete(torn, PROMPTS[::-1], 1.0).ids[:, 0].tolist()
    assert back[::-1] == there


def test_the_shared_tokens_prompts_is_what_all_share_but_for_a_last_token() -> None:
    assert shared_tokens([(1, 2, 3, 4, 5, 6), (1, 2, 3, 4, 5, 7, 8), (1, 2, 3, 4, 5, 6)]) == 5
    assert shared_tokens([(1, 2, 3, 4, 5), (1, 2, 3, 4, 5, 7, 8)]) == 4
    assert shared_tokens([(1, 2, 3, 4), (1, 2, 3, 4)]) == 0  # three tokens are hardly worth it
    assert shared_tokens([(1, 2, 3, 4, 5, 6)]) == 0
