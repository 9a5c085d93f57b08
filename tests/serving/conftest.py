"""A tiny model with three random experts, served."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from rsoup import mixing
from rsoup.adapters import Adapter
from rsoup.models.language_model import LanguageModel
from rsoup.models.load import load_language_model
from rsoup.serving.served import Served
from tiny import build_adapter, build_tiny_model

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
