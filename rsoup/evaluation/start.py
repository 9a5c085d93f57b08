"""The model that KL is measured to: where the training of the adapters began."""

from __future__ import annotations

from collections.abc import Iterable

from rsoup import mixing
from rsoup.adapters import Adapter
from rsoup.adapters.reading import WEIGHTS_FILE
from rsoup.files import sha256_file
from rsoup.recipe import START


def start_of(adapters: Iterable[Adapter]) -> tuple[Adapter | None, str | None]:
    """Return the adapter that training began from, None for the base itself, and what is to be said about it.

    It is looked for beside the adapters, under the name init. A fresh adapter changes nothing: the start is the base,
    as it is of an adapter that was extracted from a model.
    """
    named = {own.provenance.init_sha256: own for own in adapters if own.provenance and own.provenance.init_sha256}
    named = {sha256: own for sha256, own in named.items() if own.provenance and own.provenance.base_sha256 != sha256}
    if len(named) > 1:
        return None, "The adapters began from different starts: KL is measured to the base."
    for sha256, adapter in named.items():
        folder = adapter.path.parent / START if adapter.path else None
        if folder is None or not (folder / WEIGHTS_FILE).is_file() or sha256_file(folder / WEIGHTS_FILE) != sha256:
            return None, "The start of the adapters (the folder init) is not beside them: KL is measured to the base."
        start = mixing.read(folder)
        if start.saved or any(layer.up.any() and layer.down.any() for layer in start.layers.values()):
            return start, None
    return None, None
