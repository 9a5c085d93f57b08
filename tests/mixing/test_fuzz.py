"""Broken input by the hundred: every mutation is refused with a message, or gives a whole output.

RSOUP_FUZZ sets the number of mutations per test: RSOUP_FUZZ=5000 pytest tests/mixing/test_fuzz.py
"""

from __future__ import annotations

import json
import os
import random
import shutil
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from breaking.mutating import mutate_safetensors, mutate_text
from rsoup import mixing
from rsoup.errors import RsoupError

from .making import make_adapter
from .test_experts import EXPERTS, FUSED, INNER, WIDTH, stack
from .test_merging import Q_PROJ, make_base, tensors
from .test_naming import rng_matrix

MUTATIONS = int(os.environ.get("RSOUP_FUZZ", "60"))
MEMORY = 2 << 20  # far above what these files of a few kilobytes need, far below what they may announce


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def attempt(inputs: Path, output: Path, make: Callable[[], Any]) -> bool:
    """Run ``make`` and tell whether it gave an output, which must be whole; else expect an error with a hint.

    Either way the inputs are untouched and memory did not jump.
    """
    before = snapshot(inputs)
    problem: RsoupError | None = None
    tracemalloc.start()
    try:
        make()
    except RsoupError as error:
        problem = error
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < MEMORY
    assert snapshot(inputs) == before
    if problem:
        assert problem.hint
        assert problem.message.isprintable()
        assert list(output.parent.iterdir()) == []
        return False
    for path in output.rglob("*.safetensors"):
        assert load_file(path)
    for path in output.rglob("rsoup.json"):
        assert json.loads(path.read_text())["schema"] == 1
    assert [path.name for path in output.parent.iterdir()] == [output.name]
    shutil.rmtree(output)
    return True


FILES: list[tuple[str, Callable[[bytes, random.Random], bytes]]] = [
    ("adapter_model.safetensors", mutate_safetensors),
    ("adapter_config.json", mutate_text),
    ("rsoup.json", mutate_text),
]


@pytest.mark.parametrize(("name", "mutate"), FILES, ids=[name for name, _ in FILES])
def test_broken_adapters(name: str, mutate: Callable[[bytes, random.Random], bytes], tmp_path: Path) -> None:
    inputs, output = tmp_path / "in", tmp_path / "out" / "soup"
    settings: dict[str, Any] = {
        "extra": {"base_model.model.score.weight": np.ones((2, 3), np.float32)},
        "modules_to_save": ["score"],
        "alpha_pattern": {"q_proj": 4},
        "lora_dropout": 0.1,
        "provenance": {"init_sha256": "a" * 64, "base_model": {"name": "tiny", "sha256": None}},
    }
    good, broken = (make_adapter(inputs / folder, i, **settings) for i, folder in enumerate(("good", "broken")))
    original = (broken / name).read_bytes()
    output.parent.mkdir()

    def write_mix(method: str) -> None:
        mixing.write(mixing.mix([good, broken], [0.5, 0.5], method=method), output)

    refused = 0
    for seed in range(MUTATIONS):
        rng = random.Random(f"{name}{seed}")
        (broken / name).write_bytes(mutate(original, rng))
        refused += not attempt(inputs, output, partial(write_mix, rng.choice(["factors", "cat", "svd"])))
    assert refused > MUTATIONS / 4


BASE_FILES: list[tuple[str, Callable[[bytes, random.Random], bytes]]] = [
    ("model-00001-of-00002.safetensors", mutate_safetensors),
    ("model.safetensors.index.json", mutate_text),
    ("config.json", mutate_text),
]


@pytest.mark.parametrize(("name", "mutate"), BASE_FILES, ids=[name for name, _ in BASE_FILES])
def test_broken_bases(name: str, mutate: Callable[[bytes, random.Random], bytes], tmp_path: Path) -> None:
    inputs, output = tmp_path / "in", tmp_path / "out" / "merged"
    soup = mixing.mix([make_adapter(inputs / "adapter")], [1.0])
    base = make_base(inputs / "base", shards=2, tie_word_embeddings=None)
    original = (base / name).read_bytes()
    output.parent.mkdir()
    for seed in range(MUTATIONS):
        (base / name).write_bytes(mutate(original, random.Random(f"{name}{seed}")))
        attempt(inputs, output, lambda: mixing.merge(soup, base, output))


TOKENS = "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta"


def make_tokens(folder: Path, seed: int) -> Path:
    """Write an adapter with trained tokens, a trained head and a trained bias."""
    extra = {
        TOKENS: rng_matrix(seed, (2, 5)),
        "base_model.model.lm_head.weight": rng_matrix(seed, (11, 5)),
        f"base_model.model.{Q_PROJ}.base_layer.bias": rng_matrix(seed, (6,)),
    }
    settings = {"modules_to_save": ["lm_head"], "trainable_token_indices": {"embed_tokens": [1, 4]}}
    return make_adapter(folder, seed, extra=extra, bias="lora_only", **settings)


KINDS: dict[str, tuple[Callable[[Path, int], Path], dict[str, Any]]] = {
    "experts": (
        stack,
        {
            f"{FUSED}.gate_up_proj": rng_matrix(1, (EXPERTS, 2 * INNER, WIDTH)),
            f"{FUSED}.down_proj": rng_matrix(1, (EXPERTS, WIDTH, INNER)),
        },
    ),
    "tokens": (make_tokens, {**tensors(), f"{Q_PROJ}.bias": rng_matrix(2, (6,))}),
}


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors", "config.json"])
@pytest.mark.parametrize("kind", KINDS)
def test_broken_experts_and_tokens(kind: str, name: str, tmp_path: Path) -> None:
    inputs, output = tmp_path / "in", tmp_path / "out" / "merged"
    make, content = KINDS[kind]
    adapters = [make(inputs / folder, seed) for seed, folder in enumerate(("good", "broken"))]
    base = make_base(inputs / "base", content, tie_word_embeddings=True)
    path = (base if name == "config.json" else adapters[1]) / name
    original = path.read_bytes()
    mutate = mutate_text if name.endswith(".json") else mutate_safetensors
    output.parent.mkdir()

    def merge(method: str) -> None:
        mixing.merge(mixing.mix(adapters, [0.5, 0.5], method=method), base, output)

    for seed in range(MUTATIONS // 2):
        rng = random.Random(f"{kind}{name}{seed}")
        path.write_bytes(mutate(original, rng))
        attempt(inputs, output, partial(merge, rng.choice(["factors", "cat", "svd"])))
