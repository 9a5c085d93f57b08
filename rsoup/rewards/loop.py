"""The event loop that all async rewards and all judges share."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")


@cache
def event_loop() -> asyncio.AbstractEventLoop:
    """Return the loop: it stays, as connections that rewards keep belong to it."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="async rewards", daemon=True).start()
    return loop


def wait_for(work: Coroutine[Any, Any, T]) -> T:
    """Return what a coroutine comes to; it is given up with whoever waits, as by Ctrl-C."""
    begun = asyncio.run_coroutine_threadsafe(work, event_loop())
    try:
        return begun.result()
    except BaseException:
        begun.cancel()
        raise
