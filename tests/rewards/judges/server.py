"""An OpenAI-like server on this machine that can be told how to fail."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

KEY = "sk-a-key-of-this-test-4711"
MODEL = "judge-1"


def goodness(text: str) -> str:
    """Judge by how often an answer says good; of two by which says it more often."""
    answers = re.findall(r"<answer(?: [AB])? \w+>\n(.*?)\n</answer", text, re.DOTALL)
    counts = [answer.count("good") for answer in answers]
    if len(counts) == 1:
        return str(min(counts[0], 9))
    return "A" if counts[0] >= counts[1] else "B"


class Endpoint:
    """What was asked, and what the next requests get: a name of a fault, a text to say, or what ``says`` says."""

    def __init__(self) -> None:
        self.url = ""
        self.says: Callable[[str], str] = goodness
        self.next: deque[str] = deque()
        self.bodies: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.keys: set[str] = set()
        self.pause = 0.0
        self.busiest = 0
        self._now = 0

    @property
    def texts(self) -> list[str]:
        """The first messages of the requests so far."""
        return [body["messages"][0]["content"] for body in self.bodies]

    async def complete(self, request: Request) -> Response:
        self.times.append(time.monotonic())
        self.bodies.append(body := await request.json())
        self.keys.add(request.headers.get("authorization", ""))
        self._now += 1
        self.busiest = max(self.busiest, self._now)
        try:
            await asyncio.sleep(self.pause)
            return await self._answer(request, body)
        finally:
            self._now -= 1

    async def _answer(self, request: Request, body: dict[str, Any]) -> Response:
        fault = self.next.popleft() if self.next else ""
        if request.headers.get("authorization") != f"Bearer {KEY}":
            return _error(401, f"Incorrect API key provided: {request.headers.get('authorization')}")
        if body["model"] != MODEL:
            return _error(404, f"The model {body['model']} does not exist")
        if fault in FAULTS:
            return FAULTS[fault]()
        if fault == "slow":
            await asyncio.sleep(1.0)
        answer = fault.removeprefix("say:") if fault.startswith("say:") else self.says(body["messages"][0]["content"])
        return JSONResponse(_reply(answer))

    async def models(self, _: Request) -> Response:
        return JSONResponse(
            {"object": "list", "data": [{"id": MODEL, "object": "model", "created": 0, "owned_by": ""}]}
        )


def _reply(answer: str) -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": answer}}
    usage = {"prompt_tokens": 100, "completion_tokens": 2, "total_tokens": 102}
    return {"id": "1", "object": "chat.completion", "created": 0, "model": MODEL, "choices": [choice], "usage": usage}


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": {"message": message, "type": "error"}}, status, headers)


FAULTS: dict[str, Callable[[], Response]] = {
    "busy": lambda: _error(429, "slow down", {"Retry-After": "0.1"}),
    "broken": lambda: _error(500, "an engine fell off"),
    "never": lambda: _error(500, f"it fell off with {KEY}", {"x-should-retry": "false"}),
    "no such field": lambda: _error(400, "temperature is not supported"),
    "torn": lambda: Response(json.dumps(_reply("7"))[:40], media_type="application/json"),
    "page": lambda: HTMLResponse("<h1>Welcome</h1>"),
}
"""What a request may get in the place of an answer."""


@contextmanager
def serving() -> Iterator[Endpoint]:
    """Serve an endpoint within the block."""
    endpoint = Endpoint()
    routes = [
        Route("/v1/chat/completions", endpoint.complete, methods=["POST"]),
        Route("/v1/models", endpoint.models),
    ]
    with listening(Starlette(routes=routes)) as url:
        endpoint.url = url
        yield endpoint


@contextmanager
def listening(app: Any) -> Iterator[str]:
    """Let an application answer on a port of this machine within the block; yield the address of its API."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not (server.started and server.servers):
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"
    server.should_exit = server.force_exit = True
    thread.join()
