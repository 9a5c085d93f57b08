"""The model that KL is measured to: where the training of the adapters began."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rsoup import mixing
from rsoup.adapters import Adapter
from rsoup.adapters.reading import WEIGHTS_FILE
from rsoup.files import sha256_file
from rsoup.recipe import START


def start_of(adapters: Iterable[Adapter]) -> tuple[Adapter | None, str | None]:
    """Return the adapter that training began from, None for the base itself, and what is to be said about it.

    It is looked for beside the adapters, under the name init, or where their run has it. A fresh adapter changes
    nothing: the start is the base, as it is of an adapter that was extracted from a model.
    """
    named = {own.provenance.init_sha256: own for own in adapters if own.provenance and own.provenance.init_sha256}
    named = {sha256: own for sha256, own in named.items() if own.provenance and own.provenance.base_sha256 != sha256}
    if len(named) > 1:
        return None, "The adapters began from different starts: KL is measured to the base."
    for sha256, adapter in named.items():
        folder = _start_beside(adapter)
        if folder is None or sha256_file(folder / WEIGHTS_FILE) != sha256:
            return None, "The start of the adapters (the folder init) is not beside them: KL is measured to the base."
        start = mixing.read(folder)
        if start.saved or any(layer.up.any() and layer.down.any() for layer in start.layers.values()):
            return start, None
    return None, None


def _start_beside(adapter: Adapter) -> Path | None:
    """Return the folder of the start that lies beside an adapter, or beside what its training ended with."""
    if adapter.path is None:
        return None
    place = adapter.path.resolve()
    places = [place.parent / START, *(run / "adapters" / START for run in place.parents[2:3])]
    return next((folder for folder in places if (folder / WEIGHTS_FILE).is_file()), None)
