"""What is asked of the engine, what it delivers, and an answer on its way."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from rsoup.models.rowwise import Mix
from rsoup.models.sampling import generator_for
from rsoup.serving.choosing import GREEDY, Sampling
from rsoup.serving.errors import RequestError
from rsoup.serving.text import Detokenizer, StopStrings


@dataclass(frozen=True)
class Request:
    """A prompt and how it is to be answered, ``choices`` times.

    An answer ends with a stop token of the model or of ``stop_ids``, before a ``stop`` string, or after ``max_tokens``.
    ``top_logprobs`` asks for log-probabilities, with so many likeliest tokens beside each. ``continues`` says that the
    answer goes on with the text of the prompt.
    """

    prompt: tuple[int, ...]
    mix: Mix
    max_tokens: int
    choices: int = 1
    sampling: Sampling = GREEDY
    seed: int = 0
    stop: tuple[str, ...] = ()
    stop_ids: tuple[int, ...] = ()
    top_logprobs: int | None = None
    continues: bool = False

    @property
    def columns(self) -> int:
        """The tokens that a row may hold in the end; the last one is never read."""
        return len(self.prompt) + self.max_tokens - 1


@dataclass(frozen=True)
class TokenLogprob:
    """A token, its log-probability, and the likeliest tokens with theirs."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Piece:
    """What a choice gained: text, tokens, and at its end the reason (stop, length)."""

    choice: int
    text: str
    tokens: int
    logprobs: tuple[TokenLogprob, ...] = ()
    finish: str | None = None


Event = Piece | RequestError


@dataclass(eq=False)
class Job:
    """A request on its way; ``deliver`` is called with what happens, from the thread of the engine."""

    request: Request
    deliver: Callable[[Event], None]
    cancelled: bool = False
    asked: float = field(default_factory=time.monotonic)
    left: int = 0

    def cancel(self) -> None:
        """Give the request up; its place is free with the next step."""
        self.cancelled = True


class Row:
    """One choice of a job: its tokens, its random numbers, its text."""

    def __init__(self, job: Job, choice: int, tokenizer: object, device: torch.device) -> None:
        request = job.request
        self.job, self.choice = job, choice
        self.tokens: list[int] = []
        self.finish: str | None = None
        self.random: torch.Generator | None = None
        if request.sampling.temperature:
            seed = generator_for(request.seed, "serving", choice).initial_seed()
            self.random = torch.Generator(device).manual_seed(seed)
        self._text = Detokenizer(tokenizer, request.prompt if request.continues else ())
        self._stops = StopStrings(request.stop)

    @property
    def length(self) -> int:
        """The tokens in the cache: all but the last one."""
        return len(self.job.request.prompt) + len(self.tokens) - 1

    def take(self, token: int, stop_ids: frozenset[int]) -> str:
        """Append a token; return the text to show, and note whether the answer ends."""
        self.tokens.append(token)
        if token in stop_ids or token in self.job.request.stop_ids:
            self.finish = "stop"
            return self._last("")
        text = self._stops.add(self._text.add(token))
        if self._stops.found:
            self.finish = "stop"
        elif len(self.tokens) == self.job.request.max_tokens:
            self.finish = "length"
            return self._last(text)
        return text

    def fail(self, problem: RequestError) -> None:
        """End the whole job with a problem."""
        self.finish = "failed"
        if not self.job.cancelled:
            self.job.cancel()
            self.job.deliver(problem)

    def _last(self, text: str) -> str:
        """Return a text with what was held back after it."""
        text += self._stops.add(self._text.rest())
        if self._stops.found:
            self.finish = "stop"
            return text
        return text + self._stops.rest()
