"""Which adapters may be mixed: the same base, the same start, and for ``factors`` the same shape of everything."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import combinations

from rsoup.adapters import Adapter
from rsoup.adapters.layers import TOKEN_ROWS
from rsoup.errors import AdapterError, see
from rsoup.files import weights_sha256
from rsoup.mixing.base import BaseModel
from rsoup.mixing.naming import aligned

_HASH = re.compile("[0-9a-f]{64}")
UNSURE_START = (
    "that the adapters share one could not be verified. If they do not, a mix of their factors may be worse than "
    "each of them (rsoup mix --check compares them; --method cat is exact)."
)
_EXACT = "Use --method cat (rsoup mix: or svd), which mixes the updates themselves."


def check_compatible(adapters: Sequence[Adapter], method: str, *, allow_different_starts: bool = False) -> list[str]:
    """Raise AdapterError if the adapters must not be mixed; return what could not be verified, as warnings."""
    warnings = [warning for adapter in adapters for warning in adapter.warnings]
    for one, other in combinations(adapters, 2):
        warnings += _check_base(one, other)
        if not allow_different_starts:
            _check_start(one, other)
        _check_shapes(one, other)
        if method == "factors":
            _check_factors(one, other)
    if len(adapters) > 1:
        warnings += unknown_starts(adapters)
    return list(dict.fromkeys(warnings))


def made_alike(
    adapters: Sequence[Adapter], method: str, *, allow_different_starts: bool = False
) -> tuple[tuple[Adapter, ...], list[str]]:
    """Return adapters with one name for each layer, and what could not be verified of them, as warnings.

    AdapterError if they must not be mixed by a method: whoever mixes adapters, in whatever way, asks here.
    """
    alike = aligned(adapters)
    if method == "factors":
        _refuse_two_forms(adapters, alike)
    return alike, check_compatible(alike, method, allow_different_starts=allow_different_starts)


def base_of(adapter: Adapter) -> tuple[str | None, str | None]:
    """Return the name and the SHA-256 of an adapter's base model, as far as they are known."""
    if adapter.provenance and adapter.provenance.base_name:
        return adapter.provenance.base_name, adapter.provenance.base_sha256
    return adapter.config.base_model, None


def compare_bases(adapters: Sequence[Adapter], base: BaseModel, given: str) -> list[str]:
    """Return warnings where a base model, ``given`` under a name, is not the one that adapters were trained on.

    Hashes decide where an adapter carries one, and names where it carries none. A copy of the base in another dtype
    has another hash, so this is no error.
    """
    names = {_last_part(given), _last_part(str(base.config.get("_name_or_path") or given)), base.folder.resolve().name}
    elsewhere: dict[tuple[str | None, str], list[str]] = {}
    unsure: dict[str, list[str]] = {}
    for adapter in adapters:
        name, sha256 = base_of(adapter)
        if sha256 and _HASH.fullmatch(sha256):
            if sha256 != weights_sha256(base.folder.resolve()):
                elsewhere.setdefault((name, sha256), []).append(_path(adapter))
        elif name and _last_part(name) not in names:
            unsure.setdefault(name, []).append(_path(adapter))
    warnings = [
        f"{_all(paths)} {_were(paths)} trained on {name} with other weights than {given} has "
        f"(sha256 {sha256[:12]}, here {weights_sha256(base.folder.resolve())[:12]}): "
        "right only if this is a copy in another dtype."
        for (name, sha256), paths in elsewhere.items()
    ]
    return warnings + [
        f"{_all(paths)} {_were(paths)} trained on {name}: that {given} is the same model could not be verified."
        for name, paths in unsure.items()
    ]


def start_of(adapter: Adapter) -> str | None:
    """Return the SHA-256 of the adapter that training started from, if it is known."""
    return adapter.provenance.init_sha256 if adapter.provenance else None


def _check_base(one: Adapter, other: Adapter) -> list[str]:
    (name, sha256), (other_name, other_sha256) = base_of(one), base_of(other)
    if sha256 and other_sha256:
        if sha256 != other_sha256:
            raise AdapterError(
                f"{_path(other)} was trained on a base with other weights than {_path(one)} "
                f"({other_name} {other_sha256[:12]}, {name} {sha256[:12]}).",
                "Mix adapters of one base model.",
            )
        return []
    if name is None or other_name is None:
        unnamed = one if name is None else other
        return [f"{_path(unnamed)} does not name its base model: that the bases are the same could not be verified."]
    if name.rstrip("/") != other_name.rstrip("/"):
        raise AdapterError(
            f"{_path(other)} was trained on {other_name}, {_path(one)} on {name}.",
            "Mix adapters of one base; if both names mean one, write the same base_model_name_or_path in both configs.",
        )
    revision, other_revision = (own.config.raw.get("revision") or "main" for own in (one, other))
    if revision != other_revision:
        return [
            f"{_path(other)} was trained on the revision {other_revision} of {name}, {_path(one)} on {revision}: that "
            "the bases are the same could not be verified."
        ]
    return []


def _check_start(one: Adapter, other: Adapter) -> None:
    start, other_start = start_of(one), start_of(other)
    if start and other_start and start != other_start:
        raise AdapterError(
            f"{_path(other)} and {_path(one)} started from different adapters (init_sha256 {other_start[:12]}, "
            f"{start[:12]}): their weights need not lie in one basin.",
            "Train both from one start, or allow it with --allow-different-starts."
            + see("started-from-different-adapters"),
        )


def unknown_starts(adapters: Sequence[Adapter]) -> list[str]:
    """Return the one warning about adapters of which it is not known where they began, if there are any."""
    paths = [_path(adapter) for adapter in adapters if start_of(adapter) is None]
    have = "has" if len(paths) == 1 else "have"
    return [f"{_all(paths)} {have} no rsoup.json with a start: {UNSURE_START}"] if paths else []


def _check_shapes(one: Adapter, other: Adapter) -> None:
    for module in sorted(one.layers.keys() & other.layers.keys()):
        layer, other_layer = one.layers[module], other.layers[module]
        if layer.shape != other_layer.shape or layer.kind != other_layer.kind:
            raise AdapterError(
                f"{_path(other)} updates {module} with shape {other_layer.shape}, {_path(one)} with {layer.shape}.",
                "Mix adapters of one base model.",
            )
        if layer.bare is not other_layer.bare and (one.config.fan_in_fan_out or other.config.fan_in_fan_out):
            bare, whole = (one, other) if layer.bare else (other, one)
            raise AdapterError(
                f"{_path(bare)} updates {module} as a parameter (target_parameters), {_path(whole)} as a layer, whose "
                "matrix may lie the other way (fan_in_fan_out).",
                "Train both in one way.",
            )
    counts = _expert_counts(one)
    for name, count in _expert_counts(other).items():
        if counts.get(name, count) != count:
            raise AdapterError(
                f"{_path(other)} updates {count} experts of {name}, {_path(one)} {counts[name]} (by their ranks in "
                "adapter_config.json).",
                "Mix adapters of one base model.",
            )
    for name in sorted(one.saved.keys() ^ other.saved.keys()):
        having, lacking = (one, other) if name in one.saved else (other, one)
        raise AdapterError(
            f"{_path(having)} holds the trained module {name}, and {_path(lacking)} does not.",
            "Trained modules (modules_to_save) are averaged only if every adapter has them.",
        )
    for name, array in one.saved.items():
        module, _, _ = name.partition(f".{TOKEN_ROWS}")
        if TOKEN_ROWS in name and one.config.tokens_of(module) != other.config.tokens_of(module):
            raise AdapterError(
                f"{_path(other)} and {_path(one)} train the rows of other tokens of {module}.",
                "Rows of tokens are averaged only if every adapter has them: an adapter holds no rows of the base.",
            )
        if array.shape != other.saved[name].shape:
            raise AdapterError(
                f"{_path(other)} holds {name} with shape {other.saved[name].shape}, {_path(one)} with {array.shape}.",
                "Trained modules (modules_to_save) are averaged only if their shapes agree.",
            )


def _expert_counts(adapter: Adapter) -> dict[str, int]:
    return {layer.place.name: layer.place.count for layer in adapter.layers.values() if layer.place}


def _check_factors(one: Adapter, other: Adapter) -> None:
    for adapter in (one, other):
        if adapter.provenance and adapter.provenance.kind == "extracted":
            raise AdapterError(
                f"{_path(adapter)} was extracted from a model: its factors are of a decomposition of its own, so that "
                "averages of them with others mean nothing.",
                _EXACT,
            )
    missing = one.layers.keys() ^ other.layers.keys()
    if missing:
        module = min(missing)
        having, lacking = (one, other) if module in one.layers else (other, one)
        raise AdapterError(f"{_path(having)} updates {module}, and {_path(lacking)} does not.", _EXACT)
    for module, layer in one.layers.items():
        other_layer = other.layers[module]
        if layer.rank != other_layer.rank:
            raise AdapterError(
                f"{_path(other)} has rank {other_layer.rank}, {_path(one)} rank {layer.rank} (at {module}).", _EXACT
            )
        if layer.scale != other_layer.scale:
            raise AdapterError(
                f"{_path(other)} scales {module} by {other_layer.scale:g}, {_path(one)} by {layer.scale:g} "
                "(lora_alpha and r): their factors are not on one scale.",
                _EXACT,
            )


def _refuse_two_forms(parents: Sequence[Adapter], alike: Sequence[Adapter]) -> None:
    """Refuse to average factors where those of experts had to be brought into another form."""

    def is_stacked(adapter: Adapter) -> bool:
        return any(layer.place for layer in adapter.layers.values())

    for parent, own in zip(parents, alike, strict=True):
        if is_stacked(own) and not is_stacked(parent):
            other = next(filter(is_stacked, parents))
            raise AdapterError(
                f"{parent.path or parent.name} names each expert, and {other.path or other.name} trains the experts of "
                "a layer as one parameter (target_parameters): their factors are of different shapes.",
                _EXACT,
            )


def _last_part(name: str) -> str:
    return name.rstrip("/").rsplit("/", 1)[-1]


def _path(adapter: Adapter) -> str:
    return str(adapter.path or adapter.name)


def _all(paths: Sequence[str]) -> str:
    return ", ".join(paths[:-1]) + f" and {paths[-1]}" if len(paths) > 1 else paths[0]


def _were(paths: Sequence[str]) -> str:
    return "was" if len(paths) == 1 else "were"
