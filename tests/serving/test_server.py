"""A real server process, asked by OpenAI's own client."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from forking import Forked, command
from rsoup.models.language_model import LanguageModel
from rsoup.models.rowwise import Mix
from rsoup.serving.jobs import Request
from rsoup.serving.served import Served
from serving.asking import greedy_alone, random_mixes, random_prompts
from serving.conftest import NAMES
from serving.storm import storm

KEY = "a key of this test"
ROWS = 8


@dataclass
class Running:
    """A server, its address, and the way to ask it."""

    process: Forked
    url: str

    @property
    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.url, api_key=KEY, max_retries=0, timeout=60)

    def metric(self, name: str) -> float:
        text = httpx2.get(f"{self.url[:-3]}/metrics", headers={"Authorization": f"Bearer {KEY}"}).text
        found = re.search(rf"^rsoup_{name} (\S+)$", text, re.MULTILINE)
        assert found
        return float(found[1])

    def idle(self) -> bool:
        """Wait until no place is taken; tell whether that comes."""
        deadline = time.monotonic() + 20
        while self.metric("answers_running") or self.metric("requests_waiting") or self.metric("cache_tokens"):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True


@pytest.fixture(scope="module")
def server(chat_model: Path, expert_folders: dict[str, Path]) -> Iterator[Running]:
    adapters = [f"{name}={path}" for name, path in expert_folders.items()]
    words = [
        *("serve", "--model", chat_model, "--adapters", *adapters),
        *("--allow-different-starts", "--port", "0", "--batch", ROWS, "--cache-tokens", "2048", "--grace", "20"),
        *("--api-key-env", "RSOUP_TEST_KEY"),
    ]
    with command(*words, environment={"RSOUP_TEST_KEY": KEY}) as process:
        process.wait_for(lambda own: own.out.endswith("\n"))
        assert process.out.startswith("http://127.0.0.1:"), process.err
        yield Running(process, process.out.strip())


@pytest.fixture
def served_alike(chat_model: Path, base_model: LanguageModel, adapters: Any) -> Served:
    """The same model (the tiny one is made from the same seed) and adapters in this process."""
    return Served(base_model, adapters, "factors", 128)


def named(mix: Mix) -> str:
    weights = {**dict(zip(NAMES, mix.weights, strict=True)), "base": mix.base_weight}
    return "soup:" + ",".join(f"{name}={weight!r}" for name, weight in weights.items())


def test_64_requests_at_once_with_64_weights_are_64_materialised_mixes(server: Running, served_alike: Served) -> None:
    """Every greedy answer in float32 equals that of its mix alone, whatever shares its passes."""
    mixes, prompts = random_mixes(64, seed=5), random_prompts(64, seed=5)

    async def ask() -> list[str]:
        async with openai.AsyncOpenAI(base_url=server.url, api_key=KEY, max_retries=0, timeout=120) as client:

            async def one(row: int) -> str:
                answer = await client.completions.create(
                    model=named(mixes[row]), prompt=list(prompts[row]), max_tokens=4 + row % 9, temperature=0
                )
                return answer.choices[0].text

            return await asyncio.gather(*(one(row) for row in range(64)))

    found = asyncio.run(ask())
    for row, text in enumerate(found):
        tokens = greedy_alone(served_alike, Request(prompts[row], mixes[row], 4 + row % 9))
        assert text.strip() == served_alike.model.tokenizer.decode(tokens, skip_special_tokens=True)
    assert len(set(found)) > 30
    assert server.idle()


def test_the_client_chats_whole_and_in_a_stream(server: Running) -> None:
    asked: dict[str, Any] = {
        "model": "soup",
        "messages": [{"role": "user", "content": "the kettle lid"}],
        "temperature": 0,
        "max_tokens": 6,
        "extra_body": {"weights": {"positive": 0.25, "calm": 0.75}},
    }
    whole = server.client.chat.completions.create(**asked, logprobs=True, top_logprobs=2)
    assert whole.model == "soup:positive=0.25,calm=0.75"
    assert whole.usage is not None
    assert whole.choices[0].logprobs is not None
    assert len(whole.choices[0].logprobs.content or []) == whole.usage.completion_tokens
    stream = server.client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage
    scaled = {**asked, "extra_body": {"lora": [{"id": 0, "scale": 0.25}, {"id": 2, "scale": 0.75}]}}
    assert server.client.chat.completions.create(**scaled).choices[0].message == whole.choices[0].message


def test_the_client_raises_what_openai_would(server: Running) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        server.client.completions.create(model="gpt-5", prompt="x")
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="not to 1") as bad:
        server.client.completions.create(model="soup:calm=0.5", prompt="x")
    assert (bad.value.param, bad.value.code) == ("model", "bad_weights")
    with pytest.raises(openai.AuthenticationError):
        server.client.with_options(api_key="another").models.list()
    assert "expert:calm" in [model.id for model in server.client.models.list()]


def test_clients_that_go_away_free_their_places(server: Running) -> None:
    """Streams that are closed, requests that time out, and connections that are cut while they wait in the queue."""
    gone = server.metric("clients_gone_total")
    body = {"model": "base", "prompt": "the", "max_tokens": 120, "n": ROWS, "stream": True}
    stream = server.client.completions.create(**body, extra_body={"stop_token_ids": []})
    next(iter(stream))
    waiting = []
    for _ in range(3):  # behind the stream, since it has all the rows
        text = json.dumps({**body, "stream": False})
        connection = socket.create_connection(("127.0.0.1", int(server.url.split(":")[2][:-3])))
        head = "POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        head += f"Authorization: Bearer {KEY}\r\nContent-Length: {len(text)}\r\n\r\n"
        connection.sendall((head + text).encode())
        waiting.append(connection)
    with pytest.raises(openai.APITimeoutError):
        server.client.with_options(timeout=0.1).completions.create(**{**body, "stream": False})
    for connection in waiting:
        connection.close()
    stream.close()
    assert server.idle()
    deadline = time.monotonic() + 10
    while server.metric("clients_gone_total") < gone + 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert server.metric("clients_gone_total") >= gone + 3
    assert server.client.completions.create(model="base", prompt="the", max_tokens=1).choices


def test_a_storm_leaves_no_place_taken(server: Running) -> None:
    """Random weights and lengths, broken bodies, cut streams, requests given up (more in tests/benchmarks)."""
    outcome = asyncio.run(storm(server.url, KEY, NAMES, count=60, at_once=16, longest=30))
    assert outcome.wrong == []
    assert len(outcome.seconds) == outcome.kinds["whole"] + outcome.kinds["stream"]
    assert len(outcome.kinds) == 5
    assert server.idle()


def test_sigterm_ends_the_answers_and_then_the_server(server: Running) -> None:
    """An answer that fits into the time of grace ends, and the exit code is 0."""
    asked: dict[str, Any] = {"model": "base", "prompt": "the", "temperature": 1.0, "stream": True, "seed": 1}
    short = server.client.completions.create(**asked, max_tokens=60)
    next(iter(short))
    told: list[Any] = []

    def read() -> None:
        told.extend(chunk.choices[0].finish_reason for chunk in short)

    reader = threading.Thread(target=read)
    reader.start()
    server.process.send_signal(signal.SIGTERM)
    reader.join(20)
    assert told
    assert told[-1] in ("length", "stop")
    assert server.process.ended(20) == 0
    assert server.process.out == f"{server.url}\n"
    assert all(line.startswith("warning: ") for line in server.process.err.splitlines())
