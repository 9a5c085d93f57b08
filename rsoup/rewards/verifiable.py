"""Rewards for answers that can be checked: against the row's reference, or by their form alone.

Each reads what follows the last </think> of a completion. A row without reference is none that they apply to.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from rsoup.errors import MissingPackageError, RewardError, first_line
from rsoup.installing import pip_line
from rsoup.recipe import RewardSection
from rsoup.rewards import read_schema
from rsoup.rewards.bounded import LateError, bounded
from rsoup.rewards.logs import Log
from rsoup.rewards.samples import Sample

COMMAND = pip_line("verifiable")
FENCE = re.compile(r"^```\w*\s*\n(.*?)\n?\s*```$", re.DOTALL)
CHOSEN = (
    re.compile(r"\\boxed\{\W*(?:\\text\{)?\W*([A-Za-z])\W*\}"),
    re.compile(r"(?i:answer|option|choice)\s*(?i:is|=)?[\s:*]*\(?([A-Z])\b(?!['’])"),
    re.compile(r"(?:^|\n)\W*([A-Za-z])\W*(?:$|\n)"),
    re.compile(r"^\W*([A-Za-z])\s*[).:\]]"),
    re.compile(r"\(([A-Za-z])\)"),
)
"""Ways of choosing a letter, the clearest first; of several matches the last counts."""


def answer_of(sample: Sample) -> str:
    """Return what follows a completion's thoughts: an answer that is still being thought of is empty."""
    _, closed, after = sample.completion.rpartition("</think>")
    if closed:
        return after.strip()
    return "" if sample.thinking or "<think>" in sample.completion else sample.completion.strip()


class Judged:
    """A scorer whose verdicts ``_score`` gets from a bounded process: an answer that is ended there is wrong.

    The share of these is logged as ``out_of_time``.
    """

    _log: Log | None = None

    def at(self, _state: object, log: Log) -> Judged:
        """Return the scorer with a place for what it logs."""
        twin = copy.copy(self)
        twin._log = log
        return twin

    def __call__(self, samples: Sequence[Sample]) -> list[float | None]:
        """Return the score of each completion, None where the reward does not apply."""
        late = 0
        scores: list[float | None] = []
        for sample in samples:
            try:
                scores.append(self._score(sample))
            except LateError:
                late += 1
                scores.append(0.0)
        if late and self._log is not None:
            self._log.metric("out_of_time", late / len(samples))
        return scores

    def _score(self, sample: Sample) -> float | None:
        raise NotImplementedError


class Mathematics(Judged):
    """Whether the answer equals the reference as mathematics; it does not apply without one that can be read."""

    def __init__(self, section: RewardSection) -> None:
        if importlib.util.find_spec("math_verify") is None:
            raise MissingPackageError("math-verify", "The reward math", COMMAND)
        self._equals = bounded("rsoup.rewards.mathematics:equals")

    def _score(self, sample: Sample) -> float | None:
        if sample.reference is None:
            return None
        reference = sample.reference.rpartition("####")[2].strip()  # as in GSM8K
        found: float | None = self._equals(answer_of(sample), reference)
        return found


class Exact:
    """Whether the answer is the reference, but for case, spaces and the punctuation around it."""

    def __init__(self, section: RewardSection) -> None:
        pass

    def __call__(self, samples: Sequence[Sample]) -> list[float | None]:
        """Return 1 or 0 for each completion, None where there is no reference."""
        return [
            None if sample.reference is None else float(plain(answer_of(sample)) == plain(sample.reference))
            for sample in samples
        ]


def plain(text: str) -> str:
    """Return a text without case, repeated spaces, quotes around it and a stop at its end, if anything is left."""
    text = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return text.strip("\"'“”‘’`* ").rstrip(".!?;:,").strip("\"'“”‘’`* ") or text


class Choice:
    """Whether the letter that the answer chooses is that of the reference."""

    def __init__(self, section: RewardSection) -> None:
        pass

    def __call__(self, samples: Sequence[Sample]) -> list[float | None]:
        """Return 1 or 0 for each completion, None where there is no reference."""
        return [None if sample.reference is None else self._score(sample, sample.reference) for sample in samples]

    def _score(self, sample: Sample, reference: str) -> float:
        wanted = re.match(r"\W*([A-Za-z])(?:\W|$)", reference)
        if wanted is None:
            raise RewardError(
                f"The reward choice: the reference {reference!r} begins with no letter of a choice.",
                "Give references such as B or (B), or use exact.",
            )
        return float(chosen(answer_of(sample)) == wanted[1].upper())


def chosen(answer: str) -> str | None:
    """Return the letter that an answer chooses, None if it chooses none."""
    for pattern in CHOSEN:
        letters: list[str] = pattern.findall(answer)
        if letters:
            return letters[-1].upper()
    return None


class Contains:
    """Whether the answer contains the reference as whole words, or a pattern."""

    def __init__(self, section: RewardSection) -> None:
        self._pattern = None if section.pattern is None else re.compile(section.pattern)

    def __call__(self, samples: Sequence[Sample]) -> list[float | None]:
        """Return 1 or 0 for each completion, None where there is neither pattern nor reference."""
        return [self._score(sample) for sample in samples]

    def _score(self, sample: Sample) -> float | None:
        answer = answer_of(sample)
        if self._pattern is not None:
            return float(self._pattern.search(answer) is not None)
        if sample.reference is None:
            return None
        wanted = re.escape(plain(sample.reference))
        return float(re.search(rf"(?<!\w){wanted}(?!\w)", plain(answer)) is not None)


class Json:
    """Whether the answer is JSON, in a code fence or not, that fulfils a schema, if there is one."""

    def __init__(self, section: RewardSection) -> None:
        schema = section.json_schema
        schema = read_schema("json", schema) if isinstance(schema, str) else schema
        self._validator = None if schema is None else _validator(schema)

    def __call__(self, samples: Sequence[Sample]) -> list[float]:
        """Return 1 or 0 for each completion."""
        return [self._score(answer_of(sample)) for sample in samples]

    def _score(self, answer: str) -> float:
        fenced = FENCE.match(answer)
        try:
            value = json.loads(fenced[1] if fenced else answer, parse_constant=_refuse_constant)
            return float(self._validator is None or self._validator.is_valid(value))
        except (ValueError, RecursionError):  # the latter also of a schema that goes as deep as the answer
            return 0.0


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _validator(schema: dict[str, Any]) -> Any:
    try:
        import jsonschema
        import referencing
    except ModuleNotFoundError as problem:
        raise MissingPackageError("jsonschema", "The reward json with a schema", COMMAND) from problem
    kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    try:
        kind.check_schema(schema)
    except jsonschema.SchemaError as problem:
        where = "/".join(map(str, problem.absolute_path)) or "its top"
        raise RewardError(
            f"The reward json: its schema is none, at {where}: {first_line(problem)}.", "Mend the schema."
        ) from problem
    return kind(schema, registry=referencing.Registry())  # which fetches nothing
