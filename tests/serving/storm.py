"""Many requests at once, as people make them: of all lengths and weights, some broken, some given up half way."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import httpx2

BROKEN: list[tuple[int, dict[str, Any]]] = [
    (400, {"model": "soup:nobody=1", "prompt": "x"}),
    (400, {"model": "base"}),
    (400, {"model": "base", "prompt": "x", "max_tokens": -1}),
    (400, {"model": "base", "prompt": [5] * 100_000}),
    (400, {"model": "base", "prompt": "x", "max_tokns": 3}),
    (404, {"model": "gpt-5", "prompt": "x"}),
]
SHARES = {"whole": 0.4, "stream": 0.35, "broken": 0.1, "cut": 0.1, "left": 0.05}
"""What requests are: answered at once or in a stream, refused, cut in a stream, left while they wait."""


@dataclass
class Outcome:
    """What came of the requests: seconds of those that were answered, and whatever should not have happened."""

    seconds: list[float] = field(default_factory=list)
    kinds: dict[str, int] = field(default_factory=dict)
    busy: int = 0
    wrong: list[str] = field(default_factory=list)

    def quantile(self, share: float) -> float:
        """Return the seconds that a share of the answers took at most."""
        return sorted(self.seconds)[min(len(self.seconds) - 1, int(share * len(self.seconds)))]


async def storm(
    url: str, key: str, names: Sequence[str], *, count: int, at_once: int, longest: int = 60, seed: int = 0
) -> Outcome:
    """Send ``count`` requests, ``at_once`` at a time, to the server at ``url``; ``names`` are those of its adapters."""
    outcome, chance, places = Outcome(), random.Random(seed), asyncio.Semaphore(at_once)
    headers = {"Authorization": f"Bearer {key}"}
    limits = httpx2.Limits(max_connections=at_once)
    async with httpx2.AsyncClient(base_url=url, headers=headers, timeout=300, limits=limits) as client:

        async def one(kind: str, body: dict[str, Any], expected: int) -> None:
            async with places:
                outcome.kinds[kind] = outcome.kinds.get(kind, 0) + 1
                await _ask(client, kind, body, expected, outcome, chance)

        await asyncio.gather(*(one(*_draw(chance, names, longest)) for _ in range(count)))
    return outcome


def _draw(chance: random.Random, names: Sequence[str], longest: int) -> tuple[str, dict[str, Any], int]:
    """Return the kind of a request, its body, and the status it should get."""
    kind = chance.choices(list(SHARES), list(SHARES.values()))[0]
    if kind == "broken":
        status, body = chance.choice(BROKEN)
        return kind, body, status
    parts = [chance.expovariate(1.0) for _ in range(len(names) + 1)]
    weights = {name: part / sum(parts) for name, part in zip([*names, "base"], parts, strict=True)}
    body = {
        "model": "soup",
        "weights": weights,
        "prompt": [chance.randint(4, 40) for _ in range(chance.randint(1, longest // 2))],
        "max_tokens": chance.randint(1, longest),
        "temperature": chance.choice([0, 1]),
        "top_p": chance.choice([1, 0.9]),
        "n": chance.choice([1, 1, 1, 2]),
        "stream": kind in ("stream", "cut"),
    }
    return kind, body, 200


async def _ask(
    client: httpx2.AsyncClient, kind: str, body: dict[str, Any], expected: int, outcome: Outcome, chance: random.Random
) -> None:
    began = time.monotonic()
    if kind == "left":
        with suppress(TimeoutError):
            await asyncio.wait_for(client.post("/completions", json=body), chance.uniform(0.0, 0.05))
        return
    for _ in range(100):
        async with client.stream("POST", "/completions", json=body) as response:
            if response.status_code == 429:
                outcome.busy += 1
                await asyncio.sleep(min(1.0, float(response.headers["retry-after"])))
                continue
            text = ""
            async for part in response.aiter_text():
                text += part
                if kind == "cut" and response.status_code == 200:
                    return
        if response.status_code != expected or (expected == 200 and '"error"' in text):
            outcome.wrong.append(f"{response.status_code} {text[:200]}")
        elif expected == 200:
            outcome.seconds.append(time.monotonic() - began)
        return
    outcome.wrong.append("429 a hundred times")
