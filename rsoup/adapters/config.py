"""A PEFT adapter_config.json: its fields checked, its patterns resolved, what cannot be mixed refused by name."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from rsoup.adapters.kinds import refuse_other_folders, refuse_other_kinds, unknown_settings
from rsoup.errors import AdapterError, reason_of

CONFIG_FILE = "adapter_config.json"
_MAX_BYTES = 4 << 20
_MAX_PATTERN = 500
_FIX = f"Check {CONFIG_FILE} against the run that wrote it."

# The heads that PEFT trains whole for a task; its older versions did not write them into modules_to_save.
_HEADS_OF = {
    "SEQ_CLS": ("classifier", "score"),
    "TOKEN_CLS": ("classifier", "score"),
    "QUESTION_ANS": ("qa_outputs",),
}
HEADS = frozenset(name for names in _HEADS_OF.values() for name in names)

# The settings that a mix hands on; the others speak of training.
_CARRIED = (
    *("peft_type", "task_type", "auto_mapping", "base_model_name_or_path", "revision", "fan_in_fan_out"),
    *("modules_to_save", "lora_dropout", "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "target_parameters", "bias"),
    *("trainable_token_indices", "ensure_weight_tying"),
)
# Those that decide what the weights mean.
_DECIDING = (
    *("r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "fan_in_fan_out", "bias", "target_modules"),
    *("target_parameters", "modules_to_save", "trainable_token_indices"),
)
_EVERY_LINEAR = "all-linear"
_ENDS = ("lm_head", "embed_out", "embed_tokens", "wte", "shared", "word_embeddings", "embed_in")


@dataclass(frozen=True)
class AdapterConfig:
    """The fields of a LoRA configuration that decide its update; ``raw`` holds the file as it was read."""

    rank: int
    alpha: float
    rslora: bool
    rank_pattern: Mapping[str, float]
    alpha_pattern: Mapping[str, float]
    target_modules: tuple[str, ...] | str
    target_parameters: tuple[str, ...]
    modules_to_save: tuple[str, ...]
    token_indices: Mapping[str, tuple[int, ...]]
    trains_biases: bool
    fan_in_fan_out: bool
    base_model: str | None
    raw: Mapping[str, Any]
    warnings: tuple[str, ...] = ()

    @property
    def sha256(self) -> str:
        """A hash of what decides what the weights mean; where the base lies is not in it."""
        told = {key: self.raw[key] for key in _DECIDING if self.raw.get(key)}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    def rank_of(self, module: str) -> int:
        """Return the rank that the configuration gives a module."""
        return int(_by_pattern(self.rank_pattern, module, self.rank))

    def scale_of(self, module: str) -> float:
        """Return what multiplies B @ A: alpha / r, or alpha / sqrt(r) for rsLoRA (arXiv 2312.03732)."""
        rank = self.rank_of(module)
        return _by_pattern(self.alpha_pattern, module, self.alpha) / (math.sqrt(rank) if self.rslora else rank)

    def targets(self, module: str) -> bool:
        """Tell whether ``target_modules`` covers a module, by PEFT's rules; a pattern too costly to try covers all."""
        if isinstance(self.target_modules, str):
            pattern = self.target_modules
            covered = pattern == _EVERY_LINEAR or _too_costly(pattern) or re.fullmatch(pattern, module) is not None
        else:
            covered = _names(self.target_modules, module)
        return covered or self.targets_parameter(f"{module}.weight") or self._is_tied(module)

    def excludes(self, module: str) -> bool:
        """Tell whether ``exclude_modules`` or ``layers_to_transform`` takes a module out, by PEFT's rules."""
        out = self.raw.get("exclude_modules") or ()
        if isinstance(out, str):
            return not _too_costly(out) and re.fullmatch(out, module) is not None
        return _names(tuple(out), module) or self._is_of_another_layer(module)

    def _is_of_another_layer(self, module: str) -> bool:
        """Tell whether a module that the end of its name chose lies in a layer that was left alone."""
        layers, patterns = self.raw.get("layers_to_transform"), self.raw.get("layers_pattern") or ()
        if layers in (None, []) or isinstance(self.target_modules, str) or module in self.target_modules:
            return False
        patterns = [patterns] if isinstance(patterns, str) else patterns
        forms = [rf"(?:^|.*?\.){re.escape(own)}\.(\d+)\." for own in patterns] or [r".*?\.[^.]*\.(\d+)\."]
        found = next(filter(None, (re.match(form, module) for form in forms)), None)
        return found is None or int(found[1]) not in (layers if isinstance(layers, list) else [layers])

    def targets_parameter(self, parameter: str) -> bool:
        """Tell whether ``target_parameters`` covers a bare parameter."""
        return _names(self.target_parameters, parameter)

    def saves(self, tensor: str) -> bool:
        """Tell whether a tensor was trained whole: ``modules_to_save`` names the end of a module's name, as in PEFT."""
        parts = tensor.split(".")
        modules = [".".join(parts[:count]) for count in range(1, len(parts))]
        tied = bool(self.modules_to_save) and self._is_tied(tensor.removesuffix(".weight"))
        return tied or any(module.endswith(self.modules_to_save) for module in modules)

    def _is_tied(self, module: str) -> bool:
        """Tell whether PEFT trains an end of the model because it is tied to the other (``ensure_weight_tying``)."""
        return bool(self.raw.get("ensure_weight_tying")) and module.rpartition(".")[2] in _ENDS

    def tokens_of(self, module: str) -> tuple[int, ...]:
        """Return the token ids whose rows of an embedding were trained (``trainable_token_indices``)."""
        return next((ids for name, ids in self.token_indices.items() if module.endswith(name)), ())

    def changed(self, **changes: Any) -> AdapterConfig:
        """Return the configuration of an adapter made from this one, without what only training reads."""
        raw = {key: self.raw[key] for key in _CARRIED if key in self.raw} | changes
        raw |= {"inference_mode": True, "init_lora_weights": True}
        return parse_config(Path(CONFIG_FILE), raw)


def read_config(folder: Path) -> AdapterConfig:
    """Read and check the adapter_config.json of a folder."""
    path = folder / CONFIG_FILE
    return parse_config(path, _read_object(path))


def parse_config(path: Path, raw: dict[str, Any]) -> AdapterConfig:
    """Check a configuration; ``path`` names it in errors."""
    fields = _Fields(path, raw)
    refuse_other_kinds(path, raw)
    fields.check_carried()
    rank = fields.number("r", 8, whole=True)
    if not 1 <= rank <= 1 << 20:
        raise AdapterError(f"{path}: r is {rank:g}; a rank is at least 1.", _FIX)
    return AdapterConfig(
        rank=int(rank),
        alpha=fields.number("lora_alpha", 8),
        rslora=fields.flag("use_rslora"),
        rank_pattern=fields.patterns("rank_pattern", whole=True),
        alpha_pattern=fields.patterns("alpha_pattern"),
        target_modules=fields.targets(),
        target_parameters=fields.names("target_parameters"),
        modules_to_save=tuple(dict.fromkeys([*fields.names("modules_to_save"), *fields.heads()])),
        token_indices=fields.tokens(),
        trains_biases=fields.text("bias") not in (None, "none"),
        fan_in_fan_out=fields.flag("fan_in_fan_out"),
        base_model=fields.text("base_model_name_or_path"),
        raw=raw,
        warnings=unknown_settings(path, raw),
    )


def _names(ends: tuple[str, ...], name: str) -> bool:
    """Tell whether a list of names covers a name: it is one of them, or ends in one after a dot."""
    return any(name == end or name.endswith(f".{end}") for end in ends)


def _by_pattern(patterns: Mapping[str, float], module: str, default: float) -> float:
    """Return the value of the first pattern that matches the end of a module's name, as PEFT does."""
    return next((value for pattern, value in patterns.items() if _at_the_end(pattern).match(module)), default)


@lru_cache(maxsize=1 << 14)
def _at_the_end(pattern: str) -> re.Pattern[str]:
    """Return what matches a name that ends as a pattern says; re's own cache is smaller than a model has layers."""
    return re.compile(rf"(.*\.)?({pattern})$")


def _read_object(path: Path) -> dict[str, Any]:
    hint = "An adapter folder holds adapter_config.json and adapter_model.safetensors, as PEFT saves them."
    if not path.is_file():
        refuse_other_folders(path.parent)
        raise AdapterError(f"{path}: is not there, or is not a file.", hint)
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise AdapterError(f"{path}: is larger than {_MAX_BYTES >> 20} MB, too large for a configuration.", hint)
        raw = json.loads(path.read_text(encoding="utf-8"))
        json.dumps(raw, ensure_ascii=False).encode()  # fails on text that could not be written again
    except OSError as problem:
        raise AdapterError(f"{path}: cannot be read ({reason_of(problem)}).", "Check the rights.") from problem
    except (ValueError, RecursionError) as problem:
        raise AdapterError(f"{path}: is not valid JSON ({problem}).", _FIX) from problem
    if not isinstance(raw, dict):
        raise AdapterError(f"{path}: is not a JSON object.", _FIX)
    return raw


class _Fields:
    """Typed access to the fields of one file."""

    def __init__(self, path: Path, raw: dict[str, Any]) -> None:
        self.path = path
        self.raw = raw

    def wrong(self, key: str, expected: str) -> AdapterError:
        return AdapterError(f"{self.path}: {key} is {self.raw.get(key)!r:.80}; expected {expected}.", _FIX)

    def number(self, key: str, default: float, *, whole: bool = False) -> float:
        value = self.raw.get(key, default)
        if not _is_number(value, whole=whole):
            raise self.wrong(key, "a whole number" if whole else "a finite number")
        return float(value)

    def flag(self, key: str) -> bool:
        value = self.raw.get(key)
        if value is not None and not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return bool(value)

    def text(self, key: str) -> str | None:
        value = self.raw.get(key)
        if value is not None and not (isinstance(value, str) and value.isprintable()):
            raise self.wrong(key, "a string or null")
        return value or None

    def names(self, key: str) -> tuple[str, ...]:
        value = self.raw.get(key) or []
        if not isinstance(value, list) or not all(_is_name(name) for name in value):
            raise self.wrong(key, "a list of names")
        return tuple(value)

    def heads(self) -> tuple[str, ...]:
        return _HEADS_OF.get(self.text("task_type") or "", ())

    def check_carried(self) -> None:
        """Check the settings that are handed on without being used."""
        for key in ("peft_type", "task_type", "revision"):
            self.text(key)
        self.number("lora_dropout", 0.0)
        for key, item_type in (("exclude_modules", str), ("layers_pattern", str), ("layers_to_transform", int)):
            value = self.raw.get(key)
            items = value if isinstance(value, list) else [value]
            if value is not None and not all(isinstance(item, item_type) for item in items):
                raise self.wrong(key, f"{item_type.__name__} or a list of it")
        mapping = self.raw.get("auto_mapping") or {}
        if not isinstance(mapping, dict) or not all(_is_plain(item) for item in [*mapping, *mapping.values()]):
            raise self.wrong("auto_mapping", "names of classes, or switches")

    def tokens(self) -> dict[str, tuple[int, ...]]:
        """Return the token ids whose rows were trained, by the end of their embedding's name; "" stands for any."""
        value = self.raw.get("trainable_token_indices") or {}
        found = {"": value} if isinstance(value, list) else value
        if not isinstance(found, dict) or not all(_is_ids(ids) for ids in found.values()):
            raise self.wrong("trainable_token_indices", "token ids, or names with token ids")
        return {name: tuple(ids) for name, ids in found.items()}

    def targets(self) -> tuple[str, ...] | str:
        value = self.raw.get("target_modules")
        if isinstance(value, str) and _is_name(value):
            self._compile("target_modules", value)
            return value
        names = self.names("target_modules")
        if not names and not any(self.raw.get(key) for key in ("target_parameters", "trainable_token_indices")):
            raise self.wrong("target_modules", "a list of names or a pattern")
        return names

    def patterns(self, key: str, *, whole: bool = False) -> dict[str, float]:
        value = self.raw.get(key) or {}
        if not isinstance(value, dict) or not all(_is_number(item, whole=whole) for item in value.values()):
            raise self.wrong(key, "names with numbers")
        if whole and any(item < 1 for item in value.values()):
            raise self.wrong(key, "ranks of at least 1")
        for pattern in value:
            self._compile(key, pattern)
            if _too_costly(pattern):
                raise AdapterError(f"{self.path}: {key}: {pattern!r:.80} is too costly.", "List the modules by name.")
        return {pattern: float(item) for pattern, item in value.items()}

    def _compile(self, key: str, pattern: str) -> None:
        try:
            re.compile(pattern)
        except (re.error, RecursionError, OverflowError) as problem:
            raise AdapterError(f"{self.path}: {key}: {pattern!r:.80} is not a pattern ({problem}).", _FIX) from problem


def _too_costly(pattern: str) -> bool:
    """Tell whether matching a pattern could take long: repeated groups, or many repeats one after the other."""
    literal = re.sub(r"\\.", "", pattern)
    repeats = len(re.findall(r"[*+{]", literal))
    return repeats > 2 or re.search(r"\)[*+{]", literal) is not None or len(pattern) > _MAX_PATTERN


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value != "" and value.isprintable()


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int)) or _is_name(value)


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 1 << 31 for item in value)


def _is_number(value: Any, *, whole: bool) -> bool:
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        return False
    return abs(value) < 1 << 53 and math.isfinite(value)
