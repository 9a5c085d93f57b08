"""Attention by layout gives what attention under the mask of packed rows gives."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from rsoup.models import attention, packing

PROMPT_MASK = torch.tensor([[False, True, True, True], [True, True, True, True], [False, False, False, True]])
GROUP, TOKENS, HEADS, KEYS, WIDTH = 3, 5, 4, 2, 8


def numbers(heads: int, columns: int, seed: int) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(len(PROMPT_MASK), heads, columns, WIDTH, generator=random).requires_grad_()


@pytest.mark.parametrize("largest", [1 << 21, 200, 1])
@pytest.mark.parametrize("queries", [None, TOKENS * GROUP, 2 * GROUP, GROUP])
def test_rows_are_read_as_under_their_mask(queries: int | None, largest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one part or in many, and so are the gradients of what is read."""
    monkeypatch.setattr(attention, "LARGEST", largest)
    size = PROMPT_MASK.shape[1] + TOKENS * GROUP
    given = numbers(HEADS, queries or size, 0), numbers(KEYS, size, 1), numbers(KEYS, size, 2)
    mask = packing.attention_mask(PROMPT_MASK, GROUP, TOKENS, queries=queries)
    times = HEADS // KEYS
    repeated = [held.repeat_interleave(times, dim=1) for held in given[1:]]
    expected = nn.functional.scaled_dot_product_attention(given[0], *repeated, attn_mask=mask, scale=0.3)

    stand_in = attention.mask_of(attention.Layout(PROMPT_MASK, GROUP, TOKENS, queries))
    found, _ = attention.attend(nn.Module(), *given, stand_in, scaling=0.3)

    assert stand_in.shape == mask.shape
    real = torch.cat([PROMPT_MASK, PROMPT_MASK.new_ones(len(PROMPT_MASK), TOKENS * GROUP)], 1)[:, -(queries or size) :]
    torch.testing.assert_close(found[real], expected.transpose(1, 2)[real])
    weights = torch.randn(found[real].shape, generator=torch.Generator().manual_seed(3))
    slopes = torch.autograd.grad((weights * found[real]).sum(), given)
    for slope, own in zip(
        slopes, torch.autograd.grad((weights * expected.transpose(1, 2)[real]).sum(), given), strict=True
    ):
        torch.testing.assert_close(slope, own, rtol=1e-4, atol=1e-5)


def test_prompts_of_completions_of_one_token_are_read_alone() -> None:
    given = [numbers(2, PROMPT_MASK.shape[1], seed) for seed in range(3)]
    expected = nn.functional.scaled_dot_product_attention(*given, attn_mask=packing.attention_mask(PROMPT_MASK, 2, 0))
    stand_in = attention.mask_of(attention.Layout(PROMPT_MASK, 2, 0))
    found, _ = attention.attend(nn.Module(), *given, stand_in)
    torch.testing.assert_close(found[PROMPT_MASK], expected.transpose(1, 2)[PROMPT_MASK])


def test_other_masks_are_left_to_the_usual_attention() -> None:
    given = [numbers(2, 6, seed) for seed in range(3)]
    mask = torch.ones(6, 6, dtype=torch.bool).tril()[None, None]
    expected = nn.functional.scaled_dot_product_attention(*given, attn_mask=mask)
    torch.testing.assert_close(attention.attend(nn.Module(), *given, mask)[0], expected.transpose(1, 2))


def test_attention_that_is_more_than_a_softmax_is_refused() -> None:
    given = [numbers(2, 4 + TOKENS * GROUP, seed) for seed in range(3)]
    mask = attention.mask_of(attention.Layout(PROMPT_MASK, GROUP, TOKENS))
    with pytest.raises(NotImplementedError):
        attention.attend(nn.Module(), *given, mask, softcap=5.0)
