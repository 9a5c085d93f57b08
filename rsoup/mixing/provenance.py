"""What a mix says of its own origin: in rsoup.json, in the safetensors header, in the model card."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rsoup import __version__
from rsoup.adapters import Adapter
from rsoup.files import sha256_json
from rsoup.mixing.compatibility import base_of, start_of
from rsoup.mixing.soup import Soup

PAPER = "https://arxiv.org/abs/2306.04488"
HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_PIPELINES = {"CAUSAL_LM": "text-generation", "SEQ_CLS": "text-classification", "TOKEN_CLS": "token-classification"}


def provenance(soup: Soup, name: str) -> dict[str, Any]:
    """Return the content of a soup's rsoup.json, but for the sha256 of its weights."""
    base_name, base_sha256 = max((base_of(parent) for parent in soup.parents), key=lambda base: base[1] is not None)
    return {
        "schema": 1,
        "kind": "soup",
        "name": name,
        "base_model": {"name": base_name, "sha256": base_sha256},
        "init_sha256": _shared_start(soup.parents),
        "parents": _parents(soup),
        **_settings(soup),
        **({"discarded": dict(soup.discarded)} if soup.discarded else {}),
        "versions": {"rsoup": __version__},
        "fingerprint": fingerprint(soup),
    }


def fingerprint(soup: Soup) -> str:
    """Return a hash of everything that decides a soup; equal fingerprints mean equal results."""
    dtypes = sorted({array.dtype.name for array in soup.adapter.tensors().values()})
    parents = [[parent.identity, weight] for parent, weight in zip(soup.parents, soup.weights, strict=True)]
    known: dict[str, str] = {name: own for parent in soup.parents for name, own in parent.companions.items()}
    files = {name: known.get(name) for name in soup.companions}
    content = {"parents": parents, "dtypes": dtypes, "version": __version__, **({"files": files} if files else {})}
    return sha256_json({**content, **_settings(soup)})


def header_metadata(soup: Soup) -> dict[str, str]:
    """Return what a safetensors header says of a soup."""
    content = {"version": __version__, "parents": _parents(soup), **_settings(soup)}
    return {"rsoup": json.dumps(content, ensure_ascii=True)}


def model_card(soup: Soup, name: str, *, merged_into: str | None = None) -> str:
    """Return a README.md with the front matter that the Hugging Face hub reads."""
    base = merged_into or base_of(soup.parents[0])[0]
    rows = "\n".join(
        f"| {cell(parent.name)} | {weight:g} | `{(parent.sha256 or 'in memory')[:16]}` |"
        for parent, weight in zip(soup.parents, soup.weights, strict=True)
    )
    if soup.base_weight:
        rows += f"\n| (no adapter) | {soup.base_weight:g} | |"
    what = "A language model with a mixed LoRA adapter merged in" if merged_into else "A LoRA adapter mixed from others"
    return f"""---
{_front_matter(soup, base, merged=merged_into is not None)}
---

# {cell(name)}

{what} by [rewarded soups]({PAPER}), with rsoup {__version__}.

| adapter | weight | sha256 |
|---|---|---|
{rows}

Base model: {cell(base or "not named")}. Method: `{soup.method}`{_options_text(soup)}.{_discarded_text(soup)}
"""


def _parents(soup: Soup) -> list[dict[str, Any]]:
    return [
        {"name": parent.name, "path": str(parent.path or ""), "sha256": parent.sha256, "weight": weight}
        for parent, weight in zip(soup.parents, soup.weights, strict=True)
    ]


def _settings(soup: Soup) -> dict[str, Any]:
    options = {key: value for key, value in dataclasses.asdict(soup.options).items() if value is not None}
    return {"method": soup.method, "base_weight": soup.base_weight, "options": options}


def _shared_start(parents: Sequence[Adapter]) -> str | None:
    starts = {start_of(parent) for parent in parents}
    return starts.pop() if len(starts) == 1 else None


def _front_matter(soup: Soup, base: str | None, *, merged: bool) -> str:
    """Return YAML; every value is a JSON string, which YAML reads as it is."""
    lines = []
    if base and HUB_ID.fullmatch(base) and not Path(base).exists():
        lines += [f"base_model: {json.dumps(base)}", f"base_model_relation: {'merge' if merged else 'adapter'}"]
    lines.append(f"library_name: {'transformers' if merged else 'peft'}")
    pipeline = _PIPELINES.get(str(soup.adapter.config.raw.get("task_type")))
    if pipeline:
        lines.append(f"pipeline_tag: {pipeline}")
    return "\n".join([*lines, "tags:", "- lora", "- merge", "- rewarded-soups", "- rlhf"])


def _options_text(soup: Soup) -> str:
    options = _settings(soup)["options"]
    return "".join(f", {key} {value:g}" for key, value in options.items() if key != "seed" or soup.method == "dare")


def _discarded_text(soup: Soup) -> str:
    if not soup.discarded:
        return ""
    return f" The cut to a rank leaves out at most {max(soup.discarded.values()):.2%} of an update's energy."


def cell(text: str) -> str:
    """Return text that cannot leave its table cell or become markup."""
    return re.sub(r"[^\w./ @+=:-]", "_", text)
