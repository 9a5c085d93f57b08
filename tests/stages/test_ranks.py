"""The processes of a training that a worker starts."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

from forking import Forked
from rsoup.stages.processes import end_with


def stay_with(process: int) -> None:
    end_with(process)
    print("there", flush=True)
    time.sleep(60)


def test_they_end_with_the_worker_that_ordered_them() -> None:
    """They would go on with its GPUs, which the next worker gets."""
    with (
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as worker,
        Forked(stay_with, worker.pid) as rank,
    ):
        rank.wait_for(lambda own: own.out == "there\n")
        time.sleep(0.7)
        assert rank.code is None
        worker.kill()
        worker.wait()
        assert rank.ended(20) == -signal.SIGKILL
