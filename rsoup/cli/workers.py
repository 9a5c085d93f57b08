"""``--ray``: who does the stages of a command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from rsoup.cli.display import say

if TYPE_CHECKING:
    from rsoup.stages.dispatch import Crew

RayOption = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="[ADDRESS]",
        help="Let Ray's workers do the stages: on this machine, or with an address (auto, host:port, ray://host:port) "
        "on those of a cluster.",
        show_default=False,
    ),
]


@contextmanager
def crew_at(address: str | None) -> Iterator[Crew | None]:
    """Yield the workers that an address of Ray stands for; None without one."""
    if address is None:
        yield None
        return
    from rsoup.stages.address import prepare

    prepare(address)
    from rsoup.stages.cluster import connected
    from rsoup.stages.workshop import Workshop

    with connected(address, Workshop) as cluster:
        machines = cluster.machines()
        say(f"Ray has {_count(machines.gpus, 'GPU')} and {_count(machines.cpus, 'core')}.")
        yield cluster


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"
