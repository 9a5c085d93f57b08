"""What a server tells Prometheus."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from rsoup.serving.engine import Engine

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """Counters of one server, and gauges of its engine."""

    def __init__(self, engine: Engine) -> None:
        self._registry = CollectorRegistry()
        own: dict[str, Any] = {"registry": self._registry}
        self.requests = Counter("rsoup_requests", "Requests answered", ["endpoint", "status"], **own)
        self.prompt_tokens = Counter("rsoup_prompt_tokens", "Tokens of prompts", **own)
        self.completion_tokens = Counter("rsoup_completion_tokens", "Tokens generated", **own)
        self.gone = Counter("rsoup_clients_gone", "Answers given up because the client went away", **own)
        first, whole = "From a request to its first token", "From a request to the end of its answer"
        self.first = Histogram("rsoup_first_token_seconds", first, buckets=SECONDS, **own)
        self.whole = Histogram("rsoup_request_seconds", whole, buckets=SECONDS, **own)
        self._gauge("answers_running", "Answers in the batch", lambda: engine.running)
        self._gauge("requests_waiting", "Requests in the queue", lambda: engine.waiting)
        self._gauge("cache_tokens", "Tokens that the cache holds memory for", lambda: engine.cells)
        self._gauge("cache_tokens_limit", "The most it may", lambda: engine.limits["cache_tokens"])
        self._gauge("settled_tokens", "Close calls that were computed again alone", lambda: engine.settled)

    def text(self) -> bytes:
        """Return what Prometheus reads."""
        return generate_latest(self._registry)

    def _gauge(self, name: str, about: str, read: Callable[[], float]) -> None:
        Gauge(f"rsoup_{name}", about, registry=self._registry).set_function(read)
