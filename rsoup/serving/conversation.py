"""A conversation with a run, whose weights may change from turn to turn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rsoup.serving.bodies import Message
from rsoup.serving.choosing import Sampling
from rsoup.serving.engine import Engine
from rsoup.serving.errors import RequestError
from rsoup.serving.jobs import Event, Job, Piece, Request
from rsoup.serving.opening import Opened
from rsoup.serving.prompts import Prompter, room_for
from rsoup.serving.scores import Scored, Scores
from rsoup.serving.tradeoff import EXPERT, PREFER, SOUP, Tradeoffs, read_pairs

STEPS = 10
"""From one end of the line between two experts to the other."""


@dataclass(frozen=True)
class Manner:
    """How answers are made: with one seed, the same question and weights get the same answer."""

    max_tokens: int = 512
    temperature: float = 0.0
    seed: int = 0


class Conversation:
    """Turns with one run; ``line`` names the two experts that weights move between, if there are just two."""

    def __init__(self, opened: Opened, engine: Engine, tradeoffs: Tradeoffs, manner: Manner) -> None:
        self._opened, self._engine, self._tradeoffs, self._manner = opened, engine, tradeoffs, manner
        model = opened.served.model
        self._prompter = Prompter(model.tokenizer, model.model.get_input_embeddings().weight.shape[0])
        self._scores = Scores(opened.recipe)
        self._messages: list[Message] = []
        self._system: str | None = None
        self._job: Job | None = None
        experts = [name for name, kind, _ in opened.experts() if kind == "expert"]
        self.line = (experts[0], experts[1]) if len(experts) == 2 else None
        share = 1 / max(1, len(experts))
        self.chosen = tradeoffs.of(dict.fromkeys(experts, share) or {"base": 1.0})
        if not self._prompter.chats:
            hint = "rsoup serve takes prompts as they are, at /v1/completions."
            raise RequestError("This model has no chat template.", hint, code="no_chat_template")

    @property
    def position(self) -> float | None:
        """Where on the line the weights are: 0 is the first expert; None beside it."""
        weights = dict(zip(self._tradeoffs.names, self.chosen.mix.weights, strict=True))
        others = [weight for name, weight in weights.items() if self.line is None or name not in self.line]
        if self.line is None or any(others) or self.chosen.mix.base_weight:
            return None
        return weights[self.line[1]]

    def weigh(self, text: str) -> None:
        """Take other weights: a model's name, or NAME=WEIGHT,...; on the line the other expert takes the rest."""
        if text.partition(":")[0] in (SOUP, EXPERT, PREFER) or "=" not in text:
            self.chosen = self._tradeoffs.choose(text)
            return
        weights = read_pairs(text)
        if self.line is not None and len(weights) == 1 and (name := next(iter(weights))) in self.line:
            other = self.line[1 - self.line.index(name)]
            weights = {name: weights[name], other: 1 - weights[name]}
        self.chosen = self._tradeoffs.of(weights)

    def move(self, steps: int) -> None:
        """Move along the line, as far as it goes; from beside it, to its middle."""
        if self.line is None:
            return
        here = STEPS // 2 if self.position is None else round(self.position * STEPS) + steps
        there = min(STEPS, max(0, here)) / STEPS
        self.chosen = self._tradeoffs.of({self.line[0]: 1 - there, self.line[1]: there})

    def instruct(self, text: str) -> None:
        """Begin anew with a system message, or with none."""
        self._system = text or None
        self.renew()

    def renew(self) -> None:
        """Begin anew."""
        self._messages = []

    def ask(self, text: str) -> Iterator[str]:
        """Say something; yield the answer piece by piece. RequestError, and nothing said, if that cannot be."""
        yield from self._answered([*self._messages, Message(role="user", content=text)])

    def again(self) -> Iterator[str]:
        """Answer the last question again, with the weights of now."""
        if not self._messages:
            raise RequestError("There is no question to answer again.", "Ask one.")
        yield from self._answered(self._messages[:-1])

    def stop(self) -> None:
        """End the answer that is being given where it is."""
        if self._job is not None:
            self._job.cancel()

    def scores(self) -> Scored:
        """Return what the run's rewards make of the last answer; none without rewards."""
        if not self._opened.rewards or not self._messages:
            return Scored({})
        return self._scores.of(self._messages[-2].content, self._messages[-1].content)

    def _answered(self, turns: list[Message]) -> Iterator[str]:
        system = [] if self._system is None else [Message(role="system", content=self._system)]
        prompt = self._prompter.chat([*system, *turns], {})
        events: list[Event] = []
        self._job = Job(self._request(prompt), events.append)
        self._engine.submit(self._job)
        told, ended = "", False
        with self._opened.served.experts:
            while not ended and not self._job.cancelled:
                self._engine.step()
                for event in events:
                    if isinstance(event, RequestError):
                        raise event
                    assert isinstance(event, Piece)
                    told += event.text
                    ended = ended or event.finish is not None
                    yield event.text
                events.clear()
            self._engine.step()  # lets an answer go that was stopped
        self._messages = [*turns, Message(role="assistant", content=told)]

    def _request(self, prompt: tuple[int, ...]) -> Request:
        manner, context = self._manner, self._opened.served.context
        limit = self._engine.limits["cache_tokens"]
        count = room_for(prompt, None, usual=manner.max_tokens, context=context, limit=limit, param="messages")
        return Request(prompt, self.chosen.mix, count, sampling=Sampling(manner.temperature), seed=manner.seed)
