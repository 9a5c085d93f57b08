"""Fixtures that the whole suite shares; what they are built from is in ``tiny``."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import yaml

from command import Command, calling
from tiny import POSTS, build_tiny_model, recipe_content, write_recipe

os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is loaded: models this small get slower with more threads
os.environ["HF_HUB_OFFLINE"] = "1"

hypothesis.settings.register_profile("shared cores", deadline=None)  # others' work would count as an example's
hypothesis.settings.load_profile("shared cores")


@pytest.fixture(scope="session")
def posts() -> list[str]:
    """Twelve short reviews made of the tiny tokenizer's words."""
    return POSTS


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer Llama with grouped-query attention and a word tokenizer, saved as a folder."""
    return build_tiny_model(tmp_path_factory.mktemp("models") / "tiny", seed=0)


@pytest.fixture
def tiny_recipe(tmp_path: Path, tiny_model: Path) -> Path:
    """A recipe that trains two experts and a baseline on the tiny model within seconds."""
    return write_recipe(tmp_path / "tiny.yaml", recipe_content(tmp_path, tiny_model))


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A folder with ``tiny.yaml`` and what ``rsoup run`` makes of it under ``run``; copy it before changing it."""
    from rsoup import experiment
    from rsoup.progress import Silent
    from rsoup.recipe_file import load_recipe
    from rsoup.resolve import resolve

    folder = tmp_path_factory.mktemp("tiny")
    recipe = write_recipe(folder / "tiny.yaml", recipe_content(folder, tiny_model))
    experiment.run(resolve(load_recipe(recipe)), Silent())
    return folder


@pytest.fixture
def language_model(tiny_model: Path) -> Any:
    """The tiny model as rsoup loads it, in float32."""
    from rsoup.models.load import load_language_model

    return load_language_model(str(tiny_model), revision=None, dtype="float32")


@pytest.fixture
def rsoup(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """The command line, called within this process."""
    yield from calling(monkeypatch, capsys)


@pytest.fixture
def run_copy(tmp_path: Path, tiny_run: Path) -> Path:
    """A recipe whose run is finished; nothing it does reaches the original."""
    shutil.copytree(tiny_run / "run", tmp_path / "run")
    content = yaml.safe_load((tiny_run / "tiny.yaml").read_text())
    return write_recipe(tmp_path / "tiny.yaml", {**content, "output": str(tmp_path / "run")})
