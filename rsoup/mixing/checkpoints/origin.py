"""What a mixed model says of its own origin: in rsoup.json, in the headers of its shards, in the model card."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rsoup import __version__
from rsoup.adapters.reading import PROVENANCE_FILE
from rsoup.errors import RsoupError
from rsoup.files import read_json, sha256_file, sha256_json
from rsoup.mixing.checkpoints.mixture import Mixture
from rsoup.mixing.checkpoints.models import Model
from rsoup.mixing.parallel import parallel
from rsoup.mixing.provenance import HUB_ID, PAPER, cell

KIND = "model-soup"
Stamps = dict[str, list[int]]


def provenance(mixture: Mixture, name: str, written: Path) -> dict[str, Any]:
    """Return the content of a mixed model's rsoup.json; ``written`` is the folder that holds it already."""
    hashes = hash_all(mixture.ingredients)
    base = mixture.base
    return {
        "schema": 1,
        "kind": KIND,
        "name": name,
        "parents": [
            {"name": model.name, "path": model.source, "sha256": hashes[model.source], "weight": weight}
            for model, weight in zip(mixture.models, mixture.weights, strict=True)
        ],
        **({"base_model": {"name": base.source, "sha256": hashes[base.source]}} if base else {}),
        **_settings(mixture),
        "versions": {"rsoup": __version__},
        "fingerprint": fingerprint(mixture, hashes),
        "read": {model.source: stamps(model.path) for model in mixture.ingredients},
        "files": stamps(written),
    }


def hash_all(ingredients: Sequence[Model]) -> dict[str, str]:
    """Return the hash of each model's weights by what the user calls it."""
    models = list({model.source: model for model in ingredients}.values())
    hashes = parallel(lambda model: model.sha256, models)
    return {model.source: sha256 for model, sha256 in zip(models, hashes, strict=True)}


def fingerprint(mixture: Mixture, hashes: Mapping[str, str]) -> str:
    """Return a hash of everything that decides a mixed model's files; equal fingerprints mean equal results."""
    parents = [[hashes[model.source], weight] for model, weight in zip(mixture.models, mixture.weights, strict=True)]
    base = hashes[mixture.base.source] if mixture.base else None
    beside = [[name, sha256_file(path)] for name, path in mixture.models[0].companions().items()]
    return sha256_json([__version__, parents, base, beside, _settings(mixture)])


def is_held(folder: Path, mixture: Mixture) -> bool:
    """Tell whether a folder holds exactly this mix, whole, by the sizes and times of its files.

    Ingredients whose files have not changed since are not hashed again.
    """
    if not (folder / PROVENANCE_FILE).is_file():
        return False
    try:
        found = read_json(folder / PROVENANCE_FILE, schema=1, what="a model's provenance", error=RsoupError)
        if found.get("kind") != KIND or found.get("files") != stamps(folder):
            return False
        return bool(found.get("fingerprint") == fingerprint(mixture, known_hashes(found, mixture.ingredients)))
    except (RsoupError, OSError):
        return False


def stamps(folder: Path) -> Stamps:
    """Return what tells the files of a folder apart without reading them: size, time of change, inode."""
    paths = [path for path in sorted(folder.iterdir()) if path.is_file() and path.name != PROVENANCE_FILE]
    stats = {path.name: path.stat() for path in paths}
    return {name: [own.st_size, own.st_mtime_ns, own.st_ino] for name, own in stats.items()}


def header_metadata(mixture: Mixture) -> dict[str, str]:
    """Return what the headers of the shards say."""
    parents = [
        {"name": model.name, "path": model.source, "weight": weight}
        for model, weight in zip(mixture.models, mixture.weights, strict=True)
    ]
    content = {"version": __version__, "parents": parents, **_settings(mixture)}
    return {"format": "pt", "rsoup": json.dumps(content, ensure_ascii=True)}


def model_card(mixture: Mixture, name: str) -> str:
    """Return a README.md with the front matter that the Hugging Face hub reads."""
    ingredients = [*zip(mixture.models, mixture.weights, strict=True)]
    rows = "\n".join(f"| {cell(model.source)} | {weight:g} |" for model, weight in ingredients)
    if mixture.base:
        own = f"{mixture.base_weight:g}" if mixture.method == "linear" else "(base)"
        rows += f"\n| {cell(mixture.base.source)} | {own} |"
    options = "".join(
        f", {key} {value:g}"
        for key, value in _settings(mixture)["options"].items()
        if key != "seed" or mixture.method == "dare"
    )
    return f"""---
{_front_matter(mixture)}
---

# {cell(name)}

A language model whose weights are mixed from other models' by [rewarded soups]({PAPER}), with rsoup {__version__}.
Configuration and tokenizer are those of the first.

| model | weight |
|---|---|
{rows}

Method: `{mixture.method}`{options}.
"""


def _front_matter(mixture: Mixture) -> str:
    """Return YAML; every value is a JSON string, which YAML reads as it is."""
    hub = [m.source for m in mixture.ingredients if HUB_ID.fullmatch(m.source) and not Path(m.source).exists()]
    lines = [f"base_model: {json.dumps(hub)}", "base_model_relation: merge"] if hub else []
    lines.append("library_name: transformers")
    architectures = mixture.models[0].config.get("architectures")
    if isinstance(architectures, list) and any(str(name).endswith("ForCausalLM") for name in architectures):
        lines.append("pipeline_tag: text-generation")
    return "\n".join([*lines, "tags:", "- merge", "- rewarded-soups"])


def _settings(mixture: Mixture) -> dict[str, Any]:
    options = {key: value for key, value in dataclasses.asdict(mixture.options).items() if value is not None}
    settings: dict[str, Any] = {
        "method": mixture.method,
        "base_weight": mixture.base_weight,
        "options": options,
        "dtype": mixture.dtype,
    }
    return {**settings, **({"common_vocabulary": True} if mixture.common_vocabulary else {})}


def known_hashes(found: Mapping[str, Any], models: Sequence[Model]) -> dict[str, str]:
    """Return the hash of each model's weights: as a provenance names it, if its files have not changed since."""
    parents, base, read = found.get("parents"), found.get("base_model"), found.get("read")
    entries = [(own.get("path"), own.get("sha256")) for own in parents if isinstance(own, dict)] if parents else []
    if isinstance(base, dict):
        entries.append((base.get("name"), base.get("sha256")))
    known = {path: sha256 for path, sha256 in entries if isinstance(path, str) and isinstance(sha256, str)}
    hashes = {}
    for model in models:
        kept = isinstance(read, dict) and read.get(model.source) == stamps(model.path) and model.source in known
        hashes[model.source] = known[model.source] if kept else model.sha256
    return hashes
