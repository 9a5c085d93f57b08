"""``--ray``: who does the stages of a command."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from rsoup.cli.display import say

if TYPE_CHECKING:
    from rsoup.recipe import Recipe
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
    from rsoup.stages.graph import Needs
    from rsoup.stages.workshop import Workshop

    with connected(address, Workshop) as cluster:
        machines = sum(cluster.machines(), Needs())
        say(f"Ray has {_count(machines.gpus, 'GPU')} and {_count(machines.cpus, 'core')}.")
        yield cluster


@contextmanager
def crew_for(address: str | None, recipe: Recipe) -> Iterator[Crew | None]:
    """Yield who does the stages of a run: those at an address, or whatever uses all GPUs of this machine; None: we.

    A base that is spread over the GPUs leaves none for others.
    """
    from importlib.util import find_spec

    import torch

    from rsoup.stages.address import HERE
    from rsoup.stages.gpus import names_of, one_process_each, way_of

    whole = recipe.model.placement == "auto"
    gpus = names_of(torch.cuda.device_count(), os.environ) if address is None and whole else []
    way = way_of(gpus, os.environ, has_ray=find_spec("ray") is not None)
    if way == "processes":
        with one_process_each(gpus, recipe.folder, say) as logs:
            say(
                f"{len(gpus)} GPUs, a process for each: this one uses {gpus[0]}, the others write to {logs[0].parent}. "
                f"CUDA_VISIBLE_DEVICES={gpus[0]} would use one."
            )
            yield None
        return
    if way == "ray":
        say(f"{len(gpus)} GPUs: Ray uses them all. CUDA_VISIBLE_DEVICES={gpus[0]} would use one.")
    with crew_at(HERE if way == "ray" else address) as crew:
        yield crew


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"
