"""Adapter arithmetic with numpy alone: no base model, no torch. Nothing here prints.

    from rsoup import mixing

    soup = mixing.mix(["runs/a", "runs/b"], [0.3, 0.7])        # in memory; soup.warnings says what is unverified
    mixing.write(soup, "runs/a-b")                             # an adapter folder that PEFT and vLLM load
    mixing.merge(soup, "models/base", "models/a-b")            # a merged model, shard by shard
    mixing.write_grid(["runs/a", "runs/b"], 10, "runs/grid")   # eleven mixes along the line
    mixing.check(["runs/a", "runs/b"])                         # will they mix: figures and sentences

The methods, each with its formula and source, are in ``METHODS``. Every failure is an RsoupError with a hint. Whole
models are mixed by ``rsoup.mixing.checkpoints``.
"""

from rsoup.adapters import read_adapter as read
from rsoup.mixing.check import AdapterFacts, CheckReport, LayerFacts, check
from rsoup.mixing.merging import Merge, merge
from rsoup.mixing.methods import METHODS, Options, check_method
from rsoup.mixing.soup import Soup, check_dtype, mix
from rsoup.mixing.weights import check_weights, lattice, line_weights
from rsoup.mixing.writing import Grid, grid, write, write_grid

__all__ = [
    "METHODS",
    "AdapterFacts",
    "CheckReport",
    "Grid",
    "LayerFacts",
    "Merge",
    "Options",
    "Soup",
    "check",
    "check_dtype",
    "check_method",
    "check_weights",
    "grid",
    "lattice",
    "line_weights",
    "merge",
    "mix",
    "read",
    "write",
    "write_grid",
]
