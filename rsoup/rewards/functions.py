"""Functions of a user's own as rewards: whatever they ask for by name, they get."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Any, NoReturn

from rsoup.errors import RewardError, did_you_mean
from rsoup.rewards.importing import import_callable
from rsoup.rewards.logs import Log
from rsoup.rewards.loop import event_loop, wait_for
from rsoup.rewards.parameters import BATCH, PLURALS, ROW_ONLY, Parameters, Shape, read_parameters
from rsoup.rewards.samples import Sample

NO_COLUMNS: Mapping[str, str] = {}


@dataclass(frozen=True)
class TrainerState:
    """How far a training is: ``global_step`` of ``max_steps`` steps are done. An evaluation has no steps."""

    global_step: int = 0
    max_steps: int = 0

    @property
    def epoch(self) -> float:
        """The share of the training that is done."""
        return self.global_step / self.max_steps if self.max_steps else 0.0


NO_TRAINING = TrainerState()


class _NoTokens(Sequence[Any]):
    """Stands for token ids that there are none of: a function may be given them, and not read them."""

    def __init__(self, where: str) -> None:
        self._where = where

    def _refusal(self) -> RewardError:
        return RewardError(
            f"{self._where}: reads completion_ids, and a text by itself has no tokens.",
            "Try it with a recipe, whose model has a tokenizer: rsoup rewards NAME --recipe RECIPE.",
        )

    def __len__(self) -> int:
        raise self._refusal()

    def __iter__(self) -> NoReturn:
        raise self._refusal()

    def __getitem__(self, _place: Any) -> NoReturn:
        raise self._refusal()


@dataclass(frozen=True)
class Function:
    """A function that scores completions: a batch at once, or (verl's, for one) each by itself.

    ``columns`` says which column of the data a parameter gets, where the names differ. ``known`` are the columns of
    all rows, once they were checked: a batch whose rows lack one of them has None there.
    """

    call: Callable[..., Any]
    where: str = "the function"
    columns: Mapping[str, str] = field(default_factory=dict)
    state: TrainerState = NO_TRAINING
    log: Log = field(default_factory=Log)
    known: set[str] = field(default_factory=set, compare=False)
    parameters: Parameters = field(init=False)

    def __post_init__(self) -> None:
        """Read the signature; RewardError if the function cannot be called by name."""
        object.__setattr__(self, "parameters", read_parameters(self.call, self.where))

    def __call__(self, samples: Sequence[Sample]) -> Any:
        """Return what the function returns: for a batch as it is, else a list of a value for each sample."""
        self.check_parameters(columns_of(samples))
        if self.parameters.answer is not None:
            rows = self._rows(samples)
            values = [self._one(*pair) for pair in zip(samples, rows, strict=True)]
            return [self._figure(value) for value in _settled(values)]
        value = _settled([self._invoke(self._lists(samples))])[0]
        if self.parameters.is_verls_batch and isinstance(value, (list, tuple)):
            return [self._figure(own) for own in value]
        return value

    def at(self, state: TrainerState, log: Log) -> Function:
        """Return the function at a step of a training, with a place for what it logs."""
        return replace(self, state=state, log=log)

    def begin(self, samples: Sequence[Sample]) -> Any:
        """Let an async function begin on a batch; what is returned waits for it, and scores other batches anew."""
        waits = self.parameters.answer is None and not self.parameters.is_verls_batch
        if not waits or not inspect.iscoroutinefunction(inspect.unwrap(self.call)):
            return self

        async def work() -> Any:
            return await self._invoke(self._lists(samples))

        self.check_parameters(columns_of(samples))
        begun = asyncio.run_coroutine_threadsafe(work(), event_loop())
        return lambda batch: begun.result() if len(batch) == len(samples) else self(batch)

    def told(self, samples: Sequence[Sample]) -> str:
        """Return in which shape the function was given completions, for who looks for what went wrong."""
        if isinstance(_completion(samples[0], self._shape), str):
            return "Its completions were texts (lists of messages come from rows with messages)."
        return "Its completions were lists of messages (completions: list[str] asks for texts)."

    def check_parameters(self, columns: Collection[str]) -> None:
        """Refuse, by name, what the function needs and rows with these columns do not give."""
        columns = {*columns, *self.known}
        known = {*columns, *(name for name, column in self.columns.items() if column in columns)}
        for name, column in self.columns.items():
            if column not in columns:
                raise RewardError(
                    f"{self.where}: its parameter {name!r} is to get the column {column!r}, which the rows have not.",
                    did_you_mean(column, columns),
                )
        for name in self.parameters.missing(known):
            beside = f"beside {', '.join(self.parameters.given)}"
            hint = f"The rows have no columns {beside}; rsoup rewards takes --column {name}=VALUE."
            if columns:
                hint = (
                    f"The rows have {', '.join(sorted(columns))} {beside}; columns: {{{name}: ONE OF THEM}} gives one."
                )
            raise RewardError(f"{self.where}: nothing gives its parameter {name!r}.", hint)
        answer = self.parameters.answer
        if answer == "response" and answer in columns:
            raise RewardError(
                f"{self.where}: its parameter 'response' may be the completion or the column of the rows.",
                "Call it completion if it is to be the completion, or name completions as well.",
            )
        self.known.update(columns)

    @property
    def _shape(self) -> Shape | None:
        return self.parameters.shape or (None if self.parameters.answer is None else "texts")

    def _invoke(self, values: Mapping[str, Any]) -> Any:
        wanted = self.parameters.names
        arguments = {name: values[name] for name in wanted if name in values}
        if self.parameters.in_order:  # those after one that keeps its default keep theirs
            return self.call(*(values[name] for name in takewhile(values.__contains__, wanted)))
        if self.parameters.rest:
            arguments |= {name: value for name, value in values.items() if name not in {*wanted, *ROW_ONLY}}
        return self.call(**arguments)

    def _lists(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """Return what a function of a batch may ask for, by name."""
        rows = self._rows(samples)
        values: dict[str, Any] = {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}
        shape = self._shape
        completions = [_completion(sample, shape) for sample in samples]
        if self.parameters.is_verls_batch:
            given = {own: values.get(one) for own, one in PLURALS.items() if one in values}
            values = {"extra_infos": [{} for _ in samples], BATCH: completions, **given, **values}
        return {
            **values,
            "prompts": [_prompt(sample, shape) for sample in samples],
            "completions": completions,
            **self._tokens(samples),
            "trainer_state": self.state,
            "log_extra": self.log.extra,
            "log_metric": self.log.metric,
        }

    def _tokens(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """Return the token ids of completions; of texts that nobody sampled or tokenised there are none to be read."""
        if all(sample.tokens or not sample.completion for sample in samples):
            return {"completion_ids": [list(sample.tokens) for sample in samples]}
        if "completion_ids" in self.parameters.optional:
            return {}
        return {"completion_ids": _NoTokens(self.where)}

    def _rows(self, samples: Sequence[Sample]) -> list[dict[str, Any]]:
        """Return the columns of each row, under the parameters' names as well; None where a row lacks one."""
        rows = [_columns(sample) for sample in samples]
        names = sorted({*self.known, *(name for row in rows for name in row)})
        full = [{name: _own(row.get(name)) for name in names} for row in rows]
        return [{**row, **{name: row[column] for name, column in self.columns.items()}} for row in full]

    def _one(self, sample: Sample, row: Mapping[str, Any]) -> Any:
        """Score a single sample; its completion is a text, unless the annotation says messages."""
        assert self.parameters.answer is not None
        values: dict[str, Any] = {"extra_info": {}} if self.parameters.answer == "solution_str" else {}
        values |= row
        shape = self._shape
        return self._invoke(
            {
                **values,
                self.parameters.answer: _completion(sample, shape),
                "prompt": _prompt(sample, shape),
                "trainer_state": self.state,
                "log_metric": self.log.metric,
            }
        )

    def _figure(self, value: Any) -> Any:
        """Return the score of a result; the other figures beside verl's ``score`` are logged."""
        if not isinstance(value, Mapping):
            return value
        if "score" not in value:
            raise RewardError(
                f"{self.where}: returned a mapping without 'score', of {', '.join(map(repr, value))}.",
                "Return a number, or a mapping with score and further figures.",
            )
        for name, figure in value.items():
            if name != "score" and isinstance(figure, (bool, int, float)):
                self.log.metric(name, figure)
        return value["score"]


def columns_of(samples: Iterable[Sample]) -> set[str]:
    """Return the names of the columns that rows give to functions."""
    return {name for sample in samples for name in _columns(sample)}


def check_functions(scorers: Iterable[Any], samples: Sequence[Sample]) -> None:
    """Refuse functions among some scorers that need what no column of the samples' rows gives."""
    columns = columns_of(samples)
    for scorer in scorers:
        if isinstance(scorer, Function):
            scorer.check_parameters(columns)


def _columns(sample: Sample) -> dict[str, Any]:
    """Return a row's columns; ``ground_truth``, where it is none of them, is verl's or the reference answer."""
    columns = dict(sample.columns)
    if "ground_truth" not in columns:
        model = columns.get("reward_model")
        if isinstance(model, Mapping) and "ground_truth" in model:
            columns["ground_truth"] = model["ground_truth"]
        elif sample.reference is not None:
            columns["ground_truth"] = sample.reference
    return columns


def _own(value: Any) -> Any:
    """Return a plain value that a function may change: the rows stay as they are."""
    if isinstance(value, dict):
        return {key: _own(own) for key, own in value.items()}
    return [_own(own) for own in value] if isinstance(value, list) else value


def _prompt(sample: Sample, shape: Shape | None) -> Any:
    if shape == "texts" or (shape is None and sample.messages is None):
        return sample.post
    messages = sample.messages if sample.messages is not None else ({"role": "user", "content": sample.post},)
    return [_own(dict(message)) for message in messages]


def _completion(sample: Sample, shape: Shape | None) -> Any:
    if shape == "texts" or (shape is None and sample.messages is None):
        return sample.completion
    return [{"role": "assistant", "content": sample.completion}]


def _settled(values: list[Any]) -> list[Any]:
    """Return values, those that are awaitable all awaited together."""
    waiting = {place: value for place, value in enumerate(values) if inspect.isawaitable(value)}
    if not waiting:
        return values
    found = wait_for(_together(list(waiting.values())))
    for place, value in zip(waiting, found, strict=True):
        values[place] = value
    return values


async def _together(values: list[Awaitable[Any]]) -> list[Any]:
    return list(await asyncio.gather(*values))


def load_function(where: str, columns: Mapping[str, str] = NO_COLUMNS) -> Function:
    """Import ``module:function`` or ``path/to/file.py:function``, which may be a callable object or a class of such."""
    return Function(import_callable(where), where, columns)
