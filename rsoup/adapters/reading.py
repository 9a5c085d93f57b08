"""Read a PEFT adapter folder: header against data, configuration against tensors, provenance against file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from rsoup.adapters.adapter import FACTOR_NAMES, PREFIX, Adapter, Kind, Layer, Provenance
from rsoup.adapters.config import CONFIG_FILE, AdapterConfig, read_config
from rsoup.adapters.hub import find_folder
from rsoup.adapters.tensorfile import Array, all_finite, map_tensors, read_header
from rsoup.errors import AdapterError
from rsoup.files import read_json, sha256_file

WEIGHTS_FILE = "adapter_model.safetensors"
PICKLE_FILE = "adapter_model.bin"
PROVENANCE_FILE = "rsoup.json"

_MAX_PROVENANCE = 4 << 20
_FACTOR = re.compile(r"(?P<module>.+)\.(?P<factor>lora_A\.weight|lora_B\.weight|lora_embedding_[AB])")
_EMBEDDINGS = ("embed_tokens.weight", "lm_head.weight")
_CONTRADICTION = f"{CONFIG_FILE} and {WEIGHTS_FILE} must come from the same training: copy both again."
_FOREIGN = {
    "lora_magnitude_vector": "a DoRA magnitude, which rescales the base's weights",
    "lora_B.bias": "a LoRA bias, which is not part of B @ A",
    "lora_E": "AdaLoRA's singular values",
    "vera_lambda": "a VeRA scaling vector",
    "ia3_l": "an IA3 scaling vector",
    "token_adapter": "trained token rows",
}


def read_adapter(source: str | Path) -> Adapter:
    """Read an adapter from a folder or a hub id (``owner/name``).

    The tensors are read-only views of the mapped file, so memory stays within its size.
    Raise AdapterError if the folder is damaged, contradicts itself or holds what cannot be mixed exactly.
    """
    folder = find_folder(source, (CONFIG_FILE, WEIGHTS_FILE, PROVENANCE_FILE))
    config = read_config(folder)
    path = _weights_path(folder)
    tensors = _strip_prefix(path, map_tensors(read_header(path)))
    layers, saved, copies = _sort_tensors(path, tensors, config)
    sha256 = sha256_file(path)
    provenance = _read_provenance(folder, sha256)
    return Adapter(
        name=provenance.name if provenance else folder.resolve().name,
        path=folder,
        config=config,
        layers=layers,
        saved=saved,
        copies=copies,
        sha256=sha256,
        provenance=provenance,
        warnings=config.warnings,
    )


def _weights_path(folder: Path) -> Path:
    path = folder / WEIGHTS_FILE
    if path.exists() or not (folder / PICKLE_FILE).exists():
        return path
    raise AdapterError(
        f"{folder / PICKLE_FILE}: is a pickle, which can run code when it is opened; rsoup does not open it.",
        "Convert it where you trust it: load the adapter with PEFT and save_pretrained(DIR, safe_serialization=True).",
    )


def _strip_prefix(path: Path, tensors: dict[str, Array]) -> dict[str, Array]:
    if not tensors:
        raise AdapterError(f"{path}: holds no tensor.", "Save the adapter again; its training may have been cut short.")
    for name, array in tensors.items():
        if not name.startswith(PREFIX):
            raise AdapterError(f"{path}: tensor {name} is not named as PEFT names it ({PREFIX}...).", _CONTRADICTION)
        if not all_finite(array):
            raise AdapterError(
                f"{path}: tensor {name} holds NaN or infinity.", "Its training diverged: train it again."
            )
    return {name.removeprefix(PREFIX): array for name, array in tensors.items()}


def _sort_tensors(
    path: Path, tensors: dict[str, Array], config: AdapterConfig
) -> tuple[dict[str, Layer], dict[str, Array], dict[str, Array]]:
    """Split tensors into updates, modules_to_save and copies of the base's embeddings."""
    factors: dict[str, dict[str, Array]] = {}
    saved: dict[str, Array] = {}
    copies: dict[str, Array] = {}
    for name, array in tensors.items():
        match = _FACTOR.fullmatch(name)
        if match:
            factors.setdefault(match["module"], {})[match["factor"]] = array
        elif config.saves(name):
            saved[name] = array
        elif name.endswith((".base_layer.weight", *_EMBEDDINGS)):
            copies[name] = array
        else:
            raise _foreign(path, name)
    if not factors:
        raise AdapterError(f"{path}: holds no LoRA factor.", _CONTRADICTION)
    layers = {module: _layer(path, module, found, config) for module, found in factors.items()}
    return layers, saved, copies


def _foreign(path: Path, name: str) -> AdapterError:
    for marker, reason in _FOREIGN.items():
        if marker in name:
            return AdapterError(f"{path}: tensor {PREFIX}{name} is {reason}.", "Only plain LoRA can be mixed exactly.")
    return AdapterError(
        f"{path}: tensor {PREFIX}{name} is neither a LoRA factor nor covered by modules_to_save.", _CONTRADICTION
    )


def _layer(path: Path, module: str, found: dict[str, Array], config: AdapterConfig) -> Layer:
    def refuse(reason: str) -> AdapterError:
        return AdapterError(f"{path}: {PREFIX}{module} {reason}.", _CONTRADICTION)

    kind: Kind = "linear" if set(found) & set(FACTOR_NAMES["linear"]) else "embedding"
    if set(found) != set(FACTOR_NAMES[kind]):
        raise refuse(f"needs {' and '.join(FACTOR_NAMES[kind])}, and has {', '.join(sorted(found))}")
    down, up = (found[name] for name in FACTOR_NAMES[kind])
    if down.ndim != 2 or up.ndim != 2:
        raise refuse(f"has factors of shapes {down.shape} and {up.shape}; only matrices (no convolutions) can be mixed")
    if down.shape[0] != up.shape[1]:
        raise refuse(f"has factors of shapes {down.shape} and {up.shape}, which do not multiply")
    if down.shape[0] != config.rank_of(module):
        raise refuse(f"has rank {down.shape[0]}, and {CONFIG_FILE} says {config.rank_of(module)}")
    if not config.targets(module):
        raise refuse(f"is not covered by target_modules in {CONFIG_FILE}")
    return Layer(kind, down, up, config.scale_of(module))


def _read_provenance(folder: Path, sha256: str) -> Provenance | None:
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
    _check_own_sha256(path, raw, sha256)
    kind, name, base_name, base_sha256, init_sha256 = fields.values()
    return Provenance(str(kind), str(name), base_name, base_sha256, init_sha256, raw)


def _check_own_sha256(path: Path, raw: dict[str, Any], sha256: str) -> None:
    if raw.get("sha256") not in (None, sha256):
        raise AdapterError(
            f"{path}: was written for another {WEIGHTS_FILE} (sha256 {raw['sha256']!r:.20}, here {sha256[:16]}).",
            f"Copy the folder again; if you changed the weights on purpose, delete {PROVENANCE_FILE}.",
        )
