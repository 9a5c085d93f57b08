"""What goes over the wire: bodies in, event streams out, and clients that leave in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from rsoup.serving.errors import RequestError
from rsoup.serving.worker import Answering

LARGEST_BODY = 4 << 20

Result = TypeVar("Result")


class GoneError(Exception):
    """The client has gone away."""


class EventStream(StreamingResponse):
    """Server-sent events; when the client goes away, or all is said, the places of the answer are free."""

    def __init__(self, events: AsyncIterator[bytes], answering: Answering, on_gone: Callable[[], None]) -> None:
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(self._told(events), media_type="text/event-stream", headers=headers)
        self._answering, self._on_gone, self._ended = answering, on_gone, False

    async def _told(self, events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for event in events:
            yield event
        self._ended = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._answering.close()
            if not self._ended:
                self._on_gone()


async def read_body(request: Request) -> bytes:
    """Return the body of a request; RequestError if it is too large or not JSON by its type, GoneError if it stops."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise RequestError(
            f"The Content-Type is {kind or 'missing'}.",
            "Send Content-Type: application/json.",
            code="unsupported_media_type",
        )
    body = bytearray()
    try:
        async for part in request.stream():
            body += part
            if len(body) > LARGEST_BODY:
                raise RequestError(f"The body has more than {LARGEST_BODY >> 20} MiB.", "Send less.", code="too_large")
    except ClientDisconnect as problem:
        raise GoneError from problem
    return bytes(body)


async def unless_gone(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Return what some work makes; GoneError if the client goes away before."""
    working, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise GoneError
        return working.result()
    finally:
        for task in (working, gone):
            task.cancel()
        await asyncio.gather(working, gone, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
