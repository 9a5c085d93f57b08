"""Where Ray is to be found; this module does not load it."""

from __future__ import annotations

import importlib.util
import os
import re
import socket
import time
from collections.abc import Sequence
from pathlib import Path

from rsoup.errors import MissingPackageError, RecipeError, RsoupError, first_line
from rsoup.installing import pip_line

START = "Start a cluster with ray start --head, or give --ray no address to start Ray on this machine."
GO_ON = "The same command continues, once Ray runs again; without an address --ray starts it."
HERE = "local"
"""The address that starts Ray on this machine."""
PATIENCE = 5.0
"""Seconds that an address has to answer."""
ADDRESS = re.compile(r"auto|local|ray://\S+|[\w.-]+:\d+|\[[0-9a-fA-F:]+\]:\d+")


def with_address(words: Sequence[str], option: str = "--ray") -> list[str]:
    """Write ``--ray`` without an address as ``--ray=local``: the parser takes one value per option.

    What follows is an address if it is auto, host:port or ray://host:port.
    """
    result: list[str] = []
    for word in words:
        if result and result[-1] == option:
            result[-1] = f"{option}={word}" if ADDRESS.fullmatch(word) else f"{option}={HERE}"
            if ADDRESS.fullmatch(word):
                continue
        result.append(word)
    if result and result[-1] == option:
        result[-1] = f"{option}={HERE}"
    return result


def prepare(address: str) -> None:
    """Check an address, and set what Ray reads when it is loaded: no statistics, and on this machine no open ports."""
    if not ADDRESS.fullmatch(address):
        raise RecipeError(f"--ray {address}: is not an address.", "Give host:port, ray://host:port, auto, or nothing.")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RecipeError(
            "--ray is given to a command that a launcher started.",
            "Start it without accelerate launch or torchrun; training.gpus says how many GPUs a training takes.",
        )
    if importlib.util.find_spec("ray") is None:
        raise MissingPackageError("ray", "--ray", pip_line("ray"))
    if address.startswith("ray://") and importlib.util.find_spec("grpc") is None:
        raise MissingPackageError("grpcio", f"--ray {address}", 'pip install "ray[client]"')
    if address != HERE:
        _knock(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")  # else a thread that still waits at the end starts Ray anew
    if address == HERE:
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # named after those who never have one


def _knock(address: str) -> None:
    """Raise RsoupError if nothing answers at an address; Ray itself tries for minutes."""
    place = _of_this_machine() if address == "auto" else address
    problem = silence(place)
    if problem is not None:
        where = f" ({place})" if place != address else ""
        raise RsoupError(f"--ray {address}{where}: nothing answers there ({first_line(problem)}).", START) from problem


def silence(place: str) -> Exception | None:
    """Return what keeps an address from being reached; None if something answers, or the address is empty."""
    host, _, port = place.removeprefix("ray://").partition("/")[0].rpartition(":")
    if not host:
        return None  # none is known, which Ray says at once
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE).close()
    except (OSError, ValueError, OverflowError) as problem:
        return problem
    return None


class Head:
    """Ray's head, which may be gone for some seconds: on a cluster somebody may start it again."""

    def __init__(self, place: str, seconds: float) -> None:
        self._place, self._seconds = place, seconds
        self._silent_since: float | None = None

    def is_there(self) -> bool:
        """Tell whether it answers."""
        return silence(self._place) is None

    def answers(self) -> bool:
        """Tell whether it answers; RsoupError once it has not for too long."""
        problem, now = silence(self._place), time.monotonic()
        if problem is None:
            self._silent_since = None
            return True
        self._silent_since = self._silent_since or now
        if now - self._silent_since < self._seconds:
            return False
        raise HeadGoneError(
            f"Ray's head is gone ({self._place}: {first_line(problem)}).",
            GO_ON,
        ) from problem


class HeadGoneError(RsoupError):
    """Nothing can be asked of Ray any more."""


def _of_this_machine() -> str:
    """Return the address of the cluster that this machine is part of, as Ray notes it; empty if it is of none."""
    try:
        noted = (Path("/tmp/ray") / "ray_current_cluster").read_text(encoding="utf-8").strip()
    except OSError:
        noted = ""
    return os.environ.get("RAY_ADDRESS") or noted
