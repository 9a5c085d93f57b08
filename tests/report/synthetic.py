"""Results of an invented evaluation, drawn from a seed, with the means asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from rsoup.evaluation.results import (
    Adapter,
    Base,
    Benchmark,
    Documents,
    Generation,
    Point,
    PointSamples,
    Prompts,
    Results,
    Samples,
    summarise,
    write_results,
)
from rsoup.pareto.choice import simplex_lattice

# points of a soup line between two experts, a MORL run and the base: (positive, faithful)
LINE = {
    0.0: (0.856, 0.179),
    0.2: (0.777, 0.200),
    0.4: (0.708, 0.305),
    0.6: (0.505, 0.407),
    0.8: (0.415, 0.465),
    1.0: (0.284, 0.528),
}
MORL = (0.766, 0.261)
BASE = (0.354, 0.207)
OPENINGS = ["The food was cold", "A lovely evening", "Service took an hour", "Great value", "The room smelt of paint"]
VERDICTS = [
    "and the staff did not care.",
    "and we would come again!",
    "but the view made up for it.",
    "so we left early.",
]


def write_line(
    folder: Path,
    *,
    prompts: int = 64,
    seed: int = 0,
    spread: float = 0.25,
    hostile: str = "",
    lambdas: int = 6,
    minimized: tuple[str, ...] = (),
    measures: bool = False,
    documents: int = 0,
) -> Path:
    """Write an evaluation of two experts, their soups, one MORL run and the base; return the path of its results.

    Scores of the ``minimized`` rewards are the opposite of what they would be. With ``measures`` there are the KL, the
    length and the perplexity of completions too. With so many ``documents`` there is a benchmark of accuracies, and one
    of half as many, a perplexity.
    """
    generator = np.random.default_rng(seed)
    means = {"base": BASE} | {_name(lam): mean for lam, mean in _line(lambdas).items()} | {"morl-0.50-0.50": MORL}
    shift = 0.0 if seed == 0 else 0.02
    rewards = ("positive", "faithful")
    ids = tuple(f"test-{number}" for number in range(prompts))
    hardness = generator.normal(0, spread / 2, (prompts, 2))
    points = {}
    for name, mean in means.items():
        noise = hardness + generator.normal(0, spread, (prompts, 2))
        centre = np.array(mean) + generator.normal(0, shift, 2)
        scores = noise - noise.mean(axis=0) + centre
        points[name] = PointSamples(
            completions=tuple(
                _completion(generator, name, hostile if number == 0 else "") for number in range(prompts)
            ),
            scores=_turned(dict(zip(rewards, scores.T, strict=True)), minimized),
            tokens=generator.integers(8, 25, prompts).astype(np.int32),
            ended_by_eos=generator.random(prompts) < 0.9,
            measures={"kl": generator.gamma(2.0, 3.0, prompts)} if measures else {},
        )
    texts = tuple(" ".join(generator.choice(OPENINGS, 3)) + f". Post {number}." for number in range(prompts))
    products = [("kettle", "lamp", None, hostile or "sofa")[number % 4] for number in range(prompts)]
    samples = Samples(ids, texts, points, {"product": products, "stars": [number % 5 for number in range(prompts)]})
    results = Results(
        recipe="quickstart",
        task="reviews",
        seed=seed,
        base_model=Base(name="smollm2-135m-instruct", sha256=None),
        generation=Generation(
            max_new_tokens=24, temperature=0.0, dtype="float32", **({"kl_to": "init"} if measures else {})
        ),
        prompts=Prompts(count=prompts, sha256="ab" * 32, split="test"),
        rewards=rewards,
        directions=_directions(rewards, minimized),
        adapters={
            "positive": Adapter(path="runs/quickstart/adapters/positive", sha256="01" * 32, kind="expert"),
            "faithful": Adapter(path="runs/quickstart/adapters/faithful", sha256="02" * 32, kind="expert"),
            "morl-0.50-0.50": Adapter(
                path="runs/quickstart/adapters/morl-0.50-0.50",
                sha256="03" * 32,
                kind="morl",
                rewards={"positive": 0.5, "faithful": 0.5},
            ),
        },
        method="factors",
        points=tuple(_with_extras(_point(name, points[name]), points[name]) for name in means),
        seconds=95.1,
        versions={"rsoup": "0.1.0", "torch": "2.13.0"},
    )
    if documents:
        results, samples = _with_benchmarks(results, samples, documents, seed)
    path = folder / "eval" / "results.json"
    write_results(path, results, samples)
    return path


def _with_benchmarks(results: Results, samples: Samples, count: int, seed: int) -> tuple[Results, Samples]:
    """Add the benchmark quiz, whose documents are right or wrong, and tales, of parts in a perplexity."""
    generator = np.random.default_rng([seed, 7])
    ability = {point.id: 0.4 + 0.3 * (point.lam or 0.0) for point in results.points}
    hardness = generator.random(count)
    right = {name: (hardness < own).astype(np.float64) for name, own in ability.items()}
    norms = {name: (hardness < own + 0.1).astype(np.float64) for name, own in ability.items()}
    lengths = {name: 9 + own + generator.normal(0, 2, count // 2) for name, own in ability.items()}
    quiz = {name: {"quiz.acc,none": right[name], "quiz.acc_norm,none": norms[name]} for name in ability}
    tales = {name: {"tales.word_perplexity,none": own} for name, own in lengths.items()}
    benchmarks = {
        name: Documents(
            tuple(f"{name}/{row}" for row in range(rows)),
            tuple(f"question {row}" for row in range(rows)),
            {point: tuple(f"answer of {point}" for _ in range(rows)) for point in ability},
            parts,
        )
        for name, rows, parts in (("quiz", count, quiz), ("tales", count // 2, tales))
    }
    told = {
        "quiz": {"quiz.acc,none": "maximize", "quiz.acc_norm,none": "maximize"},
        "tales": {"tales.word_perplexity,none": "minimize"},
    }
    points = tuple(
        point.model_copy(
            update={
                "benchmarks": {
                    label: summarise(values)
                    for own in benchmarks.values()
                    for label, values in own.parts[point.id].items()
                }
            }
        )
        for point in results.points
    )
    about = {
        name: Benchmark(
            main=next(iter(ways)),
            directions=ways,
            documents=len(benchmarks[name].ids),
            num_fewshot=0,
            version="1.0",
            sha256="cd" * 32,
        )
        for name, ways in told.items()
    }
    return results.model_copy(update={"points": points, "benchmarks": about}), replace(samples, benchmarks=benchmarks)


def write_triangle(
    folder: Path, *, prompts: int = 40, steps: int = 4, seed: int = 0, minimized: tuple[str, ...] = ()
) -> Path:
    """Write an evaluation of three experts and a lattice of their soups; return the path of its results."""
    generator = np.random.default_rng(seed)
    rewards = ("positive", "faithful", "brief")
    lattice = simplex_lattice(3, steps)
    peaks = np.array([[0.85, 0.18, 0.30], [0.28, 0.55, 0.25], [0.35, 0.22, 0.90]])
    weights: dict[str, dict[str, float]] = {"base": {}}
    weights |= {_corner_name(row, rewards): dict(zip(rewards, row.tolist(), strict=True)) for row in lattice}
    points = {}
    for name, mix in weights.items():
        row = np.array(list(mix.values())) if mix else None
        bulge = 0.0 if row is None else 0.25 * (1 - (row**2).sum())
        centre = np.array([0.35, 0.2, 0.3]) if row is None else row @ peaks + bulge * np.array([0.4, 0.3, 0.5])
        noise = generator.normal(0, 0.2, (prompts, 3))
        points[name] = PointSamples(
            completions=tuple(_completion(generator, name, "") for _ in range(prompts)),
            scores=_turned(dict(zip(rewards, (noise - noise.mean(axis=0) + centre).T, strict=True)), minimized),
            tokens=generator.integers(8, 25, prompts).astype(np.int32),
            ended_by_eos=np.ones(prompts, dtype=bool),
        )
    samples = Samples(
        tuple(f"test-{number}" for number in range(prompts)),
        tuple(" ".join(generator.choice(OPENINGS, 3)) + f". Post {number}." for number in range(prompts)),
        points,
    )
    results = Results(
        recipe="triangle",
        task="reviews",
        seed=seed,
        base_model=Base(name="smollm2-135m-instruct", sha256=None),
        generation=Generation(max_new_tokens=24, temperature=0.0, dtype="float32"),
        prompts=Prompts(count=prompts, sha256="cd" * 32, split="test"),
        rewards=rewards,
        directions=_directions(rewards, minimized),
        adapters={name: Adapter(path=f"adapters/{name}", sha256=None, kind="expert") for name in rewards},
        method="factors",
        points=tuple(
            Point(id=name, kind=_kind(name, rewards), weights=mix, lam=None, scores=points[name].summary())
            for name, mix in weights.items()
        ),
    )
    path = folder / "eval" / "results.json"
    write_results(path, results, samples)
    return path


def _with_extras(point: Point, own: PointSamples) -> Point:
    extras = {"completion_tokens": float(own.tokens.mean()), "ended_by_eos": float(own.ended_by_eos.mean())}
    if own.measures:
        extras |= {"kl": float(own.measures["kl"].mean()), "base_perplexity": 1 + float(own.measures["kl"].mean())}
    return point.model_copy(update={"extras": extras})


def _turned(scores: dict[str, np.ndarray], minimized: tuple[str, ...]) -> dict[str, np.ndarray]:
    return {name: -values if name in minimized else values for name, values in scores.items()}


def _directions(rewards: tuple[str, ...], minimized: tuple[str, ...]) -> dict[str, str]:
    return {name: "minimize" if name in minimized else "maximize" for name in rewards} if minimized else {}


def _line(count: int) -> dict[float, tuple[float, float]]:
    """Return the means at evenly spaced points of the line, between those of ``LINE``."""
    lams = [round(lam, 9) for lam in np.linspace(0, 1, count).tolist()]
    columns = (np.interp(lams, list(LINE), column).tolist() for column in zip(*LINE.values(), strict=True))
    return dict(zip(lams, zip(*columns, strict=True), strict=True))


def _name(lam: float) -> str:
    return {0.0: "positive", 1.0: "faithful"}.get(lam, f"soup-{1 - lam:.2f}-{lam:.2f}")


def _corner_name(row: np.ndarray, rewards: tuple[str, ...]) -> str:
    return rewards[int(row.argmax())] if row.max() == 1 else "soup-" + "-".join(f"{weight:.2f}" for weight in row)


def _kind(name: str, rewards: tuple[str, ...]) -> str:
    return "base" if name == "base" else "expert" if name in rewards else "soup"


def _point(name: str, samples: PointSamples) -> Point:
    if name == "base":
        return Point(id=name, kind="base", weights={}, lam=None, scores=samples.summary())
    if name.startswith("morl"):
        return Point(id=name, kind="morl", weights={name: 1.0}, lam=None, scores=samples.summary())
    lam = next(lam for lam in _line(11) if _name(lam) == name)
    weights = {"positive": round(1 - lam, 10), "faithful": lam}
    return Point(
        id=name, kind="expert" if lam in (0, 1) else "soup", weights=weights, lam=lam, scores=samples.summary()
    )


def _completion(generator: np.random.Generator, name: str, hostile: str) -> str:
    words = f"{generator.choice(OPENINGS)} {generator.choice(VERDICTS)}"
    return f"{words} {hostile}".strip()
