"""Load base models: bundled, from a folder, or from the hub."""

from __future__ import annotations

import ctypes
import importlib.util
import sys
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    BitsAndBytesConfig,
)
from transformers.utils import logging as transformers_logging

from rsoup.adapters.reading import PROVENANCE_FILE
from rsoup.errors import MissingPackageError, ModelError, RecipeError, RsoupError, did_you_mean, first_line
from rsoup.files import sha256_file, sha256_json, weights_sha256
from rsoup.hub import commit_of, folder_or_hub_id, hub_trouble
from rsoup.models.bundled import GENERATING, bundled_folder, is_generating
from rsoup.models.language_model import LanguageModel, decoder_of
from rsoup.models.probe import probe
from rsoup.models.processes import this_process
from rsoup.models.products import widen

TOKENIZER_FILES = ("token*", "vocab*", "tekken*", "*.model")

transformers_logging.disable_progress_bar()  # its bars would run through ours

Quantization = Literal["8bit", "4bit"]
Placement = Literal["auto", "sharded", "spread"]

LOADING = threading.Lock()
"""Held while a model is loaded: transformers then ties no weights in the whole process, and two at once leave it so."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_device() -> torch.device:
    """Return the device of this process: its accelerator, or the CPU, as accelerate sees it."""
    device: torch.device = this_process().device
    return device


def pick_dtype(name: str, device: torch.device, *, exact: bool) -> torch.dtype:
    """Resolve ``auto``: with ``exact``, float32 on the CPU; otherwise bfloat16 where the device computes in it."""
    if name != "auto":
        return DTYPES[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if device.type == "cpu":
        has_bf16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return torch.bfloat16 if has_bf16 and not exact else torch.float32
    return torch.float32


def keep_large_buffers() -> None:
    """Let glibc reuse large buffers instead of mapping each one anew: a training step gets shorter by a fifth."""
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library
        return
    m_trim_threshold, m_mmap_threshold, one_gib = -1, -3, 1 << 30
    mallopt(m_mmap_threshold, one_gib)
    mallopt(m_trim_threshold, one_gib)


def model_source(name: str) -> str:
    """Return what ``from_pretrained`` is given for a model's name: a folder, or the hub id itself."""
    if is_generating(name):
        return str(bundled_folder(name))
    return folder_or_hub_id(name, name, ModelError, f" {did_you_mean(name, GENERATING)}")


@cache
def model_sha256(name: str, revision: str | None) -> str:
    """Return what tells a model's weights apart: a hash over a folder's weight files, the commit of a hub id."""
    source = model_source(name)
    if Path(source).is_dir():
        return weights_sha256(Path(source))
    with _explained(name, source):
        return commit_of(source, revision)


def context_length(name: str, revision: str | None) -> int | None:
    """Return how many tokens a model's text may have, None if its configuration does not say."""
    source = model_source(name)
    with _explained(name, source):
        config = AutoConfig.from_pretrained(source, revision=revision).get_text_config()
    length: int | None = getattr(config, "max_position_embeddings", None)
    return length


def even_length(config: Any) -> int | None:
    """Return up to which length rows of a batch cannot change each other's positions, None for any.

    Beyond it, longrope turns the whole batch to other frequencies (arXiv 2402.13753, as transformers has it).
    """
    told = getattr(config.get_text_config(), "rope_parameters", None) or {}
    kinds = [told, *(own for own in told.values() if isinstance(own, dict))]
    lengths = [own.get("original_max_position_embeddings") for own in kinds if own.get("rope_type") == "longrope"]
    return min((length for length in lengths if length), default=None)


def settings_sha256(name: str, revision: str | None) -> str:
    """Return a hash over what else decides a model's output: its configuration and tokenizer."""
    source = Path(model_source(name))
    if not source.is_dir():
        return model_sha256(name, revision)
    files = sorted([*source.glob("*.json"), *source.glob("*.jinja"), *source.glob("*.model")])
    return sha256_json([[file.name, sha256_file(file)] for file in files if file.name != PROVENANCE_FILE])


def load_language_model(
    name: str,
    *,
    revision: str | None,
    dtype: str,
    exact: bool = False,
    quantization: Quantization | None = None,
    placement: Placement = "auto",
) -> LanguageModel:
    """Load a causal model and its tokenizer onto the device rsoup computes on, frozen and in evaluation mode.

    ``quantization`` narrows the weights to 8 or 4 bits while loading. With ``placement`` sharded, all processes of a
    launcher load it at the same time.
    """
    keep_large_buffers()
    source = model_source(name)
    device = pick_device()
    check_placement(placement)
    if quantization == "8bit" and dtype == "auto":
        dtype = "float16"  # what bitsandbytes multiplies in, whatever it is given
    weights = pick_dtype(dtype, device, exact=exact)
    options = quantization_options(quantization, weights, device) if quantization else {}
    with _explained(name, source):
        config = AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)
        if getattr(config, "quantization_config", None):
            raise ModelError(f"{name}: the model is quantised.", "Give the original weights it was quantised from.")
        loader = loader_of(config)
        if placement == "spread" and torch.cuda.device_count() > 1:
            from rsoup.models.spreading import device_map

            devices = [torch.device("cuda", number) for number in range(torch.cuda.device_count())]
            options |= {"device_map": device_map(loader, config, devices)}

    def read() -> Any:
        with _explained(name, source):
            return load_weights(loader, source, revision, dtype=weights, **options)

    shards = None
    if placement == "sharded":
        from rsoup.models.sharding import load_by_leader, share_out  # torch's FSDP takes time to import

        model = load_by_leader(read, lambda: loader.from_config(config, dtype=weights))
        shards = share_out(model, decoder_of(model), device)
    else:
        model = read()
    model.requires_grad_(False)
    model.eval()
    loaded = LanguageModel(
        model=model if shards or "device_map" in options else model.to(device),
        tokenizer=load_tokenizer(name, revision),
        name=name,
        path=source,
        sha256=model_sha256(name, revision),
        shards=shards,
    )
    if loaded.tokenizer.pad_token_id is None and not loaded.stop_ids:
        raise ModelError(
            f"{name}: the tokenizer has neither a padding nor an end token.", "Set eos_token in tokenizer_config.json."
        )
    probed: LanguageModel = probe(loaded)
    return probed


def check_placement(placement: Placement) -> None:
    """Raise RecipeError where a base cannot lie as it is asked to: it depends on the processes there are."""
    processes = this_process().num_processes
    if placement == "sharded" and processes == 1:
        raise RecipeError(
            "model.placement sharded splits the base over the processes of a launcher, and this is a single process.",
            "Start it with accelerate launch -m rsoup ..., or set model.placement to spread (GPUs of one process).",
        )
    if placement == "spread" and processes > 1:
        raise RecipeError(
            f"model.placement spread lays the base over all GPUs that a process sees, and {processes} processes would "
            "lay theirs over the same.",
            "Start rsoup without a launcher, or set model.placement to sharded.",
        )


def loader_of(config: Any) -> Any:
    """Return what loads a model: some vision-language models are no causal models by name, and are used as such."""
    named = type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING and type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    return AutoModelForImageTextToText if named else AutoModelForCausalLM


def quantization_options(quantization: Quantization, weights: torch.dtype, device: torch.device) -> dict[str, Any]:
    """Return what tells ``from_pretrained`` to load 8 or 4 bits through bitsandbytes (LLM.int8 and NF4)."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise MissingPackageError("bitsandbytes", f"model.quantization {quantization}", "pip install bitsandbytes")
    if quantization == "8bit" and device.type == "cpu":  # the products write into what attention keeps for its gradient
        raise ModelError("model.quantization 8bit: cannot be trained through on a CPU.", "Use 4bit, or a GPU.")
    if quantization == "8bit":
        config = BitsAndBytesConfig(load_in_8bit=True)
    else:
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=weights,
        )
    return {"quantization_config": config, "device_map": {"": device}}


def load_tokenizer(name: str, revision: str | None) -> Any:
    """Load the tokenizer of a model."""
    source = model_source(name)
    folder = Path(source)
    if folder.is_dir() and not any(any(folder.glob(pattern)) for pattern in TOKENIZER_FILES):
        raise ModelError(
            f"{name}: the folder has no tokenizer.",
            "Copy the tokenizer of the model it was made from into the folder.",
        )
    with _explained(name, source):
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision, trust_remote_code=False)
        tokenizer("a")  # some that load cannot encode
        return tokenizer


def load_weights(
    loader: Any,
    source: str,
    revision: str | None,
    *,
    given: Collection[str] = (),
    whole: Collection[str] = (),
    **options: Any,
) -> Any:
    """Load a model as ``loader`` does, silently; ValueError if the folder lacks weights, which would be random.

    Those ``given`` may be missing: the caller has them. Modules that have to be ``whole`` may have no weights in the
    folder that the model has no place for, and would leave out.
    """
    transformers_logging.set_verbosity_error()
    # without the first, a terminal is asked whether to run code; with the second, sizes that differ are told below
    options = {"trust_remote_code": False, "ignore_mismatched_sizes": True, **options}
    with LOADING:
        model, notes = loader.from_pretrained(source, revision=revision, output_loading_info=True, **options)
    kind = type(model).__name__
    unused = {key for key in notes["unexpected_keys"] if not set(whole).isdisjoint(key.split("."))}
    if unused:
        raise ValueError(f"{kind} has no place for its weights {min(unused)}")
    if missing := set(notes["missing_keys"]) - set(given):
        raise ValueError(f"it lacks the weights {min(missing)}")
    for key, there, wanted in sorted(notes["mismatched_keys"]):
        if key not in given:
            sizes = f"{tuple(there)}, and by its config.json they have {tuple(wanted)}"
            raise ValueError(f"its weights {key} have the shape {sizes}")
    widen(model)
    return model


@contextmanager
def _explained(name: str, source: str) -> Iterator[None]:
    """Turn what transformers raises within the block into a ModelError."""
    try:
        yield
    except RsoupError:
        raise
    except Exception as problem:  # of a damaged file, transformers and tokenizers raise anything
        reason = first_line(problem)
        where = (
            "Check the folder" if Path(source).is_dir() else "Check the name, the network, and your access on the hub"
        )
        told = f"{name}: cannot be loaded: {reason}.", f"{where}; it has to hold a causal language model."
        raise ModelError(*(hub_trouble(problem, name, "model") or told)) from problem
