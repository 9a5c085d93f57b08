"""What a report is asked for, and how the flags of the command line say it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rsoup.errors import ResultsError, did_you_mean
from rsoup.harness.metrics import LARGEST
from rsoup.report.checks import Condition, conditions
from rsoup.report.clicks import Clicks, read_clicks

MOST_DRAWS = 100_000
SAID = {"--objective": "tokens=completion_tokens", "--where": "dataset=news"}
"""What a flag takes, for an example; of the others a number for a reward."""


@dataclass(frozen=True)
class Options:
    """Everything one may ask of a report."""

    reference: Mapping[str, float] = field(default_factory=dict)
    prefer: tuple[Mapping[str, float], ...] = ()
    at_least: Mapping[str, float] = field(default_factory=dict)
    at_most: Mapping[str, float] = field(default_factory=dict)
    knee: bool = False
    clicks: Clicks | None = None  # choices made by looking
    fail_if: tuple[Condition, ...] = ()
    objectives: Mapping[str, str] = field(default_factory=dict)  # reward name -> LABEL, -LABEL or LABEL1-LABEL2
    minimize: tuple[str, ...] = ()  # rewards of which lower scores are better
    where: Mapping[str, str] = field(default_factory=dict)  # CSV column -> value of the rows to keep
    draws: int = 2000
    seed: int = 0

    @classmethod
    def from_flags(
        cls,
        *,
        reference: Iterable[str] = (),
        prefer: Iterable[str] = (),
        at_least: Iterable[str] = (),
        at_most: Iterable[str] = (),
        minimize: Iterable[str] = (),
        knee: bool = False,
        choices: Path | None = None,
        fail_if: Iterable[str] = (),
        objective: Iterable[str] = (),
        where: Iterable[str] = (),
        bootstrap: int = 2000,
        seed: int = 0,
    ) -> Options:
        """Return the options that the texts given to the flags stand for."""
        if bootstrap < 100:
            raise ResultsError(f"--bootstrap {bootstrap}: too few draws for an interval.", "Give at least 100.")
        if bootstrap > MOST_DRAWS:
            raise ResultsError(f"--bootstrap {bootstrap}: too many draws.", f"Give at most {MOST_DRAWS}.")
        if seed < 0:
            raise ResultsError(f"--seed {seed}: a seed is not negative.", "Give 0 or more.")
        return cls(
            reference=numbers("--reference", reference),
            prefer=tuple(_preference(text) for text in prefer),
            at_least=numbers("--at-least", at_least),
            at_most=numbers("--at-most", at_most),
            minimize=tuple(dict.fromkeys(minimize)),
            knee=knee,
            clicks=None if choices is None else read_clicks(choices),
            fail_if=conditions(fail_if),
            objectives=_pairs("--objective", map(_named, objective), "reward"),
            where=_pairs("--where", where, "column"),
            draws=bootstrap,
            seed=seed,
        )

    def check_rewards(self, rewards: tuple[str, ...], minimized: frozenset[str] = frozenset()) -> None:
        """Refuse options that speak of rewards which were not measured, or bound them on the better side."""
        bounds = {"--at-least": [self.at_least], "--at-most": [self.at_most]}
        named = {"--reference": [self.reference], "--prefer": list(self.prefer), **bounds}
        for flag, mappings in named.items():
            for name in (name for mapping in mappings for name in mapping):
                if name not in rewards:
                    raise ResultsError(f"{flag}: {name!r} is no reward of these points.", did_you_mean(name, rewards))
        for name, bound in self.at_least.items():
            if name in minimized:
                raise ResultsError(
                    f"--at-least {name}={bound:g}: lower is better for {name}, so a floor keeps out the best.",
                    f"Write --at-most {name}={bound:g}.",
                )
        for name, bound in self.at_most.items():
            if name not in minimized:
                raise ResultsError(
                    f"--at-most {name}={bound:g}: higher is better for {name}, so a ceiling keeps out the best.",
                    f"Write --at-least {name}={bound:g}; if lower is better, add --minimize {name}.",
                )
        missing = [name for name in rewards if self.reference and name not in self.reference]
        if missing:
            raise ResultsError(f"--reference: says nothing of {missing[0]!r}.", f"Add --reference {missing[0]}=VALUE.")


def numbers(flag: str, texts: Iterable[str]) -> dict[str, float]:
    """Return {"positive": 0.6, "faithful": 0.4} for ["positive=0.6,faithful=0.4"] or one text for each."""
    values: dict[str, float] = {}
    for text in (part for whole in texts for part in whole.split(",")):
        name, value = _pair(flag, text)
        if name in values:
            raise ResultsError(f"{flag}: {name!r} is given twice.", "Give each reward once.")
        try:
            values[name] = float(value)
        except ValueError as problem:
            raise ResultsError(f"{flag}: {value!r} is not a number.", f"Write {flag} {name}=0.5.") from problem
        if not abs(values[name]) <= LARGEST:
            raise ResultsError(f"{flag}: {value!r} is no number to compare scores with.", f"Write {flag} {name}=0.5.")
    return values


def _preference(text: str) -> dict[str, float]:
    mu = numbers("--prefer", [text])
    if min(mu.values()) < 0 or abs(sum(mu.values()) - 1) > 1e-6:
        raise ResultsError(
            f"--prefer {text}: the weights sum to {sum(mu.values()):g}, or one is negative.",
            "Give weights of at least 0 that sum to 1.",
        )
    return mu


def _pairs(flag: str, texts: Iterable[str], what: str) -> dict[str, str]:
    pairs = [_pair(flag, text) for text in texts]
    names = [name for name, _ in pairs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ResultsError(f"{flag}: {twice!r} is given twice.", f"Give each {what} once.")
    return dict(pairs)


def _named(text: str) -> str:
    """Return NAME=LABEL for a label alone, which is called as it is."""
    label = text.strip()
    if label.startswith("-") and "=" not in label:
        raise ResultsError(f"--objective {text}: the opposite of {label[1:]} needs a name.", f"Write NAME={label}.")
    return f"{label}={label}" if label and "=" not in label else text


def _pair(flag: str, text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name.strip() and equals and value.strip()):
        known = f"{name.strip() or 'positive'}=0.6"
        raise ResultsError(f"{flag} {text}: is not NAME=VALUE.", f"Write for example {flag} {SAID.get(flag, known)}.")
    return name.strip(), value.strip()
