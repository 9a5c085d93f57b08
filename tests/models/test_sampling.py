"""Sampling: greedy as transformers does it, random draws with the right frequencies, groups as single rows."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from scipy.stats import chisquare

from rsoup.models.language_model import LanguageModel
from rsoup.models.sampling import Completions, draw, generator_for, sample

PROMPTS = ([5, 6, 7], [8, 9, 10, 11, 12, 13], [14])


def sample_prompts(model: LanguageModel, prompts: Any = PROMPTS, **settings: Any) -> Completions:
    """Sample up to eight tokens for some prompts."""
    ids, mask = model.pad(prompts)
    return sample(model, ids, mask, **{"max_new_tokens": 8, "temperature": 1.0, **settings})


def uniforms(group: int, tokens: int = 8) -> torch.Tensor:
    """Return the random numbers of the prompts' completions. (P, G, T)."""
    return torch.rand(len(PROMPTS), group, tokens, generator=torch.Generator().manual_seed(group))


def common_token(completions: Completions) -> int:
    """Return the token that comes up most often after the first place."""
    return int(completions.ids[:, :, 1:].flatten().mode().values)


def test_greedy_decoding_is_that_of_transformers_on_left_padded_rows(language_model: LanguageModel) -> None:
    ids, mask = language_model.pad(PROMPTS)
    greedy = sample(language_model, ids, mask, max_new_tokens=8, temperature=0.0)
    expected = language_model.model.generate(
        input_ids=ids, attention_mask=mask.long(), max_new_tokens=8, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    assert greedy.ids[:, 0].tolist() == expected[:, ids.shape[1] :].tolist()
    assert greedy.mask.all()


def test_greedy_decoding_ends_where_transformers_ends(language_model: LanguageModel) -> None:
    ids, mask = language_model.pad(PROMPTS)
    stop = common_token(sample(language_model, ids, mask, max_new_tokens=8, temperature=0.0))
    greedy = sample(language_model, ids, mask, max_new_tokens=8, temperature=0.0, stop_ids=[stop])
    expected = language_model.model.generate(
        input_ids=ids, attention_mask=mask.long(), max_new_tokens=8, do_sample=False, eos_token_id=stop, pad_token_id=0
    )
    assert greedy.ids[:, 0].tolist() == expected[:, ids.shape[1] :].tolist()


def test_a_group_is_its_members_sampled_alone(language_model: LanguageModel) -> None:
    numbers = uniforms(4)
    stop = common_token(sample_prompts(language_model, uniforms=numbers))
    together = sample_prompts(language_model, uniforms=numbers, stop_ids=[stop])
    assert not together.mask.all()
    for member in range(4):
        for row, prompt in enumerate(PROMPTS):
            alone = sample_prompts(
                language_model,
                [prompt],
                uniforms=numbers[row : row + 1, member : member + 1],
                stop_ids=[stop],
            )
            kept = together.mask[row, member]
            assert together.ids[row, member][kept].tolist() == alone.ids[0, 0][alone.mask[0, 0]].tolist()


def test_a_completion_ends_with_its_stop_token_inclusive(language_model: LanguageModel) -> None:
    numbers = uniforms(6)
    stop = common_token(sample_prompts(language_model, uniforms=numbers))
    stopped = sample_prompts(language_model, uniforms=numbers, stop_ids=[stop])
    ended = (stopped.ids == stop) & stopped.mask
    assert ended.any()
    assert not ended.all(-1).any()
    for ids, mask, end in zip(stopped.ids.flatten(0, 1), stopped.mask.flatten(0, 1), ended.flatten(0, 1), strict=True):
        length = int(mask.sum())
        assert mask.tolist() == [True] * length + [False] * (len(mask) - length)
        assert end.nonzero().flatten().tolist() in ([], [length - 1])  # at most one stop token: the last
        assert set(ids[length:].tolist()) <= {language_model.pad_id}


def test_stopping_changes_no_token_before_the_stop(language_model: LanguageModel) -> None:
    numbers = uniforms(4)
    free = sample_prompts(language_model, uniforms=numbers)
    stopped = sample_prompts(language_model, uniforms=numbers, stop_ids=[common_token(free)])
    width = stopped.ids.shape[-1]
    assert torch.equal(stopped.ids[stopped.mask], free.ids[:, :, :width][stopped.mask])


def test_given_lengths_are_kept(language_model: LanguageModel) -> None:
    lengths = torch.tensor([[1, 4], [8, 2], [3, 3]])
    completions = sample_prompts(language_model, uniforms=uniforms(2), lengths=lengths)
    assert completions.mask.sum(-1).tolist() == lengths.tolist()


def test_sampling_stops_when_every_completion_has_ended(language_model: LanguageModel) -> None:
    lengths = torch.tensor([[1], [2], [2]])
    completions = sample_prompts(language_model, uniforms=uniforms(1), lengths=lengths)
    assert completions.ids.shape == (3, 1, 2)


def test_eager_attention_samples_the_same_tokens(language_model: LanguageModel) -> None:
    numbers = uniforms(3)
    fused = sample_prompts(language_model, uniforms=numbers)
    language_model.model.set_attn_implementation("eager")
    assert torch.equal(sample_prompts(language_model, uniforms=numbers).ids, fused.ids)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_have_the_frequencies_of_the_softmax(temperature: float) -> None:
    logits = torch.tensor([1.0, 0.0, -1.0, 2.0])
    uniform = torch.rand(20_000, generator=torch.Generator().manual_seed(0))
    tokens = draw(logits.expand(20_000, -1), temperature, uniform)
    expected = 20_000 * torch.softmax(logits.double() / temperature, 0)
    assert chisquare(torch.bincount(tokens), expected).pvalue > 0.01


def test_a_draw_inverts_the_distribution_function() -> None:
    logits = torch.tensor([0.2, 0.3, 0.5]).log().expand(6, -1)
    uniform = torch.tensor([0.0, 0.19, 0.21, 0.49, 0.51, 0.999999])
    assert draw(logits, 1.0, uniform).tolist() == [0, 0, 1, 1, 2, 2]


def test_impossible_tokens_are_never_drawn() -> None:
    logits = torch.tensor([[-math.inf, 0.0, -math.inf, 0.0, -math.inf]]).expand(4, -1)
    assert draw(logits, 1.0, torch.tensor([0.0, 0.49, 0.51, 1 - 2**-24])).tolist() == [1, 1, 3, 3]


def test_a_draw_does_not_depend_on_other_rows() -> None:
    logits = torch.randn(50, 11, generator=torch.Generator().manual_seed(0))
    uniform = torch.rand(50, generator=torch.Generator().manual_seed(1))
    together = draw(logits, 0.8, uniform)
    alone = [int(draw(logits[row : row + 1], 0.8, uniform[row : row + 1])) for row in range(50)]
    assert together.tolist() == alone


def test_temperature_zero_takes_the_likeliest_token() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0], [2.0, 0.0, 1.0]])
    assert draw(logits, 0.0, torch.tensor([0.99, 0.99])).tolist() == [1, 0]


def test_random_numbers_depend_on_seed_purpose_and_index_alone() -> None:
    def numbers(*of: Any) -> list[float]:
        return torch.rand(3, generator=generator_for(*of)).tolist()

    assert numbers(0, "sampling", 1) == numbers(0, "sampling", 1)
    different = [
        numbers(0, "sampling", 1),
        numbers(1, "sampling", 1),
        numbers(0, "order", 1),
        numbers(0, "sampling", 2),
    ]
    assert len({tuple(found) for found in different}) == 4
