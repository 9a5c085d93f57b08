"""Disturb a command, give it again, and compare what is there with what an undisturbed one leaves."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from breaking.troubled import SIGNALS, Kind, Trouble, begin, check_end, touches
from breaking.works import Stock, Work, differences
from forking import PATIENCE, Forked
from rsoup.adapters import read_adapter
from rsoup.errors import RsoupError

NOBODY = 65534
AGED = 3600.0
"""Seconds by which what a kill left behind is made older: younger it might be another's that is at work."""
LEFT = (".partial", ".old")
"""Ends of the names of temporary files."""


@dataclass(frozen=True)
class Undisturbed:
    """What a command leaves, how long it takes, how often it touches files, and how much room they need."""

    files: dict[str, bytes]
    seconds: float
    touches: int


@dataclass
class Yard:
    """A folder in which commands are disturbed, one after another, at the same path."""

    folder: Path
    stock: Stock
    known: dict[str, Undisturbed] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def place(self) -> Path:
        """Where a command works."""
        return self.folder / "place"

    def trouble(self, kind: Kind = "none", at: int = 0, **more: Any) -> Trouble:
        """Return a trouble at the place."""
        return Trouble(self.place, kind, at, **more)

    def begin(self, work: Work, trouble: Trouble | None = None, **more: Any) -> Forked:
        """Begin the command."""
        return begin(work.words(self.stock, self.place), trouble or self.trouble(), **more)

    def undisturbed(self, work: Work, **settings: Any) -> Undisturbed:
        """Run the command in peace, the first time that this is asked for."""
        key = f"{work.name}{sorted(settings.items())}"
        if key not in self.known:
            work.lay(self.stock, self.place, **settings)
            began = time.monotonic()
            with self.begin(work) as process:
                assert check_end(process) == 0, process.err
            files = work.files(self.place)
            self.known[key] = Undisturbed(files, time.monotonic() - began, touches(self.trouble()))
        return self.known[key]

    def again(self, work: Work, expected: Undisturbed) -> None:
        """Give the command again, undisturbed, and compare."""
        with self.begin(work) as process:
            code = check_end(process)
            assert code == 0, process.err[-3000:]
        self.compare(work, expected)

    def compare(self, work: Work, expected: Undisturbed) -> None:
        """Compare what is there with what an undisturbed command leaves."""
        found = differences(expected.files, work.files(self.place))
        assert not found, found

    def left(self) -> list[str]:
        """Return the temporary files that lie in the place."""
        return [str(path.relative_to(self.place)) for path in self.place.rglob("*") if path.name.endswith(LEFT)]

    def age(self) -> None:
        """Make what was left behind older."""
        long_ago = time.time() - AGED
        for name in self.left():
            os.utime(self.place / name, (long_ago, long_ago))

    def note(self, *words: str) -> None:
        """Count what was done."""
        for word in words:
            self.counts[word] = self.counts.get(word, 0) + 1


def kill(yard: Yard, work: Work, rng: random.Random) -> None:
    """Kill the command up to three times, at a touch of a file or at any moment, and give it again."""
    expected = yard.undisturbed(work)
    work.lay(yard.stock, yard.place)
    for _ in range(rng.randint(1, 3)):
        before = set(yard.left())
        kind: Kind = rng.choice(["kill", "kill", "term", "int"])
        at = rng.randrange(expected.touches)
        if rng.random() < 0.7:
            process, moment = yard.begin(work, yard.trouble(kind, at)), 0.0
        else:
            process, moment = yard.begin(work), rng.uniform(0, expected.seconds)
        with process:
            if moment:
                time.sleep(moment)
                process.send_signal(SIGNALS[kind])
            code = check_end(process, signals=(signal.SIGKILL, signal.SIGTERM, signal.SIGINT))
        yard.note(f"kill {kind}", f"ended by {code}")
        if code == 130:
            assert set(yard.left()) <= before, yard.left()
        yard.age()
    yard.again(work, expected)
    assert not yard.left(), yard.left()


def fill(yard: Yard, work: Work, rng: random.Random) -> None:
    """Let the disk be full, or files be limited, from some moment on; then make room and give the command again."""
    expected = yard.undisturbed(work)
    work.lay(yard.stock, yard.place)
    way = rng.choice(["touch", "limit", *(["ballast"] * 2 if os.path.ismount(yard.folder) else [])])
    ballast = yard.folder / "ballast"
    trouble = yard.trouble()
    if way == "touch":
        trouble = yard.trouble("full", rng.randrange(expected.touches))
    elif way == "limit":
        largest = max(map(len, expected.files.values()))
        trouble = yard.trouble(largest=rng.randrange(largest))
    else:
        size = sum(map(len, expected.files.values()))
        free = shutil.disk_usage(yard.folder).free
        with ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, free - rng.randrange(2 * size))
    with yard.begin(work, trouble) as process:
        code = check_end(process)
        ballast.unlink(missing_ok=True)
        yard.note(f"full {way}", f"ended by {code}")
        if code == 1:
            told = process.err.splitlines()[-2]
            assert any(word in told.lower() for word in ("no space left", "file too large", "free.")), told
    assert code in (0, 1)
    assert not yard.left(), yard.left()
    yard.again(work, expected)


def deny(yard: Yard, work: Work, rng: random.Random) -> None:
    """Take rights away, from some moment on or for a folder; then give them back and give the command again."""
    expected = yard.undisturbed(work)
    work.lay(yard.stock, yard.place)
    ways = ["touch", "place"] if os.geteuid() == 0 else ["touch"]
    way = rng.choice(ways)
    if way == "touch":
        trouble = yard.trouble("denied", rng.randrange(expected.touches))
    else:
        if rng.random() < 0.7:
            with yard.begin(work, yard.trouble("kill", rng.randrange(expected.touches))) as process:
                check_end(process, signals=(signal.SIGKILL,))
            yard.age()
        _give(yard.place, NOBODY)
        trouble = yard.trouble(user=NOBODY)
        paths = [yard.place, *(path for path in yard.place.rglob("*") if not path.name.startswith("."))]
        chosen = rng.choice(sorted(paths))
        chosen.chmod(0o555 if chosen.is_dir() and rng.random() < 0.7 else 0)
    with yard.begin(work, trouble, environment={"HOME": str(yard.folder / "home")}) as process:
        code = check_end(process)
        yard.note(f"denied {way}", f"ended by {code}")
        told = process.err.splitlines()[-2:]
    if way == "place":
        _give(yard.place, 0)
    assert code in (0, 1)
    if code == 1:
        assert any("ermission denied" in line or "rights" in line for line in told), told
    yard.age()
    yard.again(work, expected)
    assert not yard.left(), yard.left()


def _give(folder: Path, user: int) -> None:
    for path in (folder, *folder.rglob("*")):
        os.chown(path, user, user)
        path.chmod(0o755 if path.is_dir() else 0o644)


def corrupt(yard: Yard, work: Work, rng: random.Random) -> None:
    """Damage a file that a killed, or a finished, command has left; the command makes up for it, or refuses it."""
    expected = yard.undisturbed(work)
    work.lay(yard.stock, yard.place)
    if unfinished := rng.random() < 0.8:
        with yard.begin(work, yard.trouble("kill", rng.randrange(expected.touches))) as process:
            check_end(process, signals=(signal.SIGKILL,))
        yard.age()
    else:
        with yard.begin(work) as process:
            check_end(process)
    files = sorted(path for path in (yard.place / work.out).rglob("*") if path.is_file() and path.stat().st_size)
    files = [path for path in files if not path.name.endswith(LEFT)]
    if not files:
        return
    chosen = rng.choice(files)
    content = chosen.read_bytes()
    way, damaged = _damaged(content, rng)
    chosen.write_bytes(damaged)
    with yard.begin(work) as process:
        code = check_end(process)
        told = process.err.splitlines()[-2:]
    name = str(chosen.relative_to(yard.place / work.out))
    yard.note(f"corrupt {way}", "corrupt unfinished" if unfinished else "corrupt finished", f"ended by {code}")
    if code == 0:
        found = differences(expected.files, work.files(yard.place))
        if name.endswith("metrics.jsonl"):  # a digit of what is told of a step is followed no further
            found = [line for line in found if not line.endswith(("metrics.jsonl", "rsoup.json", "README.md"))]
        if found == [f"other: {name}"] and not name.endswith(DESCRIBING):  # it is refused where it is read
            with pytest.raises(RsoupError):
                read_adapter(chosen.parent)
        else:
            assert found in ([], [f"other: {name}"]), (name, way, found)
        return
    assert any(part in " ".join(told) for part in (name, str(chosen.parent.name))), (name, told)
    if chosen.parent.is_dir():
        chosen.write_bytes(content)
    yard.again(work, expected)


DESCRIBING = ("README.md", "metrics.jsonl")
"""Files that tell people something and decide nothing."""


def _damaged(content: bytes, rng: random.Random) -> tuple[str, bytes]:
    way = rng.choice(["truncate", "flip", "zero", "empty"])
    data, at = bytearray(content), rng.randrange(len(content))
    if way == "truncate":
        del data[at:]
    elif way == "flip":
        data[at] ^= 1 << rng.randrange(8)
    elif way == "zero":
        size = rng.choice([16, 512, len(data)])
        data[at : at + size] = bytes(len(data[at : at + size]))
    else:
        data.clear()
    return way, bytes(data)


CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "seed": lambda content: content.update(seed=7),
    "steps": lambda content: content["training"].update(steps=2),
    "rate": lambda content: content["training"].update(learning_rate=0.02),
    "rank": lambda content: content["model"]["lora"].update(r=4),
    "template": lambda content: content["task"].update(template="handle : {post} :"),
    "prompts": lambda content: content["evaluation"].update(prompts=2),
    "lambdas": lambda content: content["evaluation"].update(lambdas=4),
    "length": lambda content: content["evaluation"].update(max_new_tokens=5),
    "rewards": lambda content: content.update(rewards=["brief", "positive"]),
    "checkpoints": lambda content: content["training"].update(checkpoint_every=2),
    "sampling": lambda content: content["generation"].update(max_new_tokens=7),
}
"""What may be changed in a recipe between two commands."""


def change(yard: Yard, work: Work, rng: random.Random) -> None:
    """Change the recipe of a command that was killed: what is there is refused, or what comes is as if from scratch."""
    expected = yard.undisturbed(work)
    work.lay(yard.stock, yard.place)
    recipe = yard.place / "recipe.yaml"
    name = rng.choice(sorted(CHANGES))
    content = yaml.safe_load(recipe.read_text())
    CHANGES[name](content)
    fresh = yard.undisturbed(work, **content)
    work.lay(yard.stock, yard.place)
    with yard.begin(work, yard.trouble("kill", rng.randrange(expected.touches + 5))) as process:
        check_end(process, signals=(signal.SIGKILL,))
    yard.age()
    before = recipe.read_text()
    recipe.write_text(yaml.safe_dump(content))
    with yard.begin(work) as process:
        code = check_end(process)
        told = process.err
    yard.note(f"changed {name}", f"ended by {code}")
    if code == 0:
        found = differences(fresh.files, work.files(yard.place))
        extra = [line for line in found if not line.startswith("too many")]
        assert not extra, (name, found)
        return
    assert "other settings" in told, told[-2000:]
    recipe.write_text(before)
    yard.again(work, expected)


def twice(yard: Yard, work: Work, rng: random.Random) -> None:
    """Give the command twice at once; one of them may be killed."""
    expected = yard.undisturbed(work)
    work.lay(yard.stock, yard.place)
    killed: Kind = "kill" if rng.random() < 0.4 else "none"
    with yard.begin(work, yard.trouble(killed, rng.randrange(expected.touches))) as first:
        time.sleep(rng.uniform(0, expected.seconds / 2) if rng.random() < 0.6 else 0)
        with yard.begin(work) as second:
            codes = [check_end(own, signals=(signal.SIGKILL,)) for own in (first, second)]
            told = second.err
    yard.note("twice, one killed" if codes[0] else "twice", f"ended by {codes[1]}")
    assert codes[1] == 0, told
    if codes[0]:
        yard.age()
        yard.again(work, expected)
    else:
        yard.compare(work, expected)
    assert not yard.left(), yard.left()


def stop(yard: Yard, work: Work, rng: random.Random, seconds: float = 3.0) -> None:
    """Stop a command for a while, at any moment, with or without another one beside it."""
    expected = yard.undisturbed(work)
    work.lay(yard.stock, yard.place)
    beside = rng.random() < 0.6
    with yard.begin(work) as first:
        time.sleep(rng.uniform(0, expected.seconds))
        first.send_signal(signal.SIGSTOP)
        if beside:
            with yard.begin(work) as second:
                time.sleep(seconds)
                first.send_signal(signal.SIGCONT)
                assert check_end(second) == 0
        else:
            time.sleep(seconds)
            first.send_signal(signal.SIGCONT)
        assert check_end(first) == 0
    yard.note("stopped, another beside" if beside else "stopped")
    yard.compare(work, expected)
    assert not yard.left(), yard.left()


def early(yard: Yard, work: Work, rng: random.Random) -> None:
    """Interrupt a command while it is still being loaded."""
    expected = yard.undisturbed(work)
    work.lay(yard.stock, yard.place)
    words = [sys.executable, "-m", "rsoup", *map(str, work.words(yard.stock, yard.place))]
    number = rng.choice([signal.SIGINT, signal.SIGTERM])
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        time.sleep(rng.uniform(0.1, 2))
        process.send_signal(number)
        _, err = process.communicate(timeout=PATIENCE)
    yard.note("early", f"ended by {process.returncode}")
    begun = "rsoup" in err  # before that it is Python that is interrupted
    assert "Traceback" not in err or not begun, err[-2000:]
    assert process.returncode in (0, 130, -number), err[-2000:]
    assert not yard.left(), yard.left()
    yard.again(work, expected)


DISTURBANCES: dict[str, Callable[[Yard, Work, random.Random], None]] = {
    own.__name__: own for own in (kill, fill, deny, corrupt, change, twice, stop, early)
}
RECIPES = ("run", "train", "grpo")
"""Works of which a change of the recipe changes what is trained."""


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """Yield a folder on a disk of its own in memory, if that may be had; else an ordinary one."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    mounted = os.geteuid() == 0 and subprocess.run(mount, check=False, capture_output=True).returncode == 0
    try:
        yield folder
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=False)
