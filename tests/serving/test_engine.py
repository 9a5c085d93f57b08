"""Rows come and go at any token, and each gets what its materialised mix gives it alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from ml_dtypes import bfloat16

from models.test_rowwise import build, experts_of
from rsoup.adapters import Adapter
from rsoup.errors import ModelError
from rsoup.models.language_model import LanguageModel
from rsoup.models.load import load_language_model
from rsoup.models.rowwise import Mix
from rsoup.serving.choosing import Sampling
from rsoup.serving.errors import BusyError, RequestError, StoppingError
from rsoup.serving.jobs import Request
from rsoup.serving.served import Served
from serving.asking import (
    Answer,
    answers,
    ask,
    finish,
    greedy_alone,
    make_engine,
    random_mixes,
    random_prompts,
)

BASE = Mix((0.0, 0.0, 0.0), 1.0)


def shown(served: Served, tokens: Sequence[int]) -> str:
    return served.model.tokenizer.decode(tokens, skip_special_tokens=True)


def requests_of(count: int, seed: int = 0) -> list[Request]:
    """Return requests of different weights, prompts and lengths."""
    pairs = zip(random_prompts(count, seed), random_mixes(count, seed=seed), strict=True)
    return [Request(prompt, mix, 3 + (7 * row) % 17) for row, (prompt, mix) in enumerate(pairs)]


@pytest.mark.parametrize("method", ["factors", "cat"])
def test_64_mixes_at_once_are_64_materialised_mixes_alone(
    base_model: LanguageModel, adapters: dict[str, Adapter], method: str
) -> None:
    """The promise of the engine: in float32 a greedy answer is that of the materialised mix alone."""
    served = Served(base_model, adapters, method, 128)
    requests = requests_of(64)
    with served.experts:
        found = answers(make_engine(served), requests)
        texts = [answer.text() for answer in found]
        assert texts == [shown(served, greedy_alone(served, own)) for own in requests]
    assert len(set(texts)) > 40


def test_adapters_in_a_narrow_type_are_mixed_without_rounding(
    base_model: LanguageModel, adapters: dict[str, Adapter]
) -> None:
    """Rounded to the adapters' type, a mix would be off by a thousandth, and another would settle the close calls."""

    def narrowed(own: Adapter) -> Adapter:
        layers = {
            name: replace(layer, down=layer.down.astype(bfloat16), up=layer.up.astype(bfloat16))
            for name, layer in own.layers.items()
        }
        return replace(own, layers=layers)

    served = Served(base_model, {name: narrowed(own) for name, own in adapters.items()}, "factors", 128)
    prompt, mix = random_prompts(1)[0], Mix((0.3, 0.45, 0.25))
    with served.experts, torch.no_grad():
        rows = served.encode([prompt], [mix])[1][0].float()
        torch.testing.assert_close(rows, served.alone(prompt, mix), rtol=1e-5, atol=1e-5)


def test_close_calls_are_those_of_the_materialised_mix(torn_model: Path, adapters: dict[str, Adapter]) -> None:
    """With two words for everything rounding would decide at every token; the batch must not."""
    model = load_language_model(str(torn_model), revision=None, dtype="float32")
    served = Served(model, adapters, "factors", 128)
    requests = requests_of(32)
    with served.experts:
        engine = make_engine(served)
        found = answers(engine, requests)
        assert [own.text() for own in found] == [shown(served, greedy_alone(served, own)) for own in requests]
        assert engine.settled > 50
        served.settles = False
        careless = answers(make_engine(served), requests)
    assert [own.text() for own in careless] != [own.text() for own in found]  # what the property is worth


@pytest.mark.parametrize("limits", [{"rows": 1}, {"rows": 3}, {"cache_tokens": 90}, {"rows": 8, "cache_tokens": 300}])
def test_an_answer_does_not_depend_on_the_rows_beside_it(served: Served, limits: dict[str, int]) -> None:
    """Small batches make rows join and leave all the time; seeded draws and log-probabilities stay as they are."""
    drawn = [
        replace(own, sampling=Sampling(0.9, 0.8 if row % 2 else 1.0), seed=row, top_logprobs=2)
        for row, own in enumerate(requests_of(24, seed=1))
    ]
    alone = [answers(make_engine(served), [own])[0] for own in drawn]
    engine = make_engine(served, **limits)
    together = answers(engine, drawn)
    assert [own.text() for own in together] == [own.text() for own in alone]
    assert [own.finish() for own in together] == [own.finish() for own in alone]
    for one, other in zip(together, alone, strict=True):
        first, second = ([p.logprobs[0].logprob for p in answer.pieces()] for answer in (one, other))
        torch.testing.assert_close(torch.tensor(first), torch.tensor(second), rtol=1e-4, atol=1e-4)
    assert (engine.running, engine.waiting, engine.cells) == (0, 0, 0)


def test_requests_that_come_later_join_the_running_batch(served: Served) -> None:
    engine, requests = make_engine(served), requests_of(20, seed=2)
    found: list[Answer] = []
    most = 0
    for own in requests:  # one more after each token
        found.append(ask(engine, own)[1])
        engine.step()
        most = max(most, engine.running)
    finish(engine)
    assert most > 5
    assert [own.text() for own in found] == [shown(served, greedy_alone(served, own)) for own in requests]


def test_requests_of_different_weights_share_every_pass(served: Served) -> None:
    """Sixteen requests of eight tokens take eight passes: one over the prompts, one for each further token."""
    passes: list[int] = []
    handle = served.model.model.get_decoder().register_forward_pre_hook(
        lambda _module, _args, kwargs: passes.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    requests = [Request((5, 6, 7), mix, 8) for mix in random_mixes(16)]
    stops, served.model.model.generation_config.eos_token_id = served.model.model.generation_config.eos_token_id, None
    served.model.tokenizer.eos_token = None
    try:
        answers(make_engine(served), requests)
    finally:
        handle.remove()
        served.model.model.generation_config.eos_token_id = stops
        served.model.tokenizer.eos_token = "<eos>"
    assert passes == [16] * 8


def test_the_cache_stays_within_its_limit(served: Served) -> None:
    engine = make_engine(served, cache_tokens=200)
    found = [ask(engine, own)[1] for own in requests_of(30, seed=3)]
    most = 0
    while engine.wait(0):
        engine.step()
        most = max(most, engine.cells)
    assert 100 < most <= 200
    assert all(own.finish() for own in found)


def test_what_can_never_fit_is_refused(served: Served) -> None:
    engine = make_engine(served, cache_tokens=40, rows=2)
    ask(engine, Request((5,) * 10, BASE, 31))
    with pytest.raises(RequestError, match="1 x 41 tokens are more than this server holds"):
        ask(engine, Request((5,) * 10, BASE, 32))
    with pytest.raises(RequestError, match="2 answers at once"):
        ask(engine, Request((5,), BASE, 2, choices=3))


def test_a_full_queue_is_told_and_a_cancelled_request_frees_its_place(served: Served) -> None:
    engine = make_engine(served, queue=2)
    request = Request((5, 6), BASE, 4)
    jobs = [ask(engine, request)[0] for _ in range(2)]
    with pytest.raises(BusyError, match="2 requests are waiting") as refused:
        ask(engine, request)
    assert refused.value.seconds >= 1
    jobs[1].cancel()
    _, last = ask(engine, request)
    finish(engine)
    assert last.finish() is not None


def test_a_cancelled_answer_leaves_at_the_next_step_and_the_others_stay(served: Served) -> None:
    requests = [replace(own, max_tokens=20) for own in requests_of(6, seed=4)]
    engine = make_engine(served, rows=6)
    asked = [ask(engine, own) for own in requests]
    for _ in range(3):
        engine.step()
    running = engine.running
    gone = [place for place in (0, 2, 3) if asked[place][1].finish() is None]
    before = [len(asked[place][1].events) for place in gone]
    for place in gone:
        asked[place][0].cancel()
    engine.step()
    assert engine.running <= running - len(gone)
    finish(engine)
    assert [len(asked[place][1].events) for place in gone] == before
    for place, (_, answer) in enumerate(asked):
        if place not in gone:
            assert answer.text() == shown(served, greedy_alone(served, requests[place]))


def test_choices_share_a_prompt_and_have_random_numbers_of_their_own(served: Served) -> None:
    request = Request((5, 6, 7), Mix((0.2, 0.3, 0.5)), 10, choices=4, sampling=Sampling(1.5), seed=3)
    engine = make_engine(served)
    answer = answers(engine, [request])[0]
    texts = [answer.text(choice) for choice in range(4)]
    assert len(set(texts)) == 4
    assert [answers(make_engine(served), [replace(request, choices=1)])[0].text()] == texts[:1]
    assert all(answer.finish(choice) for choice in range(4))
    other = answers(engine, [replace(request, seed=4)])[0]
    assert [other.text(choice) for choice in range(4)] != texts


def test_greedy_choices_are_equal(served: Served) -> None:
    answer = answers(make_engine(served), [Request((5, 6, 7), BASE, 6, choices=3)])[0]
    assert len({answer.text(choice) for choice in range(3)}) == 1


def test_answers_end_at_stop_strings_stop_tokens_and_lengths(served: Served) -> None:
    request = Request((5, 6, 7), Mix((0.2, 0.3, 0.5)), 12)
    whole = answers(make_engine(served), [request])[0]
    tokens = greedy_alone(served, request)
    assert (whole.finish(), len(whole.pieces())) == ("length", 12)
    words = whole.text().split()
    middle = " ".join(words[4:6])
    cut = answers(make_engine(served), [replace(request, stop=("never said", middle))])[0]
    assert (cut.finish(), cut.text()) == ("stop", whole.text()[: whole.text().index(middle)])
    ended = answers(make_engine(served), [replace(request, stop_ids=(tokens[3],))])[0]
    place = tokens.index(tokens[3])
    assert (ended.finish(), ended.text()) == ("stop", shown(served, tokens[:place]))


def test_log_probabilities_are_those_of_the_model(served: Served) -> None:
    mix = Mix((0.2, 0.3, 0.5))
    request = Request((5, 6, 7), mix, 5, sampling=Sampling(0.7), seed=1, top_logprobs=3)
    answer = answers(make_engine(served), [request])[0]
    tokens: list[int] = []
    for piece in answer.pieces():
        logs = served.alone([*request.prompt, *tokens], mix).log_softmax(-1)
        found = piece.logprobs[0]
        assert found.logprob == pytest.approx(float(logs[found.token]), abs=1e-4)
        assert [token for token, _ in found.top] == logs.topk(3).indices.tolist()
        tokens.append(found.token)


def test_stopping_tells_those_that_wait_and_lets_the_others_end(served: Served) -> None:
    engine = make_engine(served, rows=1)
    request = Request((5, 6, 7), Mix((0.2, 0.3, 0.5)), 4)
    (_, first), (_, second) = (ask(engine, request) for _ in range(2))
    engine.step()
    engine.stop()
    assert isinstance(second.problem(), StoppingError)
    with pytest.raises(StoppingError):
        ask(engine, request)
    while engine.running:
        engine.step()
    assert (first.finish(), first.problem()) == ("length", None)


@pytest.mark.parametrize("size", [1e20, 1e30])
def test_weights_that_overflow_are_told_and_hurt_nobody(served: Served, size: float) -> None:
    """Their rows share passes and, one after the other, a place in the cache with rows of sensible weights."""
    requests = requests_of(8, seed=7)
    engine = make_engine(served, rows=3)
    found = []
    for own in requests:
        found.append(ask(engine, own)[1])
        _, overflowing = ask(engine, replace(own, mix=Mix((size, 0.0, 0.0)), choices=2))
        finish(engine)
        problem = overflowing.problem()
        assert problem is not None
        assert "no finite numbers" in problem.message
    assert [own.text() for own in found] == [shown(served, greedy_alone(served, own)) for own in requests]


def test_a_model_whose_rows_cannot_be_told_apart_is_refused(served: Served) -> None:
    served.probe()
    mlp = served.model.model.get_submodule("model.layers.0.mlp")
    handle = mlp.register_forward_hook(lambda _module, _inputs, output: output - output.mean(0, keepdim=True))
    try:
        with pytest.raises(ModelError, match="rows of a batch get other logits"):
            served.probe()
    finally:
        handle.remove()


@pytest.mark.parametrize("kind", ["qwen3", "gemma2", "gpt2", "bloom", "mixtral"])
@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`")
def test_models_with_windows_alibi_and_other_positions(tmp_path: Path, kind: str) -> None:
    """Rows that end at one column look to every kind of attention like a batch padded on the left."""
    model = build(tmp_path, kind)
    adapters = {adapter.name: adapter for adapter in experts_of(tmp_path, kind)}
    served = Served(model, adapters, "factors", 64)
    served.probe()
    requests = requests_of(12, seed=6)
    with served.experts:
        engine = make_engine(served, rows=5)
        found = answers(engine, requests)
        assert [own.text() for own in found] == [shown(served, greedy_alone(served, own)) for own in requests]
