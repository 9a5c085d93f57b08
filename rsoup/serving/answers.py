"""Answers in the shapes of OpenAI's API."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from rsoup.serving.errors import RequestError
from rsoup.serving.jobs import Piece, TokenLogprob
from rsoup.serving.text import BROKEN

Kind = Literal["chat", "text"]
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class Shape:
    """What all parts of one answer share: its id, its time, the model's name."""

    kind: Kind
    model: str
    prompt_tokens: int
    tokenizer: Any
    usage_in_stream: bool = False
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))

    async def whole(self, pieces: AsyncIterator[Piece], choices: int) -> dict[str, Any]:
        """Return the answer in one object."""
        texts, finishes, tokens = [""] * choices, [""] * choices, 0
        logprobs: list[list[TokenLogprob]] = [[] for _ in range(choices)]
        offsets: list[list[int]] = [[] for _ in range(choices)]
        async for piece in pieces:
            offsets[piece.choice] += [len(texts[piece.choice])] * len(piece.logprobs)
            texts[piece.choice] += piece.text
            finishes[piece.choice] = piece.finish or ""
            logprobs[piece.choice] += piece.logprobs
            tokens += piece.tokens
        told = []
        for index, (text, finish, own) in enumerate(zip(texts, finishes, logprobs, strict=True)):
            content = {"message": {"role": "assistant", "content": text}} if self.kind == "chat" else {"text": text}
            scored = self._logprobs(own, offsets[index])
            told.append({"index": index, **content, "logprobs": scored, "finish_reason": finish})
        return {**self._head(stream=False), "choices": told, "usage": self._usage(tokens)}

    async def events(self, pieces: AsyncIterator[Piece], choices: int) -> AsyncIterator[bytes]:
        """Yield the answer as server-sent events; one that fails on the way ends with the error."""
        if self.kind == "chat":
            for index in range(choices):
                yield self._event(index, {"role": "assistant", "content": ""}, None, None)
        tokens, shown = 0, [0] * choices
        try:
            async for piece in pieces:
                tokens += piece.tokens
                if piece.text or piece.logprobs or piece.finish:
                    logprobs = self._logprobs(piece.logprobs, [shown[piece.choice]] * len(piece.logprobs))
                    delta = {"content": piece.text} if piece.text or piece.logprobs else {}
                    yield self._event(piece.choice, delta, logprobs, piece.finish)
                shown[piece.choice] += len(piece.text)
        except RequestError as problem:
            yield _data(error_body(problem))
        else:
            if self.usage_in_stream:
                yield _data({**self._head(stream=True), "choices": [], "usage": self._usage(tokens)})
        yield DONE

    def _event(self, index: int, delta: dict[str, Any], logprobs: Any, finish: str | None) -> bytes:
        content = {"delta": delta} if self.kind == "chat" else {"text": delta.get("content", "")}
        choice = {"index": index, **content, "logprobs": logprobs, "finish_reason": finish}
        usage = {"usage": None} if self.usage_in_stream else {}
        return _data({**self._head(stream=True), "choices": [choice], **usage})

    def _head(self, *, stream: bool) -> dict[str, Any]:
        chat = "chat.completion.chunk" if stream else "chat.completion"
        prefix, kind = ("chatcmpl", chat) if self.kind == "chat" else ("cmpl", "text_completion")
        return {"id": f"{prefix}-{self.id}", "object": kind, "created": self.created, "model": self.model}

    def _usage(self, tokens: int) -> dict[str, int]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": tokens,
            "total_tokens": self.prompt_tokens + tokens,
        }

    def _logprobs(self, own: Sequence[TokenLogprob], offsets: Sequence[int]) -> dict[str, Any] | None:
        """Return the log-probabilities of tokens; the offsets are how much text was shown before each."""
        if not own:
            return None
        if self.kind == "chat":
            return {
                "content": [
                    {
                        **self._token(one.token, one.logprob),
                        "top_logprobs": [self._token(token, logprob) for token, logprob in one.top],
                    }
                    for one in own
                ]
            }
        return {
            "tokens": [self._text(one.token) for one in own],
            "token_logprobs": [one.logprob for one in own],
            "top_logprobs": [{self._text(token): logprob for token, logprob in one.top} for one in own],
            "text_offset": list(offsets),
        }

    def _token(self, token: int, logprob: float) -> dict[str, Any]:
        text = self._text(token)
        part = None if BROKEN in text else list(text.encode())
        return {"token": text, "logprob": logprob, "bytes": part}

    def _text(self, token: int) -> str:
        text: str = self.tokenizer.decode([token])
        return text


def error_body(problem: RequestError) -> dict[str, Any]:
    """Return an error as OpenAI's API shows it."""
    message = f"{problem.message} {problem.hint}".strip()
    return {"error": {"message": message, "type": problem.kind, "param": problem.param, "code": problem.code}}


def _data(content: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(content, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()
