"""What else tells models apart than their tensors: settings, vocabularies, and the files beside the weights."""

from __future__ import annotations

import filecmp
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rsoup.errors import ModelError
from rsoup.mixing.checkpoints.models import Model

_SHAPES = (
    *("model_type", "architectures", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "head_dim", "n_embd", "n_inner", "n_layer", "n_head", "d_model", "layer_types"),
    *("num_experts", "num_local_experts", "n_routed_experts", "num_experts_per_tok", "moe_intermediate_size"),
)
"""Settings that decide what a tensor's numbers mean."""
_OF_NO_MATTER = (
    *("_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache", "vocab_size", "auto_map"),
    *("bos_token_id", "eos_token_id", "pad_token_id", "tie_word_embeddings", "_attn_implementation"),
)
"""Settings that decide nothing in a mix, or that are looked at elsewhere."""
_PARTS = ("text_config", "vision_config", "audio_config")
_BESIDE = (
    *("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt", "tokenizer_config.json", "added_tokens.json"),
    *("special_tokens_map.json", "chat_template.jinja", "chat_template.json", "generation_config.json"),
)
_UNIMPORTANT = {"transformers_version", "_from_model_config", "name_or_path"}
_MAX_JSON = 64 << 20
_RENAMED = 0.01
"""The share of tokens that may have other names, as reserved ones get, before two vocabularies count as different."""


def compare_models(first: Model, others: Sequence[Model], base: Model | None) -> list[str]:
    """Raise ModelError where models are not of one kind; return what differs and does not forbid a mix, as warnings."""
    warnings: list[str] = []
    for model in [*others, *([base] if base else [])]:
        warnings += _compare_configs(first, model)
        warnings += _compare_vocabularies(first, model)
        if model is not base:
            warnings += _compare_files(first, model)
    return warnings


def _compare_configs(first: Model, other: Model) -> list[str]:
    one, two = dict(_settings(first.config)), dict(_settings(other.config))
    differing: list[str] = []
    for key in dict.fromkeys([*one, *two]):
        mine, theirs = one.get(key), two.get(key)
        last = key.rsplit(".", 1)[-1]
        if last in _OF_NO_MATTER or mine == theirs:
            continue
        if last in _SHAPES and mine is not None and theirs is not None:
            raise ModelError(
                f"{other.source} has {key} {_shown(theirs)}, {first.source} {_shown(mine)}: their weights do not "
                "correspond.",
                "Mix models of one architecture, made from one base.",
            )
        if last not in _SHAPES:
            differing.append(f"{key} ({_shown(theirs)} against {_shown(mine)})")
    if not differing:
        return []
    more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
    return [
        f"the config.json of {other.source} differs in {', '.join(differing[:3])}{more}: {first.source}'s is taken."
    ]


def _settings(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the settings of a configuration, those of its parts by dotted names."""
    for key, value in config.items():
        if key in _PARTS and isinstance(value, dict):
            yield from ((f"{key}.{name}", own) for name, own in value.items())
        else:
            yield key, value


def _compare_vocabularies(first: Model, other: Model) -> list[str]:
    if any(_are_equal(first.path / name, other.path / name) for name in ("tokenizer.json", "vocab.json")):
        return []
    mine, theirs = _vocabulary(first), _vocabulary(other)
    shared = mine.keys() & theirs.keys()
    renamed = sorted(number for number in shared if mine[number] != theirs[number])
    if not renamed:
        return []
    example = f"{renamed[0]} is {theirs[renamed[0]]!r:.40} there and {mine[renamed[0]]!r:.40} in {first.source}"
    told = (
        f"{other.source} has other tokens at {len(renamed):,} of {len(shared):,} places of its vocabulary ({example})"
    )
    if len(renamed) > _RENAMED * len(shared):
        raise ModelError(
            f"{told}: rows of the embeddings that mean different tokens would be mixed.",
            "Mix models with one tokenizer.",
        )
    return [f"{told}: the tokenizer of {first.source} is taken."]


def _vocabulary(model: Model) -> dict[int, str]:
    """Return the token at each place, as far as the tokenizer's files say; nothing where they cannot be read."""
    content = _json(model.path / "tokenizer.json")
    tokens: dict[int, str] = {}
    if isinstance(content, dict):
        inner = content.get("model")
        entries = inner.get("vocab") if isinstance(inner, dict) else None
        tokens |= _numbered(entries)
        added = content.get("added_tokens")
        for entry in added if isinstance(added, list) else []:
            if isinstance(entry, dict) and isinstance(entry.get("id"), int) and isinstance(entry.get("content"), str):
                tokens[entry["id"]] = entry["content"]
        return tokens
    return _numbered(_json(model.path / "vocab.json"))


def _numbered(entries: Any) -> dict[int, str]:
    """Return tokens by their numbers from a mapping of tokens to numbers, or a list of tokens and their scores."""
    if isinstance(entries, dict):
        return {number: token for token, number in entries.items() if isinstance(number, int)}
    if isinstance(entries, list):
        pairs = enumerate(entries)
        return {number: entry[0] for number, entry in pairs if isinstance(entry, list) and entry}
    return {}


def _compare_files(first: Model, other: Model) -> list[str]:
    found = [told for name in _BESIDE if (told := _compare_file(first.path / name, other.path / name))]
    if not found:
        return []
    return [f"{other.source} differs from {first.source} in {', '.join(found)}: those of {first.source} are taken."]


def _compare_file(one: Path, other: Path) -> str | None:
    """Return the name of a file that differs, with the keys of a JSON object that do; None for files that agree."""
    if one.is_file() != other.is_file():
        return f"{one.name} ({'missing' if one.is_file() else 'only'} there)"
    if not one.is_file() or _are_equal(one, other):
        return None
    mine, theirs = (_json(path) if one.suffix == ".json" else None for path in (one, other))
    if not isinstance(mine, dict) or not isinstance(theirs, dict):
        return one.name
    keys = [key for key in dict.fromkeys([*mine, *theirs]) if mine.get(key) != theirs.get(key)]
    keys = [key for key in keys if key not in _UNIMPORTANT]
    if not keys:
        return None
    return f"{one.name} ({', '.join(f'{key:.40}' for key in keys[:4])}{', ...' if len(keys) > 4 else ''})"


def _are_equal(one: Path, other: Path) -> bool:
    """Tell whether two files are there and hold the same bytes."""
    return one.is_file() and other.is_file() and filecmp.cmp(one, other, shallow=False)


def _json(path: Path) -> Any:
    try:
        if path.stat().st_size > _MAX_JSON:
            return None
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def _shown(value: Any) -> str:
    return f"{json.dumps(value):.40}"
