"""What a reward function asks for, told by the names of its parameters."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from rsoup.errors import RewardError

Shape = Literal["texts", "messages"]
"""What completions are to a function: strings, or lists of messages."""

COMPLETIONS = ("completions", "completion_ids")
LISTS = ("prompts", *COMPLETIONS, "trainer_state", "log_extra", "log_metric")
"""What a function of a whole batch may ask for beside the columns of the rows (TRL's names)."""
BATCH = "solution_strs"
"""What the completions of a batch are called by verl's functions of one."""
PLURALS = {"data_sources": "data_source", "ground_truths": "ground_truth", "extra_infos": "extra_info"}
"""What such functions call columns of the rows."""

ANSWERS = ("solution_str", "completion", "response")
"""What the single completion is called by a function that scores one at a time; the first is verl's name."""
SINGLES = ("prompt", "trainer_state", "log_metric")

ROW_ONLY = ("prompt", "completion")
"""Columns that ``**kwargs`` does not get, as in TRL: the row's own answer is not what is scored."""

VARIABLE = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)


@dataclass(frozen=True)
class Parameters:
    """The names that a function ``needs``, and those it can do without.

    ``rest``: ``**kwargs`` takes whatever else there is. ``answer``: it is called once for each completion, which has
    this name. ``in_order``: a decorator takes its arguments by position alone. ``shape``: what its annotations say
    that completions are, if they say it.
    """

    needs: tuple[str, ...]
    optional: tuple[str, ...]
    rest: bool
    answer: str | None
    in_order: bool = False
    shape: Shape | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Every name, those that are needed first."""
        return (*self.needs, *self.optional)

    @property
    def given(self) -> tuple[str, ...]:
        """The names that need no column."""
        if self.answer is not None:
            return (self.answer, *SINGLES)
        return (*LISTS, BATCH, "extra_infos") if self.is_verls_batch else LISTS

    @property
    def is_verls_batch(self) -> bool:
        """Whether it takes a batch under verl's names."""
        return BATCH in self.names

    def missing(self, columns: Collection[str]) -> list[str]:
        """Return what it needs and neither a completion nor a column of these names gives."""
        plurals = {own for own, one in PLURALS.items() if one in columns} if self.is_verls_batch else set()
        known = {*self.given, *columns, *plurals}
        return [name for name in self.needs if name not in known]


def read_parameters(call: Callable[..., Any], where: str) -> Parameters:
    """Return what a function asks for; RewardError, which names it ``where``, if it cannot be called by name."""
    found, in_order = _signature(call, where)
    named = {parameter.name: parameter for parameter in found if parameter.kind not in VARIABLE}
    rest = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in found)
    for name, parameter in named.items():
        if parameter.kind is inspect.Parameter.POSITIONAL_ONLY and not in_order:
            raise RewardError(
                f"{where}: its parameter {name!r} takes a value by position only, and values are given by name.",
                f"Take the / out of its signature. The names are {', '.join(LISTS)} and the columns of the rows.",
            )
    if not named and not rest and found:
        raise RewardError(
            f"{where}: takes *{found[0].name} alone, and values are given by name.",
            f"Name its parameters: {', '.join(LISTS)} and the columns of the rows.",
        )
    answer = _answer(where, named, rest=rest)
    return Parameters(
        needs=tuple(name for name, parameter in named.items() if parameter.default is parameter.empty),
        optional=tuple(name for name, parameter in named.items() if parameter.default is not parameter.empty),
        rest=rest,
        answer=answer,
        in_order=in_order,
        shape="texts" if BATCH in named else _shape(named, (answer,) if answer else ("completions", "prompts")),
    )


def _signature(call: Callable[..., Any], where: str) -> tuple[list[inspect.Parameter], bool]:
    """Return the parameters of a function, and whether they can only be given in order.

    A decorator that passes ``**kwargs`` on takes what the function under it takes (``functools.wraps`` tells which),
    one that passes ``*args`` alone takes it in its order; one with parameters of its own takes these.
    """
    try:
        whole = list(inspect.signature(call).parameters.values())
    except (TypeError, ValueError) as problem:
        raise RewardError(
            f"{where}: its parameters cannot be read ({problem}).", "Call it from a function with named parameters."
        ) from problem
    try:
        own = list(inspect.signature(call, follow_wrapped=False).parameters.values())
    except (TypeError, ValueError):  # a decorator in C, such as functools.lru_cache
        return whole, False
    kinds = {parameter.kind for parameter in own}
    same = [(one.name, one.kind) for one in own] == [(one.name, one.kind) for one in whole]
    if same or inspect.Parameter.VAR_KEYWORD not in kinds:
        in_order = not same and inspect.Parameter.VAR_POSITIONAL in kinds
        return (whole if in_order else own), in_order
    inner = {parameter.name for parameter in whole}
    return [*whole, *(one for one in own if one.kind not in VARIABLE and one.name not in inner)], False


def _answer(where: str, named: Mapping[str, inspect.Parameter], *, rest: bool) -> str | None:
    """Return the name of the single completion, None if a function takes lists; RewardError if it reads none."""
    if next(iter(named), None) == "self":
        raise RewardError(
            f"{where}: is a method, which needs an object of its class.",
            "Make one in the file (judge = Judge()), and give its method: file.py:judge.score.",
        )
    answer = next((name for name in ANSWERS if name in named), None)
    if any(name in named for name in ("prompts", BATCH, *COMPLETIONS)):
        answer = None
    reads = answer is not None or any(name in named for name in (BATCH, *COMPLETIONS))
    if not reads and "queries" in named:
        raise RewardError(
            f"{where}: reads queries, which for OpenRLHF are prompt and answer as one text; rsoup makes no such text.",
            "Let it take prompts and completions, and columns of the rows by their names.",
        )
    if not reads and not rest:
        takes = ", ".join(named) if named else "nothing"
        raise RewardError(
            f"{where}: reads no completion: it takes {takes}.",
            "Name a parameter completions (a list), or completion (one at a time, as response or verl's solution_str). "
            "If it makes a reward, call it in a file of yours (mine = make(...)) and give that (file.py:mine).",
        )
    return answer


def _shape(named: Mapping[str, inspect.Parameter], order: Collection[str]) -> Shape | None:
    """Return what annotations say that completions are: ``list[str]`` is texts, ``list[list[dict]]`` messages."""
    for name in order:
        if name in named and named[name].annotation is not inspect.Parameter.empty:
            annotation = named[name].annotation
            said = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
            texts = re.search(r"\[str\]|^str$", said.replace(" ", "")) is not None
            messages = re.search(r"dict|list\[list|sequence\[sequence|messages?\b", said.replace(" ", ""), re.I)
            if texts != bool(messages):
                return "texts" if texts else "messages"
    return None
