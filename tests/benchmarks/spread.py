"""What the quickstart gives over seeds and over types of weights: README claims what holds in every row.

python tests/benchmarks/spread.py FOLDER [SEEDS] [DTYPE ...]     5 seeds, in bfloat16 and float32, unless said otherwise

Each run is kept in FOLDER/DTYPE/seed-N, so that the same command goes on where it stopped, and a run made on another
processor may be copied there under another name (FOLDER/amd-epyc): every folder of runs is a group of rows.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from rsoup import experiment
from rsoup.progress import Silent
from rsoup.recipe_file import find_recipe, load_recipe
from rsoup.report import Options, Report, make_report
from rsoup.resolve import resolve

POINTS = ("base", "positive", "faithful", "soup-0.50-0.50", "morl-0.50-0.50")


def run(folder: Path, seeds: int, dtype: str) -> None:
    """Make the quickstart's runs in a type of weights, as far as they are not there."""
    recipe = load_recipe(
        find_recipe("quickstart"),
        [f"seeds={list(range(seeds))}", f"output={folder / dtype}", f"model.dtype={dtype}"],
    )
    experiment.run_all(recipe, [resolve(own) for own in recipe.by_seed()], Silent())


def reports(group: Path) -> Iterator[tuple[str, Report]]:
    """Yield the report of each seed's run, and of all of them pooled."""
    runs = sorted(path.parent.parent for path in group.glob("seed-*/eval/results.json"))
    for one in runs:
        yield one.name, make_report([one], one / "report", Options())
    if len(runs) > 1:
        yield "pooled", make_report(runs, group / "report", Options())


def row(report: Report) -> list[str]:
    """Return the scores of a report, its ratio of hypervolumes, experts among MORL's, and its verdicts."""
    cells = [" / ".join(f"{score.mean:.2f}" for score in report.point(name).scores.values()) for name in POINTS]
    ratio = report.comparison.hypervolume_ratio if report.comparison else None
    ends = "" if ratio is None or ratio.interval is None else f" [{ratio.interval[0]:.2f}, {ratio.interval[1]:.2f}]"
    verdicts = [hypothesis.verdict for hypothesis in report.hypotheses.values()]
    return [*cells, "" if ratio is None else f"{ratio.value:.2f}{ends}", *verdicts]


def main() -> None:
    """Run what is missing, and print a table for Markdown."""
    folder, words = Path(sys.argv[1]), sys.argv[2:]
    seeds = int(words.pop(0)) if words and words[0].isdigit() else 5
    for dtype in words or ("bfloat16", "float32"):
        run(folder, seeds, dtype)
    heads = ["run", *POINTS, "hypervolume, soups / MORL", "connectivity", "coverage", "at equal cost"]
    print("Scores are positive / faithful.\n")
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for group in sorted(path for path in folder.iterdir() if path.is_dir()):
        for name, report in reports(group):
            print(f"| {' | '.join([f'{group.name} {name}', *row(report)])} |", flush=True)


if __name__ == "__main__":
    main()
