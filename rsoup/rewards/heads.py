"""The numbers that a reward model returns for a text, and those that a recipe's format picks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from rsoup.errors import RewardError, did_you_mean
from rsoup.rewards import WEIGHTED

WIDEST = 64
"""Outputs with more numbers for a text than this are embeddings, not scores, unless each has a label."""


@dataclass(frozen=True)
class Outputs:
    """What a model returns for a text, side by side, the logits first.

    ``names`` are those of the columns; ``known`` has all names to pick one by, ``unclear`` those that stand for two,
    with why; ``shape`` says what the model returned.
    """

    fields: tuple[str, ...]
    names: tuple[str, ...]
    known: Mapping[str, int]
    unclear: Mapping[str, str]
    shape: str

    @property
    def heads(self) -> tuple[str, ...]:
        """The names of the logits alone."""
        return tuple(name for column, name in enumerate(self.names) if self.known.get(f"logits.{column}") == column)

    def values(self, output: Mapping[str, Any]) -> torch.Tensor:
        """Return the columns of a model's output: float32 (n, columns), on the CPU."""
        columns = [output[field].float().cpu() for field in self.fields]
        return torch.cat([column.reshape(len(column), -1) for column in columns], 1)


def describe_outputs(output: Mapping[str, Any], rows: int, labels: Mapping[int, str]) -> Outputs:
    """Return what a model's output for ``rows`` texts holds; ``labels`` are the names of its configuration.

    ValueError if it holds no scores of whole texts.
    """
    tensors = {key: value for key, value in output.items() if isinstance(value, torch.Tensor) and value.ndim}
    shapes = {key: "(n," + ",".join(f" {size}" for size in value.shape[1:]) + ")" for key, value in tensors.items()}
    shape = ", ".join(f"{key} {shapes[key]}" for key in tensors)
    widest = {"logits": max(WIDEST, len(labels))}
    fields = sorted(
        (key for key in tensors if _is_score(tensors[key], rows, widest.get(key, WIDEST))),
        key=lambda key: key != "logits",
    )
    if not fields or ("logits" in tensors and "logits" not in fields):
        raise ValueError(f"it returns {shape or 'no tensors'}, which is not one score, or a few, for each text")
    names: list[str] = []
    known: dict[str, int] = {}
    places: list[str] = []
    unclear: dict[str, str] = {}
    for field in fields:
        width = 1 if tensors[field].ndim == 1 else tensors[field].shape[1]
        own = labels if tensors[field].ndim == 2 and set(labels) == set(range(width)) else {}
        first = len(names)
        names += _shown(field, width, own)
        places += [f"{field}.{index}" for index in range(width)]
        for name, index in _ways_to_pick(field, width, own):
            column = known.setdefault(name, first + index)
            if column != first + index:
                unclear[name] = f"{name} may be {places[column]} or {places[first + index]}"
    return Outputs(tuple(fields), tuple(names), known, unclear, shape)


def _is_score(value: torch.Tensor, rows: int, widest: int) -> bool:
    fits = value.ndim == 1 or (value.ndim == 2 and 0 < value.shape[1] <= widest)
    return fits and value.is_floating_point() and len(value) == rows


def _shown(field: str, width: int, labels: Mapping[int, str]) -> list[str]:
    if field == "logits" and labels:
        return [labels[index] for index in range(width)]
    return [field] if width == 1 else [f"{field}.{index}" for index in range(width)]


def _ways_to_pick(field: str, width: int, labels: Mapping[int, str]) -> Iterator[tuple[str, int]]:
    """Yield each name of an output's columns: ``rewards.3``, ``rewards.label``; of the logits also the bare ones."""
    if width == 1:
        yield field, 0
    for index in range(width):
        yield f"{field}.{index}", index
    if field != "logits":
        yield from ((f"{field}.{label}", index) for index, label in labels.items() if not label.isdigit())
    else:
        yield from ((label, index) for index, label in labels.items())
        yield from ((str(index), index) for index in range(width))


def parse_format(name: str, text: str, outputs: Outputs) -> list[tuple[int, int]]:
    """Return the columns that a format names, by label, index or output, with their signs.

    ``1-0`` is [(1, 1), (0, -1)]; ``rewards.3`` is the column 3 of the output rewards.
    """
    found = _parse(text, outputs.known)
    if found is None:
        hint = _nearest(text, outputs)
        if (match := WEIGHTED.fullmatch(text)) and _parse(match["format"], outputs.known):
            hint = f"A weight goes to morl: [{{{name}: {match['weight']}, ...}}], or to --format of rsoup morl."
        raise RewardError(
            f"The reward {name}: the format {text!r} names no label of the model, which returns {outputs.shape}.", hint
        )
    for part, _ in found:
        if part in outputs.unclear:
            raise RewardError(
                f"The reward {name}: the format {text!r} is not clear: {outputs.unclear[part]}.",
                "Write the one that is meant.",
            )
    return [(outputs.known[part], sign) for part, sign in found]


def _parse(text: str, known: Mapping[str, int]) -> list[tuple[str, int]] | None:
    """Return the names that a sum or difference consists of, with their signs; None if it has others."""
    if text in known:
        return [(text, 1)]
    for cut in (index for index, character in enumerate(text) if character in "+-"):  # a label may have a hyphen
        rest = text[cut + 1 :]
        if rest in known and (first := _parse(text[:cut], known)) is not None:
            return [*first, (rest, 1 if text[cut] == "+" else -1)]
    return None


def _nearest(text: str, outputs: Outputs) -> str:
    """Return the names that may have been meant: the same index of another output, else what is spelled alike."""
    same = [f"{field}.{text}" for field in outputs.fields if f"{field}.{text}" in outputs.known]
    if same:
        return f"Did you mean {' or '.join(same)}?"
    short = [name for name in outputs.known if not name.startswith("logits")]
    return did_you_mean(text, short if len(short) <= WIDEST else outputs.names)
