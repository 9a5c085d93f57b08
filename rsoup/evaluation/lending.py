"""Evaluate on a base that is split over processes: the leading one computes, the others lend it their parts.

What a sweep computes depends on what is kept and on where completions end, so only one process decides it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from accelerate.utils import broadcast_object_list

from rsoup.models.language_model import LanguageModel
from rsoup.models.processes import this_process
from rsoup.resolve import Base


def lends(base: Base) -> bool:
    """Tell whether this process is one that lends its part of a base, and decides nothing."""
    return base.section.placement == "sharded" and not this_process().is_main_process


def lend(base: Base) -> None:
    """Lend this process's part of a base to the leading one, as long as it is within ``borrowed``."""
    while (dtype := _agreed(None)) is not None:
        shards = base.load(dtype).shards
        assert shards is not None
        shards.lend()


@contextmanager
def borrowed(base: Base) -> Iterator[Callable[[str], LanguageModel]]:
    """Yield what loads the base in some type, once, for this process alone to compute with within the block."""
    if base.section.placement != "sharded" or this_process().num_processes == 1:  # which loading refuses
        yield base.load
        return
    asked: list[str | None] = []
    loaded: list[None] = []
    led = ExitStack()

    def load(dtype: str) -> LanguageModel:
        asked.append(_agreed(dtype))
        model = base.load(dtype)
        assert model.shards is not None
        loaded.append(led.enter_context(model.shards.led()))
        return model

    try:
        with led:
            yield load
    finally:
        if len(loaded) == len(asked):  # what loading raises, the others raise too: they listen no more
            _agreed(None)


def _agreed(dtype: str | None) -> str | None:
    """Return what the leading process says: the type of the weights to load now, or None if there is nothing more."""
    told = [dtype]
    broadcast_object_list(told)
    return told[0]
