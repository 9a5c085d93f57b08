"""A first recipe, from a look at the data and a few answers.

``look`` tells what the rows are, ``suggest`` which rewards fit them, ``read_rewards`` reads those that are asked for,
``compose`` writes the recipe, ``check`` resolves it before it is kept.
"""

from __future__ import annotations

from rsoup.starting.checking import check, takes_chat
from rsoup.starting.composing import Answers, compose
from rsoup.starting.looking import Look, look, remarks_on
from rsoup.starting.rewarding import fitting_length, functions_in, read_rewards, suggest
from rsoup.starting.sizes import SIZES, default_base

__all__ = [
    "SIZES",
    "Answers",
    "Look",
    "check",
    "compose",
    "default_base",
    "fitting_length",
    "functions_in",
    "look",
    "read_rewards",
    "remarks_on",
    "suggest",
    "takes_chat",
]
