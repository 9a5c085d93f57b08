"""How near the schedule of a run on 8 GPUs is to the shortest there can be: Ray with logical GPUs, stages that sleep.

    python tests/benchmarks/schedule.py [--training 20] [--point 1]

4 experts, 15 baselines, 165 mixes (and the base and the baselines) are done by actors that only sleep; everything else,
the order, the hiring of actors and the messages, is that of ``rsoup run --ray``. No schedule is shorter than its
longest path, than all its work on 8 GPUs, and than three rounds of trainings, which cannot be divided.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from tables import show

from rsoup.stages.address import HERE, prepare
from rsoup.stages.dispatch import Dispatcher, Hand
from rsoup.stages.graph import Needs, Stage
from stages.simulation import bound, four_rewards

GPUS = 8


class Sleeper:
    """A worker that sleeps."""

    def nap(self, seconds: float) -> None:
        """Sleep."""
        time.sleep(seconds)

    def close(self) -> None:
        """Do nothing."""


def main() -> None:
    """Time a schedule."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--training", type=float, default=20.0, metavar="SECONDS")
    parser.add_argument("--point", type=float, default=1.0, metavar="SECONDS")
    asked = parser.parse_args()
    lasts = {"training": asked.training, "point": asked.point}
    prepare(HERE)
    import ray

    from rsoup.stages.cluster import connected

    ray.init(
        num_gpus=GPUS, num_cpus=GPUS, include_dashboard=False, object_store_memory=100 << 20, logging_level="ERROR"
    )
    stages = four_rewards()

    def seconds(stage: Stage) -> float:
        return lasts.get(stage.kind, 0.0)

    def perform(stage: Stage, hand: Hand | None) -> None:
        if hand is not None:
            hand.work("nap", seconds(stage), look=lambda: None)

    shortest = max(bound(stages, Needs(GPUS, GPUS), seconds), -(-19 // GPUS) * asked.training)
    with connected(HERE, Sleeper) as cluster:
        began = time.perf_counter()
        Dispatcher(cluster, perform, print).run(stages)
        took = time.perf_counter() - began
    ray.shutdown()
    row = [f"{took:.1f} s", f"{shortest:.1f} s", f"{took / shortest:.3f}"]
    show(["the schedule", "the shortest there can be", "ratio"], [row])
    assert took <= 1.1 * shortest


if __name__ == "__main__":
    main()
