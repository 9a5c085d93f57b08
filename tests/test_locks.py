"""Two workers never make the same adapter."""

from __future__ import annotations

import errno
import fcntl
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from rsoup.errors import RsoupError
from rsoup.locks import Taken, Turn, is_taken, lock_file, locked, my_turn
from rsoup.training.checkpoint import Checkpoint, TrainingState, keeping, list_checkpoints

HOLD = """
import sys, time
from pathlib import Path
from rsoup.locks import my_turn
with my_turn(Path(sys.argv[1]), lambda: None):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_is_held_within_its_block_alone(tmp_path: Path) -> None:
    path = lock_file(tmp_path, "positive")
    assert not is_taken(path)
    with my_turn(path, lambda: None):
        assert is_taken(path)
        assert not is_taken(lock_file(tmp_path, "faithful"))
    assert not is_taken(path)


def test_a_worker_that_is_killed_lets_go(tmp_path: Path) -> None:
    path = lock_file(tmp_path, "positive")
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "held\n"
        assert is_taken(path)
        waited = []
        worker.kill()
        worker.wait()
        with my_turn(path, lambda: waited.append(True)):
            assert waited == []


def test_a_worker_that_is_stopped_keeps_its_lock_until_it_is_killed(tmp_path: Path) -> None:
    path = lock_file(tmp_path, "positive")
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "held\n"
        worker.send_signal(signal.SIGSTOP)
        assert is_taken(path)
        with pytest.raises(Taken), my_turn(path, wait=False):
            pass
        worker.kill()
        worker.wait()
    with my_turn(path, wait=False):
        assert is_taken(path)


def test_a_follower_goes_by_what_its_leader_says_and_takes_no_lock(tmp_path: Path) -> None:
    path, answers = lock_file(tmp_path, "positive"), [True]
    with my_turn(path, decide=lambda _look: answers.pop()):
        assert not is_taken(path)
    assert answers == []


def test_a_lock_is_tried_or_waited_for(tmp_path: Path) -> None:
    with locked(tmp_path / "lock", wait=False) as first, locked(tmp_path / "lock", wait=False) as second:
        assert (first, second) == (True, False)
    with locked(tmp_path / "lock", wait=True) as third:
        assert third


@pytest.mark.parametrize(("code", "shared"), [(errno.ENOLCK, False), (errno.ENOSYS, False), (errno.EIO, True)])
def test_a_file_system_without_locks_is_taken_for_ones_own(
    code: int, shared: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, "no")

    monkeypatch.setattr(fcntl, "flock", refuse)
    if shared:
        with pytest.raises(OSError, match="no"), my_turn(tmp_path / "lock"):
            pass
    else:
        with my_turn(tmp_path / "lock"), locked(tmp_path / "other", wait=False) as mine:
            assert mine


@contextmanager
def another_has_it(turn: Turn) -> Iterator[None]:
    """Give a lock to another, as a file server does with those of a machine it has not heard of for too long."""
    assert turn.file is not None
    fcntl.flock(turn.file, fcntl.LOCK_UN)
    with my_turn(turn.path, wait=False):
        yield


def test_whose_lock_was_given_to_another_is_told(tmp_path: Path) -> None:
    path = lock_file(tmp_path, "positive")
    with my_turn(path) as turn:
        assert turn.is_ours()
        turn.check()
        with another_has_it(turn):
            assert not turn.is_ours()
            with pytest.raises(RsoupError, match="positive: another worker has taken over"):
                turn.check()
        assert not turn.is_ours()  # though the other is done: nobody knows what it has made of it
    with my_turn(path, decide=lambda _look: True) as follower:
        assert follower.is_ours()


def test_a_training_whose_lock_is_anothers_leaves_that_ones_checkpoints_alone(tmp_path: Path) -> None:
    path, folder = lock_file(tmp_path, "positive"), tmp_path / "checkpoints"
    steps = [Checkpoint(TrainingState(step, 0.0, 0.0, ""), {"x": torch.zeros(1)}) for step in range(4)]

    def train(turn: Turn, *, interrupted: bool) -> None:
        with keeping(folder, turn, writes=True) as keep:
            keep(steps[1], save=True)
            keep(steps[2], save=False)
            with another_has_it(turn):
                if interrupted:
                    raise KeyboardInterrupt
                keep(steps[3], save=True)

    for interrupted, problem in ((False, RsoupError), (True, KeyboardInterrupt)):
        with my_turn(path) as turn, pytest.raises(problem):
            train(turn, interrupted=interrupted)
        assert [own.name for own in list_checkpoints(folder)] == ["step-000001.safetensors"]
