"""A tiny model with three random experts, served."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from starlette.testclient import TestClient

from rsoup import mixing
from rsoup.adapters import Adapter
from rsoup.models.language_model import LanguageModel
from rsoup.models.load import load_language_model
from rsoup.serving.app import Access
from rsoup.serving.engine import Engine
from rsoup.serving.opening import open_run
from rsoup.serving.served import Served
from rsoup.serving.server import Settings, make_api, make_engine
from rsoup.serving.source import Source
from rsoup.serving.worker import Worker
from tiny import build_adapter, build_tiny_model, build_tokenizer

NAMES = ("positive", "brief", "calm")


@pytest.fixture(scope="session")
def expert_folders(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> dict[str, Path]:
    """Folders of three random adapters of the tiny model."""
    folder = tmp_path_factory.mktemp("experts")
    return {name: build_adapter(folder / name, tiny_model, seed) for seed, name in enumerate(NAMES)}


@pytest.fixture(scope="session")
def adapters(expert_folders: dict[str, Path]) -> dict[str, Adapter]:
    """The three adapters, read."""
    return {name: mixing.read(path) for name, path in expert_folders.items()}


@pytest.fixture(scope="session")
def base_model(tiny_model: Path) -> LanguageModel:
    """The tiny model in float32, for the whole session: nothing may change it."""
    return load_language_model(str(tiny_model), revision=None, dtype="float32")


@pytest.fixture
def served(base_model: LanguageModel, adapters: dict[str, Adapter]) -> Iterator[Served]:
    """The tiny model and its experts, their hooks in."""
    own = Served(base_model, adapters, "factors", context=128)
    with own.experts:
        yield own
    assert not any(module._forward_hooks for module in base_model.model.modules())


@pytest.fixture(scope="session")
def torn_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with two words for everything: each pair of tokens has logits that differ in the last digits only."""
    from transformers import AutoModelForCausalLM

    folder = build_tiny_model(tmp_path_factory.mktemp("models") / "torn", seed=3)
    model = AutoModelForCausalLM.from_pretrained(folder)
    weight = model.lm_head.weight.data
    half = len(weight) // 2
    noise = torch.randn(half, weight.shape[1], generator=torch.Generator().manual_seed(0))
    weight[half : 2 * half] = weight[:half] * (1 + 3e-7 * noise)
    model.save_pretrained(folder)
    return folder


TEMPLATE = (
    "{% for turn in messages %}"
    "{% if turn['role'] == 'system' %}{{ raise_exception('no system messages') }}{% endif %}"
    "{{ turn['content'] }} : {% endfor %}{% if quiet %}quiet : {% endif %}"
)


@pytest.fixture(scope="session")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a chat template that takes no system message."""
    folder = build_tiny_model(tmp_path_factory.mktemp("models") / "chatty", seed=0)
    tokenizer = build_tokenizer()
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


class Client:
    """A server within this process, its engine in a thread."""

    def __init__(self, source: Source, access: Access | None = None, **settings: Any) -> None:
        self.said: list[str] = []
        own = Settings(**{"rows": 8, "cache_tokens": 2048, "queue": 4, "max_tokens": 6, **settings})
        self.opened = open_run(source)
        self.worker = Worker(make_engine(self.opened.served, own, self.said.append), self.said.append)
        app = make_api(self.opened, self.worker, access or Access(), own, self.said.append).app()
        self.http = TestClient(app, raise_server_exceptions=False)
        self.worker.start()

    @property
    def engine(self) -> Engine:
        return self.worker.engine

    def post(self, path: str, **body: Any) -> Any:
        return self.http.post(path, json=body)

    def complete(self, model: str = "base", prompt: Any = "the kettle lid", **body: Any) -> Any:
        return self.post("/v1/completions", model=model, prompt=prompt, **body)

    def chat(self, model: str = "base", text: str = "the kettle lid", **body: Any) -> Any:
        return self.post(
            "/v1/chat/completions", **{"model": model, "messages": [{"role": "user", "content": text}], **body}
        )

    def idle(self) -> bool:
        """Wait until the batch is empty; tell whether it is."""
        deadline = time.monotonic() + 10
        while (self.engine.running, self.engine.waiting, self.engine.cells) != (0, 0, 0):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True

    def stop(self) -> None:
        self.engine.stop(at_once=True)
        self.worker.join()

    def close(self) -> None:
        self.stop()
        self.http.close()


@pytest.fixture(scope="session")
def client(tiny_run: Path) -> Iterator[Client]:
    """A finished run, served."""
    found = Client(Source(str(tiny_run / "run")))
    yield found
    found.close()


@pytest.fixture(scope="session")
def chat_client(chat_model: Path, expert_folders: dict[str, Path]) -> Iterator[Client]:
    """A model that chats and three adapters, served without a run."""
    adapters = [f"{name}={path}" for name, path in expert_folders.items()]
    found = Client(Source(model=str(chat_model), adapters=adapters, allow_different_starts=True))
    yield found
    found.close()
