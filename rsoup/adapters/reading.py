"""Read a PEFT adapter folder: header against data, configuration against tensors, provenance against file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from rsoup.adapters.adapter import Adapter, Provenance
from rsoup.adapters.companions import TEMPLATE_FOLDER, TEMPLATES, TOKENIZER, companions_of
from rsoup.adapters.config import CONFIG_FILE, AdapterConfig, read_config
from rsoup.adapters.hub import find_folder
from rsoup.adapters.layers import FACTOR_NAMES, PREFIX, TOKEN_ROWS, Kind, Layer
from rsoup.adapters.names import unwrapped
from rsoup.adapters.stacks import experts, in_order, parameters_of, unwrap
from rsoup.adapters.tensorfile import Array, all_finite, map_tensors, read_header
from rsoup.errors import AdapterError, reason_of, see
from rsoup.files import read_json, sha256_file

WEIGHTS_FILE = "adapter_model.safetensors"
PICKLE_FILE = "adapter_model.bin"
PROVENANCE_FILE = "rsoup.json"

_MAX_PROVENANCE = 4 << 20
_FACTOR = re.compile(
    r"(?P<module>.+)\.(?:(?P<linear>lora_[AB])(?:\.(?P<adapter>[^.]+))?\.weight"
    r"|(?P<embedding>lora_embedding_[AB])(?:\.(?P<owner>[^.]+))?)"
)
_SAVED = re.compile(r"(?P<module>.+)\.modules_to_save\.[^.]+\.(?P<rest>.+)")
_TWICE = re.compile(r"(?P<module>.+)\.modules_to_save\.(?P<rest>weight|bias)")
"""What PEFT writes once more, where the vocabulary was resized, of embeddings that it trains whole."""
_TOKENS = re.compile(rf"(?P<module>.+)\.{re.escape(TOKEN_ROWS)}(?:\.[^.]+)?")
_BASES_OWN = re.compile(r".+\.(?:original_module|token_adapter\.base_layer)\..+")
_EMBEDDINGS = ("embed_tokens.weight", "lm_head.weight")
_CONTRADICTION = f"{CONFIG_FILE} and {WEIGHTS_FILE} must come from the same training: copy both again."
_FOREIGN = {
    "lora_down": "a factor in the naming of other tools (kohya, LyCORIS)",
    "lora_up": "a factor in the naming of other tools (kohya, LyCORIS)",
    "lora_magnitude_vector": "a DoRA magnitude, which rescales the base's weights",
    "lora_B.bias": "a LoRA bias, which is not part of B @ A",
    "lora_E": "AdaLoRA's singular values",
    "vera_lambda": "a VeRA scaling vector",
    "ia3_l": "an IA3 scaling vector",
}


def read_adapter(source: str | Path) -> Adapter:
    """Read an adapter from a folder or a hub id (``owner/name``).

    The tensors are read-only views of the mapped file, so memory stays within its size.
    Raise AdapterError if the folder is damaged, contradicts itself or holds what cannot be mixed exactly.
    """
    wanted = (CONFIG_FILE, WEIGHTS_FILE, PROVENANCE_FILE, *TOKENIZER, *TEMPLATES, f"{TEMPLATE_FOLDER}/*")
    folder = find_folder(source, wanted)
    config = read_config(folder)
    path = _weights_path(folder)
    tensors = _strip_prefix(path, map_tensors(read_header(path)))
    layers, saved, copies = _sort_tensors(path, tensors, config)
    sha256 = sha256_file(path)
    provenance = _read_provenance(folder, sha256, config)
    return Adapter(
        name=provenance.name if provenance else folder.resolve().name,
        path=folder,
        config=config,
        layers=layers,
        saved=saved,
        copies=copies,
        sha256=sha256,
        provenance=provenance,
        companions=_companions(folder),
        warnings=config.warnings,
    )


def _companions(folder: Path) -> dict[str, str]:
    try:
        return companions_of(folder)
    except OSError as problem:
        raise AdapterError(
            f"{problem.filename or folder}: cannot be read ({reason_of(problem)}).", "Check the rights."
        ) from problem


def _weights_path(folder: Path) -> Path:
    path = folder / WEIGHTS_FILE
    shards = sorted(folder.glob("adapter_model-*-of-*.safetensors"))
    if not path.exists() and shards:
        raise AdapterError(
            f"{shards[0]}: is one of {len(shards)} shards; PEFT keeps an adapter in one {WEIGHTS_FILE}.",
            f"Join the shards into {WEIGHTS_FILE}: save_file of all their tensors.",
        )
    if path.exists() or not (folder / PICKLE_FILE).exists():
        return path
    raise AdapterError(
        f"{folder / PICKLE_FILE}: is a pickle, which can run code when it is opened; rsoup does not open it.",
        "Convert it where you trust it: load the adapter with PEFT and save_pretrained(DIR, safe_serialization=True)."
        + see("the-hub-holds-a-pickle"),
    )


def _strip_prefix(path: Path, tensors: dict[str, Array]) -> dict[str, Array]:
    """Return the tensors under the names that the model's own modules have."""
    if not tensors:
        raise AdapterError(f"{path}: holds no tensor.", "Save the adapter again; its training may have been cut short.")
    plain: dict[str, Array] = {}
    for name, array in sorted(tensors.items(), key=lambda item: _TWICE.fullmatch(unwrapped(item[0])) is not None):
        if not all_finite(array):
            raise AdapterError(
                f"{path}: tensor {name} holds NaN or infinity.", "Its training diverged: train it again."
            )
        own = _own_name(name)
        if _TWICE.fullmatch(unwrapped(name)) and own in plain and np.array_equal(plain[own], array):
            continue
        if own in plain:
            raise AdapterError(f"{path}: two tensors stand for {own}.", "Save one adapter to a file, under one name.")
        if not _BASES_OWN.fullmatch(own):
            plain[own] = array
    return plain


def _own_name(name: str) -> str:
    """Return a tensor's name without wrappers and without what PEFT's modules add in memory."""
    own = unwrapped(name)
    saved, tokens = _TWICE.fullmatch(own) or _SAVED.fullmatch(own), _TOKENS.fullmatch(own)
    if saved:
        return f"{saved['module']}.{saved['rest']}"
    return f"{tokens['module']}.{TOKEN_ROWS}" if tokens else own


def _sort_tensors(
    path: Path, tensors: dict[str, Array], config: AdapterConfig
) -> tuple[dict[str, Layer], dict[str, Array], dict[str, Array]]:
    """Split tensors into updates, what was trained as it is, and copies of the base's embeddings."""
    factors: dict[str, dict[str, Array]] = {}
    owners: set[str] = set()
    saved: dict[str, Array] = {}
    copies: dict[str, Array] = {}
    for name, array in tensors.items():
        match = _FACTOR.fullmatch(name)
        if match:
            factor = match["embedding"] or f"{match['linear']}.weight"
            owners.add(match["adapter"] or match["owner"] or "default")
            if factor in factors.setdefault(match["module"], {}):
                raise AdapterError(f"{path}: {match['module']} has several {factor}.", "Save one adapter to a file.")
            factors[match["module"]][factor] = array
        elif name.endswith(f".{TOKEN_ROWS}"):
            saved[name] = _token_rows(path, name, array, config)
        elif config.saves(name) or (config.trains_biases and name.endswith(".bias")):
            saved[name] = array
        elif name.endswith((".base_layer.weight", *_EMBEDDINGS)):
            copies[name] = array
        else:
            raise _foreign(path, name)
    if len(owners) > 1:
        raise AdapterError(
            f"{path}: holds several adapters ({', '.join(sorted(owners))}).", "Save one adapter to a file."
        )
    if not factors and (config.target_modules or not saved):
        raise AdapterError(f"{path}: holds no LoRA factor.", _CONTRADICTION)
    return _layers(path, factors, config), saved, copies


def _token_rows(path: Path, name: str, rows: Array, config: AdapterConfig) -> Array:
    tokens = config.tokens_of(name.removesuffix(f".{TOKEN_ROWS}"))
    if rows.ndim != 2 or len(rows) != len(tokens):
        raise AdapterError(
            f"{path}: {name} has the shape {rows.shape}, and trainable_token_indices names {len(tokens)} tokens.",
            _CONTRADICTION,
        )
    return rows


def _layers(path: Path, factors: dict[str, dict[str, Array]], config: AdapterConfig) -> dict[str, Layer]:
    """Return the update of each module, and of each expert of a bare parameter."""
    layers: dict[str, Layer] = {}
    wrapped: dict[str, dict[int, dict[str, Array]]] = {}
    for module, found in factors.items():
        owner, depth = unwrap(module)
        if parameters_of(owner, config.target_parameters, is_layer=config.targets(owner)):
            wrapped.setdefault(owner, {})[depth] = found
        else:
            layers[module] = _layer(path, module, found, config)
    for owner, depths in wrapped.items():
        names = parameters_of(owner, config.target_parameters, is_layer=config.targets(owner))
        parameters = in_order(names)
        if parameters is None or len(parameters) != len(depths):
            raise AdapterError(
                f"{path}: {owner} has factors of {len(depths)} parameters; which ones, target_parameters "
                f"({', '.join(config.target_parameters)}) does not tell.",
                "Train each parameter of a module under its full name (mlp.experts.gate_up_proj).",
            )
        for parameter, (_, found) in zip(reversed(parameters), sorted(depths.items()), strict=True):
            layers |= _bare_layers(path, owner, parameter, found, config)
    return layers


def _bare_layers(
    path: Path, owner: str, parameter: str, found: dict[str, Array], config: AdapterConfig
) -> dict[str, Layer]:
    """Return the update of each expert of a bare parameter; a weight that is a matrix is like any other layer's."""
    name = f"{owner}.{parameter}"
    down, up = _factors(path, name, found)
    rank = config.rank_of(name)
    if down.shape[0] % rank:
        raise AdapterError(
            f"{path}: {PREFIX}{name} has {down.shape[0]} rows in A, which are no experts of rank {rank} as "
            f"{CONFIG_FILE} says.",
            _CONTRADICTION,
        )
    if parameter == "weight" and down.shape[0] == rank:
        return {owner: Layer("linear", down, up, config.scale_of(name), bare=True)}
    layers = experts(owner, parameter, down, up, rank, config.scale_of(name))
    return {layer.place.key: layer for layer in layers if layer.place}


def _foreign(path: Path, name: str) -> AdapterError:
    for marker, reason in _FOREIGN.items():
        if marker in name:
            hint = "Convert it to PEFT's files and names first." if "naming" in reason else "Give plain LoRA adapters."
            return AdapterError(f"{path}: tensor {PREFIX}{name} is {reason}.", hint)
    return AdapterError(
        f"{path}: tensor {PREFIX}{name} is neither a LoRA factor nor covered by modules_to_save.", _CONTRADICTION
    )


def _factors(path: Path, module: str, found: dict[str, Array], kind: Kind = "linear") -> tuple[Array, Array]:
    def refuse(reason: str, hint: str = _CONTRADICTION) -> AdapterError:
        return AdapterError(f"{path}: {PREFIX}{module} {reason}.", hint)

    if set(found) != set(FACTOR_NAMES[kind]):
        raise refuse(f"needs {' and '.join(FACTOR_NAMES[kind])}, and has {', '.join(sorted(found))}")
    down, up = (found[name] for name in FACTOR_NAMES[kind])
    if down.ndim != 2 or up.ndim != 2:
        what = f"has factors of shapes {down.shape} and {up.shape}; only matrices (no convolutions) can be mixed"
        raise refuse(what, "Train adapters of linear layers and embeddings." if down.ndim > 2 else _CONTRADICTION)
    if down.shape[0] != up.shape[1]:
        raise refuse(f"has factors of shapes {down.shape} and {up.shape}, which do not multiply")
    return down, up


def _layer(path: Path, module: str, found: dict[str, Array], config: AdapterConfig) -> Layer:
    kind: Kind = "linear" if set(found) & set(FACTOR_NAMES["linear"]) else "embedding"
    down, up = _factors(path, module, found, kind)
    if down.shape[0] != config.rank_of(module):
        reason = f"has rank {down.shape[0]}, and {CONFIG_FILE} says {config.rank_of(module)}"
        raise AdapterError(f"{path}: {PREFIX}{module} {reason}.", _CONTRADICTION)
    if not config.targets(module):
        raise AdapterError(
            f"{path}: {PREFIX}{module} is not covered by target_modules in {CONFIG_FILE}.", _CONTRADICTION
        )
    if config.excludes(module):
        raise AdapterError(
            f"{path}: {PREFIX}{module} is excluded in {CONFIG_FILE} (exclude_modules, layers_to_transform): PEFT would "
            "not load it.",
            _CONTRADICTION,
        )
    return Layer(kind, down, up, config.scale_of(module))


def _read_provenance(folder: Path, sha256: str, config: AdapterConfig) -> Provenance | None:
    path = folder / PROVENANCE_FILE
    if not path.exists():
        return None
    if not path.is_file() or path.stat().st_size > _MAX_PROVENANCE:
        raise AdapterError(f"{path}: is not a file that rsoup wrote.", "Delete it, or copy the adapter again.")
    raw = read_json(path, schema=1, what="an adapter's provenance", error=AdapterError)
    base = raw.get("base_model") or {}
    fields = {
        "kind": raw.get("kind"),
        "name": raw.get("name"),
        "base_model.name": base.get("name") if isinstance(base, dict) else base,
        "base_model.sha256": base.get("sha256") if isinstance(base, dict) else base,
        "init_sha256": raw.get("init_sha256"),
    }
    for key, value in fields.items():
        if not ((isinstance(value, str) and value.isprintable()) or (value is None and key not in ("kind", "name"))):
            raise AdapterError(f"{path}: {key} is {value!r:.80}; expected a string.", "Train or mix the adapter again.")
    _check_own(path, raw, sha256, WEIGHTS_FILE, "sha256")
    _check_own(path, raw, config.sha256, CONFIG_FILE, "config_sha256")
    kind, name, base_name, base_sha256, init_sha256 = fields.values()
    return Provenance(str(kind), str(name), base_name, base_sha256, init_sha256, raw)


def _check_own(path: Path, raw: dict[str, Any], sha256: str, file: str, key: str) -> None:
    """Raise AdapterError if a file is another one than the provenance was written for."""
    if raw.get(key) not in (None, sha256):
        raise AdapterError(
            f"{path}: was written for another {file} ({key} {raw[key]!r:.20}, here {sha256[:16]}).",
            f"Copy the folder again; if you changed the file on purpose, delete {PROVENANCE_FILE}.",
        )
