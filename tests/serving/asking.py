"""Ask an engine without threads, and answer the same questions the slow way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from rsoup import mixing
from rsoup.evaluation.applying import Change, applied
from rsoup.evaluation.decoding import Chooser
from rsoup.models.rowwise import Mix
from rsoup.models.sampling import sample
from rsoup.serving.engine import Engine
from rsoup.serving.errors import RequestError
from rsoup.serving.jobs import Event, Job, Piece, Request
from rsoup.serving.served import Served


@dataclass
class Answer:
    """What was delivered for one request."""

    events: list[Event] = field(default_factory=list)

    def pieces(self, choice: int = 0) -> list[Piece]:
        return [event for event in self.events if isinstance(event, Piece) and event.choice == choice]

    def text(self, choice: int = 0) -> str:
        return "".join(piece.text for piece in self.pieces(choice))

    def finish(self, choice: int = 0) -> str | None:
        pieces = self.pieces(choice)
        return pieces[-1].finish if pieces else None

    def problem(self) -> RequestError | None:
        return next((event for event in self.events if isinstance(event, RequestError)), None)


def make_engine(served: Served, **limits: int) -> Engine:
    def fail(problem: Exception) -> None:
        raise problem

    return Engine(served, **{"rows": 64, "cache_tokens": 8192, "queue": 1000, **limits}, on_problem=fail)


def ask(engine: Engine, request: Request) -> tuple[Job, Answer]:
    answer = Answer()
    job = Job(request, answer.events.append)
    engine.submit(job)
    return job, answer


def finish(engine: Engine) -> int:
    """Work until nothing is left; return the number of steps."""
    steps = 0
    while engine.wait(0):
        engine.step()
        steps += 1
    return steps


def answers(engine: Engine, requests: Sequence[Request]) -> list[Answer]:
    found = [ask(engine, request)[1] for request in requests]
    finish(engine)
    return found


def materialised(served: Served, mix: Mix) -> Change:
    """Return the change to a mix that ``rsoup mix`` makes, folded in as an evaluation does."""
    used = {name: weight for name, weight in zip(served.adapters, mix.weights, strict=True) if weight}
    if not used:
        return Change()
    soup = mixing.mix(
        [served.adapters[name] for name in used],
        list(used.values()),
        method=served.method,
        base_weight=mix.base_weight,
        allow_extrapolation=True,
        allow_different_starts=True,
    )
    return applied(served.model, soup.adapter)


def greedy_alone(served: Served, request: Request) -> list[int]:
    """Return the tokens that an evaluation of the materialised mix finds for the prompt, alone."""
    model = served.model
    ids, mask = model.pad([request.prompt])
    with materialised(served, request.mix):
        done = sample(
            model,
            ids,
            mask,
            max_new_tokens=request.max_tokens,
            temperature=0.0,
            stop_ids=model.stop_ids,
            choose=Chooser(model, [request.prompt], 0.0, []),
        )
    return done.ids[0, 0][done.mask[0, 0]].tolist()


def random_mixes(count: int, experts: int = 3, seed: int = 0) -> list[Mix]:
    """Return random weights on the simplex, the corners and the base first."""
    rng = np.random.default_rng(seed)
    corners = [Mix(tuple(float(row == own) for own in range(experts))) for row in range(experts)]
    drawn = [rng.dirichlet(np.ones(experts + 1)) for _ in range(count)]
    inner = [Mix(tuple(map(float, row[:-1])), float(row[-1])) for row in drawn]
    return [*corners, Mix((0.0,) * experts, 1.0), *inner][:count]


def random_prompts(count: int, seed: int = 0, longest: int = 12) -> list[tuple[int, ...]]:
    rng = np.random.default_rng(seed)
    return [tuple(rng.integers(4, 40, size=rng.integers(1, longest)).tolist()) for _ in range(count)]
