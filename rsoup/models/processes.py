"""Which of the processes of a launcher this is."""

from __future__ import annotations

from accelerate import PartialState
from accelerate.utils import parse_flag_from_env


def this_process() -> PartialState:
    """Return this process among those of a launcher, as accelerate sees it.

    Whoever asks accelerate first decides what it sees, so all have to ask alike.
    """
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))
