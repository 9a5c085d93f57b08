"""Tasks of lm-evaluation-harness: found, identified, rehearsed, and measured on any model that answers its requests.

What imports lm-eval lies in modules of their own, which nothing but an evaluation with benchmarks loads.
"""

from __future__ import annotations

import importlib.util

from rsoup.errors import MissingPackageError
from rsoup.installing import pip_line

__all__ = ["require_lm_eval"]


def require_lm_eval() -> None:
    """Raise MissingPackageError if lm-eval is not installed."""
    if importlib.util.find_spec("lm_eval") is None:
        raise MissingPackageError("lm-eval", "evaluation.benchmarks", pip_line("bench"))
