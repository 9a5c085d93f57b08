"""Serve a run with vLLM, whose plugin (``vllm_plugin``) makes every mix when it is first asked for."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from rsoup.errors import RecipeError
from rsoup.evaluation.vllm import rank_size, require_vllm
from rsoup.models.load import model_source
from rsoup.serving.opening import Source, read_run
from rsoup.serving.soups import SoupFolders
from rsoup.serving.vllm_plugin import FOLDER, RUN

AT_ONCE = 8
"""Mixes that a batch may hold."""


@dataclass(frozen=True)
class Launch:
    """A command, what it needs in its environment, and the grid of weights: steps of 1 / ``steps``."""

    command: tuple[str, ...]
    environment: Mapping[str, str]
    steps: int


def launch(
    run: str, *, host: str, port: int, api_key: str | None, dtype: str | None, more: Sequence[str], folder: Path
) -> Launch:
    """Return how to serve a run's folder with vLLM's own server; RsoupError if it cannot be.

    ``more`` are arguments of that server, which come last.
    Adapters from paths stay out of reach: a middleware hides the routes that load them.
    """
    require_vllm()
    opened = read_run(Source(run))
    if not opened.adapters:
        raise RecipeError(f"{run}: holds no adapter to mix.", "Train them first, or serve the base with vllm serve.")
    soups = SoupFolders(opened.adapters, opened.method, folder)
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]  # vllm's own command wants that very package
    command += ["--model", model_source(opened.base), "--served-model-name", "base", opened.base]
    command += ["--host", host, "--port", str(port), "--enable-lora", "--max-loras", str(AT_ONCE)]
    command += ["--max-lora-rank", str(rank_size(soups.rank)), "--middleware", "rsoup.serving.vllm_resolver.Closed"]
    command += ["--dtype", dtype] if dtype else []
    command += ["--revision", opened.revision] if opened.revision else []
    command += more
    environment = {
        RUN: str(Path(run).resolve()),
        FOLDER: str(folder.resolve()),
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        **({"VLLM_API_KEY": api_key} if api_key else {}),
    }
    return Launch(tuple(command), environment, soups.steps)


def replace_by(launch: Launch) -> NoReturn:
    """Become the command: signals, output and exit code are then its own."""
    os.execvpe(launch.command[0], launch.command, {**os.environ, **launch.environment})
