"""Serve a run with vLLM, whose plugin (``vllm_plugin``) makes every mix when it is first asked for."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from rsoup.errors import RecipeError
from rsoup.models.load import model_source
from rsoup.models.vllm import rank_size
from rsoup.serving.opening import read_run
from rsoup.serving.soups import SoupFolders
from rsoup.serving.source import Source
from rsoup.serving.vllm_plugin import FOLDER, METHOD, RUN, STARTS

AT_ONCE = 8
"""Mixes that a batch may hold."""


@dataclass(frozen=True)
class Launch:
    """A command, what it needs in its environment, and the grid of weights: steps of 1 / ``steps``."""

    command: tuple[str, ...]
    environment: Mapping[str, str]
    steps: int


def launch(source: Source, *, host: str, port: int, api_key: str | None, more: Sequence[str], folder: Path) -> Launch:
    """Return how to serve a run's folder with vLLM's own server; RsoupError if it cannot be.

    ``more`` are arguments of that server, which come last.
    Adapters from paths stay out of reach: a middleware hides the routes that load them.
    """
    assert source.run is not None
    opened = read_run(source)
    if not opened.adapters:
        raise RecipeError(
            f"{source.run}: holds no adapter to mix.", "Train them first, or serve the base with vllm serve."
        )
    soups = SoupFolders(opened.adapters, opened.method, folder)
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]  # vllm's own command wants that very package
    command += ["--model", model_source(opened.base), "--served-model-name", "base", opened.base]
    command += ["--host", host, "--port", str(port), "--enable-lora", "--max-loras", str(AT_ONCE)]
    command += ["--max-lora-rank", str(rank_size(soups.rank)), "--middleware", "rsoup.serving.vllm_resolver.Closed"]
    command += ["--dtype", source.dtype] if source.dtype else []
    command += ["--revision", opened.revision] if opened.revision else []
    command += more
    environment = {
        RUN: str(Path(source.run).resolve()),
        METHOD: opened.method,
        STARTS: str(int(source.allow_different_starts)),
        FOLDER: str(folder.resolve()),
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        **({"VLLM_API_KEY": api_key} if api_key else {}),
    }
    return Launch(tuple(command), environment, soups.steps)


def replace_by(launch: Launch) -> NoReturn:
    """Become the command: signals, output and exit code are then its own."""
    os.execvpe(launch.command[0], launch.command, {**os.environ, **launch.environment})
