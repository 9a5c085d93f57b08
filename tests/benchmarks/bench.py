"""Measure everything that the README and the README of this folder tell in figures, both sides of each in one go.

python tests/benchmarks/bench.py [--only PART ...] [--quick] [--output FILE] [--list]

Writes one file of Markdown tables, part by part as they are done, with the machine at its top. What a part compares
with is set up in an environment of its own, by make. A part that fails does not stop the others: the file names it,
with the last of what it said, and the exit code is 1. Nothing else should run meanwhile; ``--quick`` tries every part
on less work, and its figures are not to be told. Advice and learning train for hours.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from measure import ROOT, environment

HERE = Path(__file__).parent
TRL112 = ROOT / ".venv-trl112/bin/python"
MERGEKIT = ROOT / ".venv-mergekit/bin/python"
LAST = 12
"""Lines shown of what a part that failed has said."""
Words = Sequence[str]


@dataclass(frozen=True)
class Part:
    """Scripts of this folder with their arguments, those for a quick look, and what make sets up before."""

    title: str
    commands: Sequence[Words]
    quick: Sequence[Words]
    needs: str | None = None


ADVICE, JUDGED = "runs/bench-advice", ("reasoning", "reasoning-morl", "short-morl", "all")
PARTS = {
    "training": Part(
        "A step of training beside TRL",
        [["training.py", "--trl112", str(TRL112)]],
        [["training.py", "--trl112", str(TRL112), "--rounds", "1"]],
        needs="trl112",
    ),
    "growth": Part("How a step of training grows", [["growth.py"]], [["growth.py", "--quick"]]),
    "together": Part(
        "Trainings at once", [["together.py"]], [["together.py", "--trainings", "3", "--steps", "3", "--rounds", "1"]]
    ),
    "sweep": Part("A sweep beside PEFT", [["sweep.py"]], [["sweep.py", "3", "8"]]),
    "sweep-growth": Part(
        "How a sweep grows",
        [["sweep.py", "growth"], ["sweep.py", "kinds"], ["sweep.py", "together"]],
        [["sweep.py", "growth", "quick"], ["sweep.py", "together", "4"]],
    ),
    "mix": Part("Mixing adapters beside PEFT", [["mix.py"]], [["mix.py", "--rounds", "1"]]),
    "merge": Part("Merging into a base beside PEFT", [["merge.py"]], [["merge.py", "--rounds", "1"]]),
    "checkpoints": Part(
        "Whole models beside mergekit",
        [["checkpoints.py"]],
        [["checkpoints.py", "--layers", "1", "--rounds", "1"]],
        needs="mergekit",
    ),
    "serving": Part("Serving beside PEFT", [["serving.py"], ["serving.py", "storm"]], [["serving.py", "storm", "100"]]),
    "report": Part("A report", [["report.py"]], [["report.py"]]),
    "coverage": Part("Intervals", [["coverage.py"], ["coverage.py", "crowded"]], [["coverage.py", "1"]]),
    "schedule": Part(
        "The schedule of stages", [["schedule.py"]], [["schedule.py", "--training", "4", "--point", "0.5"]]
    ),
    "learning": Part(
        "Learning beside TRL",
        [["learning.py", "--until-reached", "--output", "runs/bench-learning"]],
        [["learning.py", "--until-reached", "--algos", "ppo", "--seeds", "1", "--output", "runs/bench-learning"]],
    ),
    "advice": Part(
        "Advice",
        [["advice_runs.py", ADVICE], ["advice.py", *(f"{ADVICE}/{name}" for name in JUDGED)]],
        [["advice_runs.py", f"{ADVICE}-quick", "--quick"], ["advice.py", f"{ADVICE}-quick/all"]],
    ),
}


@dataclass(frozen=True)
class Done:
    """What came of a part: its tables, the seconds it took, and why it failed if it did."""

    tables: str
    seconds: float
    problem: str = ""


def measured(part: Part, *, quick: bool) -> Done:
    """Run all commands of a part, whatever fails."""
    began, tables, problems = time.monotonic(), "", []
    if part.needs is not None:
        made = subprocess.run(["make", part.needs], cwd=ROOT, capture_output=True, text=True, check=False)
        if made.returncode:
            problems.append(f"make {part.needs}: exit code {made.returncode}\n{_last(made.stdout + made.stderr)}")
    for words in part.quick if quick else part.commands:
        command = [sys.executable, "-W", "ignore", str(HERE / words[0]), *words[1:]]
        ended = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
        tables += ended.stdout
        if ended.returncode:
            said = _last(ended.stderr or ended.stdout)
            problems.append(f"{' '.join(words)}: exit code {ended.returncode}\n{said}")
    return Done(tables, time.monotonic() - began, "\n".join(problems))


def _last(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-LAST:])


def machine() -> Iterator[str]:
    """Yield what the figures depend on: the processor, its cores, the memory, the versions and the commit."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else []
    model = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    yield f"{model}, {os.cpu_count()} cores, {memory:.0f} GB of memory; {threads} threads."
    packages = ("torch", "transformers", "peft", "trl", "numpy")
    yield f"Python {platform.python_version()}, {', '.join(f'{name} {version(name)}' for name in packages)}."
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    yield f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, commit {commit.stdout.strip() or 'unknown'}."


def written(done: dict[str, Done], *, quick: bool) -> str:
    """Return the file: what was measured where, what failed, and the tables."""
    lines = ["# Benchmarks", "", *machine(), ""]
    if quick:
        lines += ["A quick look at less work: these figures are not to be told.", ""]
    if failed := [name for name, own in done.items() if own.problem]:
        lines += [f"**Failed: {', '.join(failed)}.** What they said is below.", ""]
    for name, own in done.items():
        lines += [f"## {PARTS[name].title} (`{name}`)", "", own.tables.strip(), ""]
        if own.problem:
            lines += ["Failed:", "", "```", own.problem, "```", ""]
        lines += [f"Measured in {own.seconds / 60:.1f} minutes.", ""]
    return "\n".join(lines)


def main() -> int:
    """Measure the parts that are asked for, and write what they gave after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help="these alone")
    parser.add_argument("--quick", action="store_true", help="try every part on less work")
    parser.add_argument(
        "--output", type=Path, default=Path("runs/bench.md"), help="runs/bench.md unless said otherwise"
    )
    parser.add_argument("--list", action="store_true", help="name the parts")
    options = parser.parse_args()
    if options.list:
        print("\n".join(f"{name:14} {part.title}" for name, part in PARTS.items()))
        return 0
    done: dict[str, Done] = {}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    for name in options.only:
        print(f"{name} ...", end=" ", flush=True, file=sys.stderr)
        done[name] = measured(PARTS[name], quick=options.quick)
        options.output.write_text(written(done, quick=options.quick))
        told = "failed" if done[name].problem else "done"
        print(f"{told}, {done[name].seconds / 60:.1f} minutes", file=sys.stderr)
    failed = [name for name, own in done.items() if own.problem]
    if failed:
        print(f"Failed: {', '.join(failed)}; {options.output} says why.", file=sys.stderr)
    print(options.output)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
