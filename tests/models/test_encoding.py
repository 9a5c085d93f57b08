"""Prompts encoded in passes, and behind a beginning they share, are what they are in one padded batch."""

from __future__ import annotations

from itertools import chain

import pytest
import torch
from transformers.cache_utils import DynamicLayer

from rsoup.evaluation.ensembles import ensemble_of
from rsoup.models import encoding
from rsoup.models.caching import RoomyLayer
from rsoup.models.encoding import encode, passes
from rsoup.models.language_model import LanguageModel
from rsoup.models.sampling import Completions, sample

BEGINNING = [21, 22, 23, 24]
PROMPTS = [[*BEGINNING, *own] for own in ([5, 6, 7], [8, 9, 10, 11, 12, 13], [14], [15, 16, 17, 18, 19])]


@pytest.fixture(params=[6, 12, 1000])
def pass_size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Let a pass take a single prompt, some, or all."""
    monkeypatch.setattr(encoding, "PASS", request.param)
    return request.param


def greedy(model: LanguageModel, prompts: list[list[int]], shared: int = 0) -> Completions:
    """Complete prompts by their likeliest tokens."""
    ids, mask = model.pad(prompts)
    return sample(model, ids, mask, max_new_tokens=6, temperature=0.0, shared=shared, keep_states=True)


@pytest.mark.parametrize("shared", [0, len(BEGINNING)])
def test_completions_do_not_depend_on_passes_and_beginnings(
    language_model: LanguageModel, pass_size: int, shared: int
) -> None:
    together = greedy(language_model, PROMPTS, shared)
    for row, prompt in enumerate(PROMPTS):
        alone = greedy(language_model, [prompt])
        assert together.ids[row].tolist() == alone.ids[0].tolist()
        assert together.states is not None
        assert alone.states is not None
        torch.testing.assert_close(together.states[row], alone.states[0], atol=1e-4, rtol=1e-4)


def test_models_side_by_side_are_encoded_in_passes_too(language_model: LanguageModel, pass_size: int) -> None:
    two = ensemble_of(language_model, "mod", (0.5, 0.5))
    assert greedy(two, PROMPTS, len(BEGINNING)).ids.tolist() == greedy(language_model, PROMPTS).ids.tolist()


def test_an_encoded_beginning_moves_the_padding_behind_it(language_model: LanguageModel) -> None:
    ids, mask = language_model.pad(PROMPTS)
    encoded = encode(language_model, ids, mask, tokens=5, group=3, shared=len(BEGINNING))
    width = max(map(len, PROMPTS))
    assert encoded.mask.sum(1).tolist() == [len(prompt) for prompt in PROMPTS]
    assert encoded.mask[:, : len(BEGINNING)].all()
    assert encoded.cache.get_seq_length() == width
    layer = encoded.cache.layers[0]
    assert encoded.nbytes == 2 * len(encoded.cache.layers) * layer.keys[:, :, 0].nbytes * (width + 5 * 3)


def test_passes_hold_rows_of_like_length_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "PASS", 20)
    lengths = [9, 3, 10, 4, 30, 5]
    parts = list(passes(lengths))
    assert parts == [[1, 3, 5], [0, 2], [4]]
    assert sorted(chain.from_iterable(parts)) == list(range(len(lengths)))
    assert list(passes([7])) == [[0]]


@pytest.mark.parametrize("size", [0, 5, 100])
def test_a_layer_with_room_holds_what_one_that_grows_holds(size: int) -> None:
    torch.manual_seed(0)
    roomy, grown = RoomyLayer(size), DynamicLayer()
    for count in (3, 1, 4, 1):
        keys, values = torch.randn(3, 2, count, 4), torch.randn(3, 2, count, 6)
        for found, expected in zip(roomy.update(keys, values), grown.update(keys, values), strict=True):
            assert torch.equal(found, expected)
    for layer in (roomy, grown):
        layer.crop(-2)
        layer.batch_select_indices(torch.tensor([2, 0]))
    keys, values = torch.randn(2, 2, 1, 4), torch.randn(2, 2, 1, 6)
    for found, expected in zip(roomy.update(keys, values), grown.update(keys, values), strict=True):
        assert torch.equal(found, expected)
    assert roomy.get_seq_length() == grown.get_seq_length() == 8
