"""What vLLM asks for adapters that it does not know, and what keeps others out."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

from vllm.lora.request import LoRARequest
from vllm.lora.resolver import LoRAResolver

from rsoup.errors import RsoupError
from rsoup.models.rowwise import Method
from rsoup.serving.errors import RequestError
from rsoup.serving.opening import read_run
from rsoup.serving.soups import SoupFolders
from rsoup.serving.source import Source
from rsoup.serving.tradeoff import Tradeoffs

HIDDEN = ("/v1/load_lora_adapter", "/v1/unload_lora_adapter")
"""What vLLM opens beside resolvers: adapters from any path on its machine."""

log = logging.getLogger(__name__)


class SoupResolver(LoRAResolver):
    """Makes the mix of a name, rounded to the grid of ``SoupFolders``."""

    def __init__(self, tradeoffs: Tradeoffs, soups: SoupFolders) -> None:
        self._tradeoffs, self._soups = tradeoffs, soups

    async def resolve_lora(self, base_model_name: str, lora_name: str) -> LoRARequest | None:
        """Return the adapter of a mix, None if the name is none; the log says why."""
        del base_model_name
        try:
            path = await asyncio.to_thread(lambda: self._soups.path(self._tradeoffs.choose(lora_name).mix))
        except (RequestError, RsoupError) as problem:
            log.warning("%s", problem)
            return None
        return None if path is None else LoRARequest(lora_name, abs(hash(lora_name)) or 1, str(path))


def resolver_of(run: str, method: str | None, folder: Path, *, allow_different_starts: bool) -> SoupResolver:
    """Return what makes the mixes of a run in a folder; RsoupError if the run cannot be read."""
    known: dict[str | None, Method] = {"cat": "cat", "factors": "factors"}
    opened = read_run(Source(run, method=known.get(method), allow_different_starts=allow_different_starts))
    tradeoffs = Tradeoffs(tuple(opened.adapters), tuple(opened.rewards), opened.prefer, extrapolate=False)
    return SoupResolver(tradeoffs, SoupFolders(opened.adapters, opened.method, folder))


class Closed:
    """Middleware that hides what loads adapters by path: requests reach the run's mixes alone."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"].rstrip("/") in HIDDEN:
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        await self._app(scope, receive, send)
