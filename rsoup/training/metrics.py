"""What a training tells of each step: in metrics.jsonl, to trackers, and on the terminal."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rsoup.errors import AdapterError, FailedSampleError, RewardError
from rsoup.files import write_json, write_text
from rsoup.rewards.logs import Log
from rsoup.rewards.scoring import mean_of
from rsoup.training.algorithm import masked_mean
from rsoup.training.checkpoint import TrainingState
from rsoup.training.rollout import Rollout
from rsoup.training.scores import Running
from rsoup.training.team import Team

METRICS_FILE = "metrics.jsonl"
FAILED_FILE = "failed_sample.json"
UNFINISHED = "unfinished_thoughts"
"""The share of completions that rewards read as empty because their thought has no end."""


@dataclass(frozen=True)
class Seen:
    """What all processes' rollouts of a step amount to."""

    metrics: dict[str, Any]
    running: dict[str, Running]
    kls: np.ndarray
    tokens: int


def see(rollout: Rollout, state: TrainingState, team: Team) -> Seen:
    """Put together what all processes saw in a step, and the statistics of scores with it."""
    scores = {name: team.gather(values) for name, values in rollout.scores.items()}
    kls = team.gather(rollout.kls)
    lengths = team.gather(rollout.mask.sum(-1).flatten().cpu().numpy())
    entropy = -masked_mean(rollout.thoughts.logprobs.detach(), rollout.mask, team.total)
    metrics = {
        "scores": {name: mean_of(values) for name, values in scores.items()},
        "scored": {name: scored(values) for name, values in scores.items()},
        "sampled": len(kls),
        **told(rollout.log, team),
        "kl": float(kls.mean()),
        "entropy": float(entropy),
        "completion_tokens": float(lengths.mean()),
        "ended_by_eos": float(team.gather(rollout.ended.flatten().cpu().numpy().astype(np.float64)).mean()),
        **unfinished_share(rollout.unfinished, team),
        **({"sampling": dict(rollout.mismatch)} if rollout.mismatch else {}),
        "prompt": rollout.posts[0],
        "completion": rollout.texts[0],
    }
    running = {name: state.running.get(name, Running()).with_batch(values) for name, values in scores.items()}
    return Seen(metrics, running, kls, int(lengths.sum()))


def sampled_tokens(path: Path) -> int:
    """Return how many tokens were sampled in the steps that metrics.jsonl tells of, by all processes."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return sum(round(line["sampled"] * line["completion_tokens"]) for line in lines)


def unfinished_share(unfinished: np.ndarray | None, team: Team) -> dict[str, float]:
    """Return the share of completions whose thought has no end, under its name; nothing where thoughts are read."""
    return {} if unfinished is None else {UNFINISHED: float(team.gather(unfinished).mean())}


@contextmanager
def logging(folder: Path, steps: int, team: Team) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Yield a function that takes each step's metrics; those of the first ``steps`` steps are there already."""
    if not team.leads:
        yield lambda _line: None
        return
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / METRICS_FILE
    if path.is_file():  # lines of steps after the last checkpoint: they are made again
        lines = path.read_bytes().splitlines(keepends=True)[:steps]
        _check_lines(path, lines)
        write_text(path, b"".join(lines).decode())
    with path.open("a", encoding="utf-8") as file:

        def log(line: Mapping[str, Any]) -> None:
            file.write(json.dumps(line) + "\n")
            file.flush()
            scores = {f"score/{name}": value for name, value in line["scores"].items()}
            logged = {f"logged/{name}": value for name, value in line.get("logged", {}).items()}
            apart = {f"sampling/{name}": value for name, value in line.get("sampling", {}).items()}
            numbers = {**scores, **logged, **apart, **line}.items()
            team.log({name: value for name, value in numbers if isinstance(value, (int, float))}, line["step"])

        yield log


def _check_lines(path: Path, lines: Sequence[bytes]) -> None:
    """Raise AdapterError if a line is not what a step has written."""
    for number, line in enumerate(lines, start=1):
        try:
            content = json.loads(line.decode())
            if content["step"] == number and content["scores"].keys() and content["sampled"] + 0.0 >= 0:
                float(content["completion_tokens"])
                continue
        except (ValueError, LookupError, TypeError, AttributeError):
            pass
        raise AdapterError(
            f"{path}, line {number}: is damaged.", f"Delete {path.parent}; its training then starts over."
        )


def note(metrics: Mapping[str, Any], speed: float) -> str:
    """Return a step in a few words; ``speed`` is in tokens per second."""
    scores = " ".join(_noted(name, metrics) for name in metrics["scores"])
    kl = "" if metrics["kl"] is None else f" kl {metrics['kl']:.1f}"
    unfinished = f" unfinished {metrics[UNFINISHED]:.0%}" if metrics.get(UNFINISHED) else ""
    return f"{scores}{kl}{unfinished} {speed:.0f} tok/s"


def _noted(name: str, metrics: Mapping[str, Any]) -> str:
    """Return a mean score, and how many completions the reward applied to if not to all."""
    value, count = metrics["scores"][name], metrics["scored"][name]
    part = "" if count == metrics["sampled"] else f" ({count} of {metrics['sampled']})"
    return f"{name} {'-' if value is None else f'{value:.2f}'}{part}"


def shown(step: int, text: str, scores: Mapping[str, np.ndarray]) -> str:
    """Return the first completion of a step and its scores."""
    words = {name: "-" if np.isnan(values[0]) else f"{values[0]:.2f}" for name, values in scores.items()}
    return f"step {step}: {' '.join(text.split())!r}  {'  '.join(f'{name} {word}' for name, word in words.items())}"


def scored(values: np.ndarray) -> int:
    """Return how many completions a reward applies to."""
    return int(np.count_nonzero(~np.isnan(values)))


def told(log: Log, team: Team) -> dict[str, Any]:
    """Return what functions told beside scores: the mean of each figure over all processes; the first of each column.

    Nothing where they told nothing.
    """
    means: dict[str, list[float]] = {}
    for own in team.listed(log.means()):
        for name, value in own.items():
            means.setdefault(name, []).extend([] if value is None else [value])
    logged = {name: float(np.mean(values)) if values else None for name, values in means.items()}
    parts = {"logged": logged, "extra": log.first()}
    return {name: part for name, part in parts.items() if part}


@contextmanager
def saving_failed_sample(folder: Path, step: int) -> Iterator[None]:
    """Save the completion that a reward fails on within the block to failed_sample.json, and say so."""
    try:
        yield
    except FailedSampleError as problem:
        path = folder / FAILED_FILE
        sample = {name: getattr(problem, name) for name in ("reward", "prompt", "completion", "message")}
        write_json(path, {"schema": 1, "step": step, **sample})
        hint = f"{problem.hint} The sample is in {path}; the same command then continues."
        raise RewardError(problem.message, hint) from problem
