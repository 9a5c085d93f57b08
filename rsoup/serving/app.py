"""The HTTP of a server: OpenAI's API for text, health, metrics, and what the page asks.

A request reaches the generation and scoring of text alone: nothing in it names a path, a file or another adapter.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from rsoup.errors import RsoupError, first_line
from rsoup.report.schema import ReportPoint
from rsoup.serving.answers import Shape, error_body
from rsoup.serving.bodies import ChatBody, CompletionBody, ScoreBody, parse
from rsoup.serving.choosing import Sampling
from rsoup.serving.errors import BusyError, FailedError, RefusedError, RequestError
from rsoup.serving.jobs import Piece, Request
from rsoup.serving.metrics import Metrics
from rsoup.serving.opening import Opened
from rsoup.serving.prompts import Prompter, room_for
from rsoup.serving.scores import Scores
from rsoup.serving.tradeoff import Chosen, Tradeoffs
from rsoup.serving.wire import EventStream, GoneError, read_body, unless_gone
from rsoup.serving.worker import Answering, Worker
from rsoup.tasks import resolve_task

PAGE = Path(__file__).parent / "page" / "index.html"
POLICY = "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:"
"""What the page may load: itself."""
OPEN = ("/health", "/")
"""What needs no key."""

Endpoint = Callable[[HttpRequest], Awaitable[Response]]


@dataclass(frozen=True)
class Access:
    """Who may ask: anyone with the key, if there is one, under one of the host names, if they are given."""

    key: str | None = None
    hosts: tuple[str, ...] | None = None


class Api:
    """The endpoints of one server."""

    def __init__(
        self,
        opened: Opened,
        worker: Worker,
        tradeoffs: Tradeoffs,
        access: Access,
        *,
        max_tokens: int,
        say: Callable[[str], None],
    ) -> None:
        self._opened, self._worker, self._tradeoffs, self._access = opened, worker, tradeoffs, access
        self._max_tokens, self._say = max_tokens, say
        self._model = opened.served.model
        vocabulary = self._model.model.get_input_embeddings().weight.shape[0]
        self._prompter = Prompter(self._model.tokenizer, vocabulary)
        self._points = opened.points()
        self._scores = Scores(opened.recipe)
        self._metrics = Metrics(worker.engine)
        self._created = int(time.time())

    def app(self) -> Starlette:
        """Return the ASGI application."""
        routes = [
            ("/v1/chat/completions", "POST", self.chat),
            ("/v1/completions", "POST", self.complete),
            ("/v1/models", "GET", self.models),
            ("/v1/models/{name:path}", "GET", self.model),
            ("/rsoup/run", "GET", self.run),
            ("/rsoup/score", "POST", self.score),
            ("/metrics", "GET", self.metrics),
            ("/health", "GET", self.health),
            ("/", "GET", self.page),
        ]
        return Starlette(
            routes=[Route(path, self._guarded(path, endpoint), methods=[method]) for path, method, endpoint in routes],
            exception_handlers={HTTPException: _no_such_place},
        )

    async def chat(self, request: HttpRequest) -> Response:
        """Answer a conversation."""
        body = parse(await read_body(request), ChatBody)
        chosen = await self._choose(body)
        prompt = await run_in_threadpool(self._prompter.chat, body.messages, body.chat_template_kwargs or {})
        asked = self._request(body, chosen, prompt, "messages")
        return await self._answer(request, "chat", body, chosen, [asked])

    async def complete(self, request: HttpRequest) -> Response:
        """Continue texts."""
        body = parse(await read_body(request), CompletionBody)
        chosen = await self._choose(body)
        prompts = [await run_in_threadpool(self._prompter.text, prompt) for prompt in body.prompts]
        asked = [self._request(body, chosen, prompt, "prompt") for prompt in prompts]
        return await self._answer(request, "text", body, chosen, asked)

    async def models(self, _request: HttpRequest) -> Response:
        """List the base, the experts, and the soups on the front of the run's report."""
        front = [self._name(point) for point in self._points if point.on_front and point.kind == "soup"]
        names = dict.fromkeys([*self._tradeoffs.listed(), *front])
        return JSONResponse({"object": "list", "data": [self._card(name) for name in names]})

    async def model(self, request: HttpRequest) -> Response:
        """Show one model, which may be any mix."""
        chosen = await run_in_threadpool(self._tradeoffs.choose, request.path_params["name"])
        return JSONResponse(self._card(chosen.name))

    async def run(self, _request: HttpRequest) -> Response:
        """Tell what a page needs to know of the run."""
        opened, served = self._opened, self._opened.served
        task = resolve_task(opened.recipe.task) if opened.recipe is not None else None
        experts = [
            {"id": place, "name": name, "kind": kind, "rewards": rewards}
            for place, (name, kind, rewards) in enumerate(opened.experts())
        ]
        return JSONResponse(
            {
                "name": opened.name,
                "base": opened.base,
                "method": served.method,
                "experts": experts,
                "rewards": list(opened.rewards),
                "directions": {name: section.direction for name, section in opened.rewards.items()},
                "points": [self._point(point) for point in self._points],
                "unmeasured": opened.unmeasured or None,
                "chat": self._prompter.chats,
                "template": task.template if task is not None else None,
                "task_chat": task.chat if task is not None else False,
                "system": task.system if task is not None else None,
                "chat_template_kwargs": task.chat_template_kwargs if task is not None else None,
                "context": served.context,
                "max_tokens": self._max_tokens,
                "extrapolate": self._tradeoffs.extrapolate,
            }
        )

    async def score(self, request: HttpRequest) -> Response:
        """Score an answer by the run's rewards: null where one does not apply, and why others failed."""
        body = parse(await read_body(request), ScoreBody)
        return JSONResponse(asdict(await run_in_threadpool(self._scores.of, body.prompt, body.completion)))

    async def metrics(self, _request: HttpRequest) -> Response:
        """Tell Prometheus."""
        return Response(self._metrics.text(), media_type="text/plain; version=0.0.4")

    async def health(self, _request: HttpRequest) -> Response:
        """Tell whether requests are answered."""
        well = self._worker.alive and not self._worker.engine.stopping
        return JSONResponse({"status": "ok" if well else "stopping"}, 200 if well else 503)

    async def page(self, _request: HttpRequest) -> Response:
        """Show the page."""
        return FileResponse(PAGE, headers={"Content-Security-Policy": POLICY, "X-Frame-Options": "DENY"})

    def _name(self, point: ReportPoint) -> str:
        """Return the model's name of a measured point."""
        return self._tradeoffs.of(self._opened.with_base(point.weights), measured=True).name

    def _point(self, point: ReportPoint) -> dict[str, Any]:
        return {
            "id": point.id,
            "model": self._name(point),
            "kind": point.kind,
            "lambda": point.lam,
            "weights": self._opened.with_base(point.weights),
            "scores": {name: {"mean": own.mean, "stderr": own.stderr} for name, own in point.scores.items()},
            "on_front": point.on_front,
        }

    def _card(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self._created, "owned_by": "rsoup"}

    async def _choose(self, body: ChatBody | CompletionBody) -> Chosen:
        lora = None if body.lora is None else [(own.id, own.scale) for own in body.lora]
        return await run_in_threadpool(self._tradeoffs.choose, body.model, body.weights, lora)

    def _request(self, body: ChatBody | CompletionBody, chosen: Chosen, prompt: tuple[int, ...], param: str) -> Request:
        wanted = room_for(
            prompt,
            body.most_tokens,
            usual=self._max_tokens,
            context=self._opened.served.context,
            limit=self._worker.engine.limits["cache_tokens"],
            param=param,
        )
        return Request(
            prompt=prompt,
            mix=chosen.mix,
            max_tokens=wanted,
            choices=body.n or 1,
            sampling=Sampling(
                1.0 if body.temperature is None else body.temperature, 1.0 if body.top_p is None else body.top_p
            ),
            seed=secrets.randbits(63) if body.seed is None else body.seed,
            stop=tuple(body.stop or ()),
            stop_ids=tuple(body.stop_token_ids or ()),
            top_logprobs=body.top,
            continues=param == "prompt",
        )

    async def _answer(
        self, request: HttpRequest, kind: Any, body: ChatBody | CompletionBody, chosen: Chosen, asked: list[Request]
    ) -> Response:
        began = time.monotonic()
        answering = Answering(self._worker.engine, asked)
        tokens = sum(len(own.prompt) for own in asked)
        self._metrics.prompt_tokens.inc(tokens)
        usage = bool(body.stream_options and body.stream_options.include_usage)
        shape = Shape(kind, chosen.name, tokens, self._model.tokenizer, usage)
        pieces = self._measured(answering.pieces(), began)
        if body.stream:
            return EventStream(shape.events(pieces, answering.choices), answering, self._metrics.gone.inc)
        try:
            return JSONResponse(await unless_gone(request, shape.whole(pieces, answering.choices)))
        finally:
            answering.close()

    async def _measured(self, pieces: AsyncIterator[Piece], began: float) -> AsyncIterator[Piece]:
        first = True
        async for piece in pieces:
            if first:
                self._metrics.first.observe(time.monotonic() - began)
            first = False
            self._metrics.completion_tokens.inc(piece.tokens)
            yield piece
        self._metrics.whole.observe(time.monotonic() - began)

    def _guarded(self, path: str, endpoint: Endpoint) -> Endpoint:
        """Return an endpoint that checks who asks, turns errors into OpenAI's shape, and counts."""

        async def guarded(request: HttpRequest) -> Response:
            try:
                self._check_access(request, path)
                response = await endpoint(request)
            except RequestError as problem:
                headers = {"Retry-After": str(problem.seconds)} if isinstance(problem, BusyError) else None
                response = JSONResponse(error_body(problem), problem.status, headers)
            except GoneError:
                self._metrics.gone.inc()
                response = Response(status_code=499)
            except Exception as problem:
                self._say(f"error: {path}: {type(problem).__name__}: {first_line(problem)}")
                failed = FailedError(
                    f"{problem.message} {problem.hint}" if isinstance(problem, RsoupError) else "It failed."
                )
                response = JSONResponse(error_body(failed), failed.status)
            self._metrics.requests.labels(path, str(response.status_code)).inc()
            return response

        return guarded

    def _check_access(self, request: HttpRequest, path: str) -> None:
        if self._access.hosts is not None and request.url.hostname not in self._access.hosts:
            raise RefusedError(
                403, f"This server does not go by the name {request.url.hostname!r:.100}.", "Start it with --host."
            )
        if self._access.key is None or path in OPEN:
            return
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode("latin-1"), self._access.key.encode()):
            raise RefusedError(401, "The API key is missing or wrong.", "Send it as Authorization: Bearer KEY.")


async def _no_such_place(_request: HttpRequest, problem: Exception) -> Response:
    assert isinstance(problem, HTTPException)
    what = "There is nothing here." if problem.status_code == 404 else f"{problem.detail}."
    told = RequestError(what, "GET /v1/models lists the models.")
    return JSONResponse(error_body(told), problem.status_code, problem.headers)
