"""Mixes as folders on disk, for engines that load an adapter before they serve it.

Weights are rounded to a grid, so that there are never more folders than ``MOST``, whatever is asked for.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from rsoup import mixing
from rsoup.adapters import Adapter
from rsoup.errors import AdapterError
from rsoup.files import sha256_json
from rsoup.models.rowwise import Method, Mix

MOST = 1_000
"""Mixes kept on disk."""
STEPS = (100, 50, 20, 10, 5, 4, 3, 2, 1)
"""Grids to choose from, in steps of 1 / n."""


def steps_for(ingredients: int, most: int = MOST) -> int:
    """Return the finest grid of the simplex that has no more than ``most`` mixes of so many ingredients.

    A grid of n steps has binom(n + N - 1, N - 1) mixes of N ingredients; the last resort is their corners.
    """
    return next((steps for steps in STEPS if math.comb(steps + ingredients - 1, ingredients - 1) <= most), 1)


def on_grid(weights: Sequence[float], steps: int) -> tuple[float, ...]:
    """Round weights that sum to 1 to multiples of 1 / steps that do, too (largest remainders)."""
    shares = [weight * steps for weight in weights]
    whole = [math.floor(share + 1e-9) for share in shares]
    left = steps - sum(whole)
    order = sorted(range(len(shares)), key=lambda place: (whole[place] - shares[place], place))
    for place in order[:left]:
        whole[place] += 1
    return tuple(number / steps for number in whole)


class SoupFolders:
    """A folder per mix of some adapters, made when first asked for.

    They lie under a folder named after the adapters' content: those of adapters that have changed are removed.
    """

    def __init__(self, adapters: Mapping[str, Adapter], method: Method, folder: Path, most: int = MOST) -> None:
        self.adapters, self.method = dict(adapters), method
        self.steps = steps_for(len(self.adapters) + 1, most)  # the base takes part
        identity = sha256_json([method, *[[name, str(own.identity)] for name, own in self.adapters.items()]])[:16]
        self.folder = folder / identity
        for other in folder.glob("*"):
            if other.is_dir() and other != self.folder and len(other.name) == len(identity):
                shutil.rmtree(other, ignore_errors=True)

    @property
    def rank(self) -> int:
        """The largest rank that a mix may have."""
        ranks = [max((layer.rank for layer in own.layers.values()), default=1) for own in self.adapters.values()]
        return sum(ranks) if self.method == "cat" else max(ranks, default=1)

    def rounded(self, mix: Mix) -> Mix:
        """Return the mix of the grid that is served for one; AdapterError if it has a negative weight."""
        if min((*mix.weights, mix.base_weight)) < 0:
            raise AdapterError(
                "A mix with a negative weight is on no grid.", "Serve it by rsoup's own engine, or write it: rsoup mix."
            )
        *weights, base = on_grid((*mix.weights, mix.base_weight), self.steps)
        return Mix(tuple(weights), base)

    def path(self, mix: Mix) -> Path | None:
        """Return the folder of the mix that is served for one, None for the base. AdapterError if it cannot be made."""
        mix = self.rounded(mix)
        used = {name: weight for name, weight in zip(self.adapters, mix.weights, strict=True) if weight}
        if not used:
            return None
        numbers = [round(weight * self.steps) for weight in mix.weights]
        soup = mixing.mix(
            [self.adapters[name] for name in used],
            list(used.values()),
            method=self.method,
            base_weight=mix.base_weight,
            allow_different_starts=True,  # checked when the run was opened
        )
        return mixing.write(soup, self.folder / "-".join(map(str, numbers)))
