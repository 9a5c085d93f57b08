"""Turn the difference of a model from its base into a LoRA adapter, as far as an adapter can hold it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsoup import __version__
from rsoup.adapters import Adapter, AdapterConfig, Layer, read_adapter, write_adapter
from rsoup.adapters.config import CONFIG_FILE, parse_config
from rsoup.adapters.reading import PROVENANCE_FILE
from rsoup.adapters.tensorfile import DTYPES
from rsoup.errors import AdapterError, ModelError, RsoupError, did_you_mean
from rsoup.files import sha256_json
from rsoup.mixing.base import CONV1D_MODELS
from rsoup.mixing.checkpoints.cutting import cut_difference
from rsoup.mixing.checkpoints.differences import compare_models
from rsoup.mixing.checkpoints.mixture import Source
from rsoup.mixing.checkpoints.models import Model, read_model
from rsoup.mixing.checkpoints.origin import hash_all, known_hashes, stamps
from rsoup.mixing.methods import Options
from rsoup.mixing.output import output_folder
from rsoup.mixing.provenance import HUB_ID, PAPER, cell

KIND = "extracted"
_RENAMED_IN_MEMORY = (
    *("axk2", "deepseek_v4", "glm5_next", "glm5_next_text", "hrm_text", "hy_v4", "inkling2_text", "inkling_text"),
    *("lfm3", "nomic_bert"),
)
"""Models whose layers have other names in memory than in their files."""


@dataclass(frozen=True)
class LeftOut:
    """Tensors that no adapter holds: how many, and their share of the squared norm of the whole difference."""

    tensors: int
    share: float


@dataclass(frozen=True)
class Extraction:
    """What was extracted: the share of each layer's squared difference that its factors hold, and what they cannot.

    ``captured`` is the share of all layers together; ``of_all`` counts what is left out too.
    """

    folder: Path
    layers: Mapping[str, float]
    ranks: Mapping[str, int]
    captured: float
    of_all: float
    left_out: Mapping[str, LeftOut]
    warnings: tuple[str, ...]


def extract(
    model: Source,
    base: Source,
    folder: str | Path,
    *,
    rank: int,
    energy: float | None = None,
    seed: int = 0,
    dtype: str = "F32",
    overwrite: bool = False,
) -> Extraction:
    """Write W_model - W_base as a LoRA adapter of ``base``, each layer cut to ``rank``, or to less for ``energy``.

    Each layer's difference is cut by a randomised SVD, with the best approximation of its rank for a limit (Eckart and
    Young 1936); one layer is in memory at a time. Embeddings, norms, biases, routers and experts stay out, with
    their share in ``left_out``. A folder that holds this very adapter is left as it is. Raise ModelError if the two do
    not correspond or do not differ.
    """
    _check(rank, energy, seed, dtype)
    folder = Path(folder)
    own, root = (source if isinstance(source, Model) else read_model(source) for source in (model, base))
    _refuse_parts(own)
    settings = {"rank": rank, "energy": energy, "seed": seed, "dtype": dtype}
    warnings = tuple(compare_models(root, [], own))
    if held := _held(folder, own, root, settings, warnings):
        return held
    with output_folder(folder, [own.path, root.path], overwrite=overwrite) as partial:
        layers, facts = cut_difference(own, root, Options(rank, energy, None, seed), DTYPES[dtype])
        adapter = Adapter("extracted", None, _config(root, layers, facts["still"]), layers)
        hashes = hash_all([own, root])
        origin = _provenance(folder.name, own, root, hashes, settings) | {"extraction": facts}
        metadata = {"rsoup": json.dumps({"version": __version__, "extracted_from": own.source, **settings})}
        write_adapter(
            adapter, partial, provenance=origin, metadata=metadata, card=_card(folder.name, own, root, rank, facts)
        )
    return _told(folder, facts, warnings)


def _check(rank: int, energy: float | None, seed: int, dtype: str) -> None:
    if rank < 1:
        raise AdapterError(f"The rank {rank} is below 1.", "Give --rank 1 or more.")
    if energy is not None and not 0 < energy <= 1:
        raise AdapterError(f"The energy {energy:g} is not in (0, 1].", "Give --energy 0.9, say.")
    if seed < 0:
        raise AdapterError(f"The seed {seed} is negative.", "Give --seed 0 or more.")
    if dtype not in DTYPES:
        raise AdapterError(f"There is no dtype {dtype!r:.40} to write.", did_you_mean(dtype, DTYPES))


def _refuse_parts(model: Model) -> None:
    why = "its modules are called otherwise in memory than in its files, so that PEFT would not find an adapter's"
    if isinstance(model.config.get("text_config"), dict):
        raise ModelError(
            f"{model.source}: is made of parts (text_config); {why}.", "Extract from the text model alone."
        )
    if model.config.get("model_type") in _RENAMED_IN_MEMORY:
        raise ModelError(
            f"{model.source}: is a {model.config['model_type']}; {why}.", "Mix the models themselves (rsoup mix A B)."
        )


def _config(base: Model, layers: Mapping[str, Layer], still: Sequence[str]) -> AdapterConfig:
    """Return the configuration of an adapter whose scale is in its factors: alpha is the rank everywhere."""
    rank = max(layer.rank for layer in layers.values())
    pattern = {module: layer.rank for module, layer in layers.items() if layer.rank != rank}
    architectures = base.config.get("architectures")
    causal = isinstance(architectures, list) and any(str(name).endswith("ForCausalLM") for name in architectures)
    raw = {
        "peft_type": "LORA",
        **({"task_type": "CAUSAL_LM"} if causal else {}),
        "base_model_name_or_path": base.source,
        "r": rank,
        "lora_alpha": rank,
        "rank_pattern": pattern,
        "alpha_pattern": dict(pattern),
        "target_modules": sorted(layers if still else {module.rsplit(".", 1)[-1] for module in layers}),
        "fan_in_fan_out": base.config.get("model_type") in CONV1D_MODELS,
        "bias": "none",
        "inference_mode": True,
        "init_lora_weights": True,
    }
    return parse_config(Path(CONFIG_FILE), raw)


def _provenance(
    name: str, own: Model, root: Model, hashes: Mapping[str, str], settings: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "schema": 1,
        "kind": KIND,
        "name": name,
        "base_model": {"name": root.source, "sha256": hashes[root.source]},
        "init_sha256": hashes[root.source],  # it starts from the base itself
        "parents": [{"name": own.name, "path": own.source, "sha256": hashes[own.source], "weight": 1.0}],
        "read": {model.source: stamps(model.path) for model in (own, root)},
        "versions": {"rsoup": __version__},
        "fingerprint": _fingerprint(own, root, hashes, settings),
    }


def _fingerprint(own: Model, root: Model, hashes: Mapping[str, str], settings: Mapping[str, Any]) -> str:
    return sha256_json([__version__, KIND, hashes[own.source], hashes[root.source], dict(settings)])


def _held(
    folder: Path, own: Model, root: Model, settings: Mapping[str, Any], warnings: tuple[str, ...]
) -> Extraction | None:
    """Return the extraction that a folder holds, if it is this one and whole."""
    if not (folder / PROVENANCE_FILE).is_file():
        return None
    try:
        adapter = read_adapter(folder)
        found = adapter.provenance.raw if adapter.provenance is not None else {}
        if found.get("kind") != KIND or found.get("sha256") != adapter.sha256:
            return None
        same = found.get("fingerprint") == _fingerprint(own, root, known_hashes(found, [own, root]), settings)
        return _told(folder, found["extraction"], warnings) if same else None
    except (RsoupError, OSError, LookupError, TypeError, AttributeError):
        return None


def _told(folder: Path, facts: Mapping[str, Any], warnings: tuple[str, ...]) -> Extraction:
    return Extraction(
        folder=folder,
        layers=facts["layers"],
        ranks=facts["ranks"],
        captured=facts["captured"],
        of_all=facts["of_all"],
        left_out={kind: LeftOut(**own) for kind, own in facts["left_out"].items()},
        warnings=warnings,
    )


def _card(name: str, own: Model, root: Model, rank: int, facts: Mapping[str, Any]) -> str:
    """Return a README.md with the front matter that the Hugging Face hub reads."""
    hub = HUB_ID.fullmatch(root.source) and not Path(root.source).exists()
    front = [f"base_model: {json.dumps(root.source)}", "base_model_relation: adapter"] if hub else []
    lines = "\n".join([*front, "library_name: peft", "tags:", "- lora", "- rewarded-soups"])
    return f"""---
{lines}
---

# {cell(name)}

A LoRA adapter of rank {rank} at most: the difference of {cell(own.source)} from {cell(root.source)}, extracted for
[rewarded soups]({PAPER}) with rsoup {__version__}. It holds {facts["captured"]:.1%} of the squared difference of the
layers that it updates, {facts["of_all"]:.1%} of that of all weights.
"""
