"""A batch that requests join and leave at any token, each with its own weights over the experts.

``step`` is the whole engine: drop what was given up, encode the next prompts that fit, then one token for every row.
Nothing here knows threads but the lock of the queue, and nothing knows HTTP.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rsoup.errors import first_line
from rsoup.models.encoding import PASS
from rsoup.models.rowwise import RowWeights
from rsoup.serving.cache import RowsCache
from rsoup.serving.choosing import Pick, drawn, likeliest, noise_of, settled
from rsoup.serving.errors import BusyError, FailedError, RequestError, StoppingError
from rsoup.serving.jobs import Job, Piece, Row, TokenLogprob
from rsoup.serving.served import Served


class Engine:
    """Answers requests with one model. ``submit`` may be called from any thread, ``step`` from one."""

    def __init__(
        self,
        served: Served,
        *,
        rows: int,
        cache_tokens: int,
        queue: int,
        on_problem: Callable[[Exception], None],
    ) -> None:
        self.served, self._on_problem = served, on_problem
        self._stop_ids = frozenset(served.model.stop_ids)
        self.limits = {"rows": rows, "cache_tokens": cache_tokens, "queue": queue}
        self.settled = 0  # tokens that were computed again by themselves
        self._waiting: deque[Job] = deque()
        self._lock = threading.Condition()
        self._stopping = self._at_once = False
        self._rows: list[Row] = []
        self._cache = RowsCache(cache_tokens)
        self._weights: RowWeights | None = None
        self._pace = 1.0  # seconds that an answer takes, about

    @property
    def running(self) -> int:
        """Answers on their way."""
        return len(self._rows)

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._waiting)

    @property
    def cells(self) -> int:
        """Tokens that the cache holds memory for."""
        return self._cache.cells

    def submit(self, job: Job) -> None:
        """Queue a request; RequestError if the queue is full, the engine stops, or it can never fit."""
        request = job.request
        if request.choices > self.limits["rows"] or request.choices * request.columns > self.limits["cache_tokens"]:
            raise RequestError(
                f"{request.choices} x {request.columns} tokens are more than this server holds "
                f"({self.limits['cache_tokens']} tokens, {self.limits['rows']} answers at once).",
                "Ask for fewer tokens or choices.",
                code="context_length_exceeded",
            )
        with self._lock:
            if self._stopping:
                raise StoppingError
            self._forget_cancelled()
            if len(self._waiting) >= self.limits["queue"]:
                seconds = self._pace * (1 + len(self._waiting) / self.limits["rows"])
                raise BusyError(f"{len(self._waiting)} requests are waiting.", min(60, math.ceil(seconds)))
            job.left = request.choices
            self._waiting.append(job)
            self._lock.notify()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until there is something to do; tell whether there is."""
        with self._lock:
            return self._lock.wait_for(lambda: bool(self._waiting or self._rows or self._stopping), seconds)

    def stop(self, *, at_once: bool = False) -> None:
        """Take no more requests, and tell those that wait; those that run go on, unless it is to be ``at_once``."""
        with self._lock:
            self._stopping, self._at_once = True, at_once
            waiting = list(self._waiting)
            self._waiting.clear()
            self._lock.notify_all()
        for job in waiting:
            job.deliver(StoppingError())

    @property
    def stopping(self) -> bool:
        """Whether no more requests are taken."""
        return self._stopping

    def abandon(self, problem: RequestError) -> None:
        """End every answer on its way with a problem."""
        rows, self._rows, self._weights = self._rows, [], None
        self._cache = RowsCache(self.limits["cache_tokens"])
        for job in dict.fromkeys(row.job for row in rows):
            job.deliver(problem)

    @torch.no_grad()
    def step(self) -> None:
        """Do the next piece of work."""
        if self._at_once:
            self.abandon(StoppingError())
        self._leave([place for place, row in enumerate(self._rows) if row.job.cancelled])
        if jobs := self._next():
            self._admit(jobs)
        if self._rows:
            self._advance()

    def _next(self) -> list[Job]:
        """Take the requests from the head of the queue that fit into the batch and into one pass."""
        jobs: list[Job] = []
        rows, columns, longest = len(self._rows), self._columns(), 0
        with self._lock:
            self._forget_cancelled()
            while self._waiting:
                own = self._waiting[0].request
                rows, columns = rows + own.choices, max(columns, own.columns)
                longest = max(longest, len(own.prompt))
                if rows > self.limits["rows"] or not self._cache.fits(rows, columns):
                    break
                if jobs and longest * (len(jobs) + 1) > PASS:
                    break
                jobs.append(self._waiting.popleft())
        return jobs

    def _forget_cancelled(self) -> None:
        for job in [job for job in self._waiting if job.cancelled]:
            self._waiting.remove(job)

    def _columns(self) -> int:
        return max((row.job.request.columns for row in self._rows), default=0)

    def _admit(self, jobs: Sequence[Job]) -> None:
        """Encode prompts, choose the first token of each answer, and let those that go on join the batch."""
        requests, model = [job.request for job in jobs], self.served.model
        try:
            cache, logits = self.served.encode([own.prompt for own in requests], [own.mix for own in requests])
            rows = [
                Row(job, choice, model.tokenizer, model.device) for job in jobs for choice in range(job.request.choices)
            ]
            sources = torch.tensor([place for place, own in enumerate(requests) for _ in range(own.choices)])
            self._choose(rows, logits[sources.to(logits.device)])
        except Exception as problem:  # the answers that are on their way are not touched
            self._on_problem(problem)
            for job in jobs:
                job.deliver(FailedError(f"The prompt could not be encoded: {first_line(problem)}."))
            return
        staying = [place for place, row in enumerate(rows) if row.finish is None]
        if staying:
            joining = [rows[place] for place in staying]
            self._rows += joining
            longest = max(row.length for row in joining)
            self._cache.join(cache, sources[staying].to(model.device), longest, self._columns())
            self._weights = None

    def _advance(self) -> None:
        """Compute and choose the next token of every row, and let those go that end."""
        if self._weights is None:
            self._weights = RowWeights.of([row.job.request.mix for row in self._rows], self.served.model.device)
        tokens, lengths = [row.tokens[-1] for row in self._rows], [row.length for row in self._rows]
        logits = self.served.advance(tokens, lengths, self._weights, self._cache)
        self._choose(self._rows, logits)
        self._leave([place for place, row in enumerate(self._rows) if row.finish is not None])

    def _leave(self, gone: Sequence[int]) -> None:
        if not gone:
            return
        left = set(gone)
        width = max((row.length for place, row in enumerate(self._rows) if place not in left), default=0)
        if not width:
            self._rows, self._cache = [], RowsCache(self.limits["cache_tokens"])
        else:
            self._rows = [self._rows[place] for place in self._cache.leave(gone, width)]
        self._weights = None

    def _choose(self, rows: Sequence[Row], logits: Tensor) -> None:
        """Append a token to each row, and tell what it gained. (R, V)."""
        for place, (row, pick) in enumerate(zip(rows, likeliest(logits), strict=True)):
            if pick.broken:
                row.fail(RequestError("With these weights the model computes no finite numbers.", "Give smaller ones."))
                continue
            token = self._pick(row, logits[place], pick)
            text = row.take(token, self._stop_ids)
            wanted = row.job.request.top_logprobs
            logprobs = () if wanted is None else (_logprob(logits[place], token, wanted),)
            if row.finish is not None:
                row.job.left -= 1
                if not row.job.left:
                    self._pace += 0.1 * (time.monotonic() - row.job.asked - self._pace)
            row.job.deliver(Piece(row.choice, text, 1, logprobs, row.finish))

    def _pick(self, row: Row, logits: Tensor, pick: Pick) -> int:
        """Return the next token of a row: the same in any batch, if the weights are in float32."""
        request, noise = row.job.request, None
        if row.random is not None:
            noise = noise_of(row.random, logits.shape[-1], logits.device)
            pick = drawn(logits, request.sampling, noise)
        if not (pick.doubtful and self.served.settles):
            return pick.token
        self.settled += 1
        exact = self.served.alone([*request.prompt, *row.tokens], request.mix)
        return settled(exact, request.sampling, noise)


def _logprob(logits: Tensor, token: int, count: int) -> TokenLogprob:
    """Return a token's log-probability and the likeliest ``count`` tokens, of the model itself: without temperature."""
    logs = logits.float().log_softmax(-1)
    top = logs.topk(min(count, len(logs))) if count else None
    pairs = tuple(zip(top.indices.tolist(), top.values.tolist(), strict=True)) if top is not None else ()
    return TokenLogprob(token, float(logs[token]), pairs)
