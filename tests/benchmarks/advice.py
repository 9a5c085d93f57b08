"""How well the figures and sentences of ``rsoup mix --check`` foretell the gap to the line that was measured.

python tests/benchmarks/advice.py RUN [RUN ...]

A RUN is a folder with eval/results.json (of rsoup run) or results.json (of rsoup eval), and the adapters where that
says they are. Every two adapters of it that were measured alone and mixed, weights summing to 1, are a pair: it is
judged at the mix nearest to even weights. Its gap on a reward is the mix's score minus the weighted mean of the two, as
a share of the reward's range over all points; minimised rewards count the other way round.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from rsoup import mixing
from rsoup.adapters import Adapter, Layer
from rsoup.evaluation.results import Point, Results, Samples, read_results, read_samples, results_file
from rsoup.mixing.geometry import PairFacts

DRAWS = 10_000
FEWEST = 5
PREDICTORS: dict[str, Callable[[Pair], float]] = {
    "apart": lambda pair: pair.facts.apart or 0.0,
    "cosine": lambda pair: pair.facts.cosine or 0.0,
    "input overlap": lambda pair: pair.facts.inputs or 0.0,
    "distance of factors": lambda pair: pair.factors_distance,
}
"""``apart`` is the one that was settled on before any pair was looked at; the others stand beside it."""


@dataclass(frozen=True)
class Pair:
    """Two adapters, told by their hashes: what the check says of them, and the gaps by reward with standard errors."""

    run: str
    key: frozenset[str]
    prompts: int
    names: tuple[str, str]
    facts: PairFacts
    factors_distance: float
    kinds: list[str]
    gaps: dict[str, tuple[float, float]]

    @property
    def worst(self) -> float:
        """The lowest gap."""
        return min(gap for gap, _ in self.gaps.values())

    @property
    def size(self) -> float:
        """The mean size of the gaps, below the line or above it."""
        return float(np.mean([abs(gap) for gap, _ in self.gaps.values()]))


def main() -> None:
    """Print the pairs of all runs, the rank correlations, and what is said of made-up pairs."""
    pairs = told_once(pair for run in sys.argv[1:] for pair in read_pairs(Path(run)))
    print("| run | prompts | pair | cosine | apart | factors | said | gap by reward ± standard error |")
    print("|---|---|---|---|---|---|---|---|")
    for pair in sorted(pairs, key=PREDICTORS["apart"]):
        gaps = ", ".join(f"{name} {gap:+.2f} ± {error:.2f}" for name, (gap, error) in pair.gaps.items())
        figures = f"{pair.facts.cosine:.2f} | {pair.facts.apart:.2f} | {pair.factors_distance:.0%}"
        print(
            f"| {pair.run} | {pair.prompts} | {', '.join(pair.names)} | {figures} | {', '.join(pair.kinds)} | {gaps} |"
        )
    adapters = {sha256 for pair in pairs for sha256 in pair.key}
    print(f"\n{len(pairs)} pairs of {len(adapters)} adapters; pairs that share an adapter are no independent evidence.")
    spread = np.quantile([PREDICTORS["apart"](pair) for pair in pairs], [0, 0.25, 0.75, 1])
    print("apart: " + ", ".join(f"{value:.3f}" for value in spread) + " (lowest, quartiles, highest).\n")
    correlations(pairs)
    by_class(pairs)
    made_up(next(adapter for run in sys.argv[1:] for adapter in adapters_of(Path(run)).values()))


def told_once(pairs: Iterable[Pair]) -> list[Pair]:
    """Return each pair of adapters once: as it was measured on most prompts, else first."""
    found: dict[frozenset[str], Pair] = {}
    for pair in pairs:
        if pair.key not in found or pair.prompts > found[pair.key].prompts:
            found[pair.key] = pair
    return list(found.values())


def correlations(pairs: Sequence[Pair]) -> None:
    """Print Spearman's rank correlation of each predictor with the gaps, with a 95 % interval from a bootstrap."""
    print("| rank correlation with | the lowest gap | the size of the gaps |\n|---|---|---|")
    for name, predictor in PREDICTORS.items():
        x = np.array([predictor(pair) for pair in pairs])
        cells = [correlation(x, np.array([getattr(pair, key) for pair in pairs])) for key in ("worst", "size")]
        print(f"| {name} | {' | '.join(cells)} |")


def correlation(x: np.ndarray, y: np.ndarray) -> str:
    """Return a rank correlation and its interval, over draws of pairs in which both vary."""
    if len(x) < FEWEST:
        return f"{len(x)} pairs are too few"
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(DRAWS):
        own = rng.integers(len(x), size=len(x))
        if np.ptp(x[own]) and np.ptp(y[own]):
            drawn.append(spearmanr(x[own], y[own]).statistic)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return f"{spearmanr(x, y).statistic:+.2f} [{low:+.2f}, {high:+.2f}]"


def by_class(pairs: Sequence[Pair]) -> None:
    """Print how far mixes lie from the line for each kind of sentence."""
    print("\n| said | pairs | lowest gap, mean | size of the gaps, mean |\n|---|---|---|---|")
    for kind in sorted({kind for pair in pairs for kind in pair.kinds}):
        own = [pair for pair in pairs if kind in pair.kinds]
        worst, size = (np.mean([getattr(pair, key) for pair in own]) for key in ("worst", "size"))
        print(f"| {kind} | {len(own)} | {worst:+.2f} | {size:.2f} |")


def read_pairs(run: Path) -> Iterator[Pair]:
    """Yield the pairs of a run that were measured."""
    path = results_file(run)
    results = read_results(path)
    samples = read_samples(path, results)
    adapters = adapters_of(run)
    alone = {name: point for point in results.points if (name := only(point)) in adapters}
    for one, two in combinations(alone, 2):
        between = [point for point in results.points if is_between(point, one, two)]
        if not between:
            continue
        middle = min(between, key=lambda point: abs(point.weights[one] - 0.5))
        weights = middle.weights[one], middle.weights[two]
        report = mixing.check([adapters[one], adapters[two]], weights)
        yield Pair(
            run=run.name,
            key=frozenset(str(adapters[name].sha256) for name in (one, two)),
            prompts=results.prompts.count,
            names=(one, two),
            facts=report.pairs[0],
            factors_distance=report.factors_distance or 0.0,
            kinds=[advice.kind for advice in report.advice if advice.kind != "measure"],
            gaps=dict(measured(results, samples, (alone[one], alone[two]), weights, middle)),
        )


def measured(
    results: Results, samples: Samples, ends: tuple[Point, Point], weights: tuple[float, float], middle: Point
) -> Iterator[tuple[str, tuple[float, float]]]:
    """Yield the gap of a mix on each reward with its standard error over prompts, as shares of the reward's range."""
    for reward in results.rewards:
        scores = [samples.points[point.id].by_prompt().scores[reward] for point in (middle, *ends)]
        gaps = scores[0] - weights[0] * scores[1] - weights[1] * scores[2]
        gaps = gaps[~np.isnan(gaps)] * (-1 if reward in results.minimized else 1)
        span = np.ptp([point.scores[reward].mean for point in results.points])
        if span and len(gaps) > 1:
            yield reward, (float(gaps.mean() / span), float(gaps.std(ddof=1) / np.sqrt(len(gaps)) / span))


def adapters_of(run: Path) -> dict[str, Adapter]:
    """Read the trained adapters of a run by the names they have there; those that changed since are left out."""
    path = results_file(run)
    found = {}
    for name, own in read_results(path).adapters.items():
        if own.kind in ("expert", "morl"):
            adapter = mixing.read((path.parent / own.path).resolve())
            if adapter.sha256 == own.sha256:
                found[name] = adapter
            else:
                print(f"{run}: {name} has changed since it was measured, and is left out.", file=sys.stderr)
    return found


def only(point: Point) -> str:
    """Return the adapter that a point is."""
    used = [name for name, weight in point.weights.items() if weight]
    return used[0] if len(used) == 1 and point.weights[used[0]] == 1 and point.kind != "base" else ""


def is_between(point: Point, one: str, two: str) -> bool:
    """Tell whether a point is a mix of two adapters with weights that sum to 1."""
    used = {name: weight for name, weight in point.weights.items() if weight}
    return (
        point.kind == "soup"
        and used.keys() == {one, two}
        and min(used.values()) > 0
        and abs(sum(used.values()) - 1) < 1e-6
    )


def made_up(adapter: Adapter) -> None:
    """Print what is said of an adapter beside itself, beside multiples of itself, and beside a random one."""

    def random(place: int, layer: Layer) -> Layer:
        rng = np.random.default_rng(place)
        down, up = (rng.standard_normal(factor.shape).astype(np.float32) for factor in (layer.down, layer.up))
        sizes = [
            np.linalg.norm(own.up.astype(np.float32) @ own.down) for own in (layer, replace(layer, down=down, up=up))
        ]
        return replace(layer, down=down, up=up * np.float32(sizes[0] / sizes[1]))

    def scaled(by: float) -> Adapter:
        return replace(
            adapter, layers={name: replace(own, scale=own.scale * by) for name, own in adapter.layers.items()}
        )

    drawn = {name: random(place, layer) for place, (name, layer) in enumerate(adapter.layers.items())}
    origin = adapter.provenance and replace(adapter.provenance, init_sha256="0" * 64)
    others = {
        "itself": adapter,
        "three times itself": scaled(3),
        "its opposite": scaled(-1),
        "three times its opposite": scaled(-3),
        "a random one of its norms": replace(adapter, layers=drawn, provenance=origin),
    }
    print(f"\n| {adapter.name} beside | cosine | apart | said |\n|---|---|---|---|")
    for name, other in others.items():
        report = mixing.check([adapter, other])
        facts = report.pairs[0]
        said = ", ".join(advice.kind for advice in report.advice if advice.kind != "measure")
        print(f"| {name} | {facts.cosine:.3f} | {facts.apart:.2f} | {said} |")


if __name__ == "__main__":
    main()
