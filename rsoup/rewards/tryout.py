"""Try a reward on one text, and a recipe's rewards on its reference answers, before anything is trained on them."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from rsoup.errors import ModelError, RecipeError, RewardError
from rsoup.progress import Progress
from rsoup.recipe import Recipe, ResponseRule, RewardSection
from rsoup.rewards import left_open
from rsoup.rewards.functions import NO_TRAINING, Function, check_functions, columns_of
from rsoup.rewards.judges.usage import Usage, counted, snapshot, used_since
from rsoup.rewards.logs import Log
from rsoup.rewards.samples import Sample, sample_of
from rsoup.rewards.scoring import Scorer, logging_to, make_scorer, mean_of, score
from rsoup.tasks import Task, resolve_task
from rsoup.tasks.gym import SCHEME
from rsoup.tasks.loading import Example, Examples, Rows, read_rows
from rsoup.tasks.prompts import make_examples
from rsoup.tasks.responses import apply_rule
from rsoup.tasks.rows import Row
from rsoup.tasks.sources import is_remote

if TYPE_CHECKING:
    from rsoup.rewards.classifier import Read
    from rsoup.rewards.judges.judge import Judged


@dataclass(frozen=True)
class Trial:
    """The score of a sample (None: the reward does not apply) and, of a classifier or a judge, what was read.

    Of a function: the parameters that it was given, and what it told beside.
    """

    sample: Sample
    score: float | None
    reading: Read | Judged | None = None
    parameters: Sequence[str] = ()
    told: Mapping[str, Any] = field(default_factory=dict)


Tokens = Callable[[str], tuple[int, ...]]
"""Makes the token ids of a text, as they are when it was sampled to its end."""


def tokens_of(recipe: Recipe) -> Tokens:
    """Return what makes the tokens of an answer with the tokenizer of a recipe's model, loaded when first needed."""
    loaded: list[Any] = []

    def make(text: str) -> tuple[int, ...]:
        from rsoup.models.load import load_tokenizer  # loads torch

        if not loaded:
            loaded.append(load_tokenizer(recipe.model.base, recipe.model.revision))
        end = loaded[0].eos_token_id
        ids = loaded[0](text, add_special_tokens=False, verbose=False)["input_ids"]
        return (*ids, *([] if end is None else [end]))

    return make


def reads_tokens(scorer: Scorer) -> bool:
    """Tell whether a reward reads the token ids of completions."""
    return isinstance(scorer, Function) and "completion_ids" in scorer.parameters.names


def try_reward(
    name: str, section: RewardSection, *samples: Sample, tokens: Tokens | None = None, talks: bool | None = None
) -> Trial:
    """Score one completion with a reward; several samples are ways to read one, of which the first that works counts.

    A function that does not say in which shape it takes completions gets messages if the rows are conversations
    (``talks``); where that is not known (None), also if it fails on texts, or does not apply to them.
    """
    scorer = make_scorer(name, section)
    if not isinstance(scorer, Function):
        read, log = getattr(scorer, "read", None), Log()
        value = _single(name, logging_to(log, scorer), samples[0])
        return Trial(samples[0], value, read(samples[0]) if read is not None else None, told=log.means())
    scorer.check_parameters(columns_of(samples))
    if tokens is not None and reads_tokens(scorer):
        samples = tuple(replace(own, tokens=tokens(own.completion)) for own in samples)
    chats = tuple(replace(own, messages=({"role": "user", "content": own.post},)) for own in samples)
    if talks is not None or scorer.parameters.shape is not None:
        return _first_that_works(name, scorer, chats if talks else samples)
    return _in_either_shape(name, scorer, samples, chats)


def _in_either_shape(name: str, scorer: Function, samples: Sequence[Sample], chats: Sequence[Sample]) -> Trial:
    """Try texts and then messages; RewardError tells what fails with both."""
    trial: Trial | None = None
    try:
        trial = _first_that_works(name, scorer, samples)
    except RewardError as problem:
        if problem.__cause__ is None:  # it returned what is no score
            raise
        first = problem
    if trial is not None and trial.score is not None:
        return trial
    try:
        other = _first_that_works(name, scorer, chats)
    except RewardError as problem:
        if trial is not None:
            return trial
        hint = "Mend it for the rows you have: --recipe RECIPE tries it as those are."
        message = f"{first.message} Given lists of messages in the place of texts: {problem.message}"
        raise RewardError(message, hint) from first.__cause__
    return other if trial is None or other.score is not None else trial


def talks_in(recipe: Recipe) -> bool | None:
    """Tell whether the rows of a recipe are conversations; None if they are not on this machine."""
    task = resolve_task(recipe.task)
    if is_remote(task.data) and not task.data.startswith(SCHEME):
        return None
    return read_rows(task, "train").rows[0].messages is not None


def answer_for(row: Row | Example, rule: ResponseRule) -> str:
    """Return what stands for a completion before there is one: the reference answer, or the post's first sentence."""
    return apply_rule(row.post, "first_sentence") if row.reference is None else apply_rule(row.reference, rule)


def _first_that_works(name: str, function: Function, samples: Sequence[Sample]) -> Trial:
    for sample in samples[:-1]:
        with suppress(RewardError):
            return _try_function(name, function, sample)
    return _try_function(name, function, samples[-1])


def _try_function(name: str, function: Function, sample: Sample) -> Trial:
    log = Log()
    value = _single(name, function.at(NO_TRAINING, log), sample)
    there = {*function.parameters.given, *function.columns, *columns_of([sample])}
    given = [one for one in function.parameters.names if one in there]
    return Trial(sample, value, None, given, {**log.means(), **log.first()})


def _single(name: str, scorer: Scorer, sample: Sample) -> float | None:
    return mean_of(score(name, scorer, [sample]))


@dataclass(frozen=True)
class RewardCheck:
    """What a reward makes of a recipe's answers: the mean and the spread of all scores, texts scored in a second.

    ``preferred`` is the share of posts whose own answer scores better than another post's (a tie counts half) with its
    standard error; None without reference answers. ``scored`` is the number of scores: a reward need not apply to all
    answers, and where it applies to none its figures are NaN. So is ``per_second`` where a judge's answers were there.
    """

    scored: int
    mean: float
    deviation: float
    least: float
    most: float
    preferred: tuple[float, float] | None
    per_second: float


@dataclass(frozen=True)
class Check:
    """What a recipe's rewards make of its held-out rows; ``correlations`` are Spearman's, NaN for a constant reward.

    ``first`` is the first prompt, unless the model's tokenizer cannot be had; ``said`` is what is to be told of the
    rows.
    """

    rows: int
    references: int
    rewards: Mapping[str, RewardCheck]
    correlations: Mapping[str, Mapping[str, float]]
    first: Example | None = None
    said: tuple[str, ...] = ()


def check_rewards(recipe: Recipe, count: int, progress: Progress) -> Check:
    """Score reference answers of held-out rows, each under its own post and under another row's.

    Where no row has a reference, the first sentence of each post stands in for an answer, so that scales,
    correlations and speed can be told all the same.
    """
    task = resolve_task(recipe.task)
    found = read_rows(task, "test")
    with_reference = [row for row in found.rows if row.reference is not None]
    chosen = (with_reference or found.rows)[:count]
    if len(chosen) < 2:
        raise RecipeError(
            f"{task.eval_data or task.data}: too few held-out rows ({len(chosen)}) to compare.", "Give two or more."
        )
    answers = [answer_for(row, task.response) for row in chosen]
    first, said = _first_prompt(recipe, task, found, chosen)
    if not with_reference:
        said = (*said, _missing_reference(task))
    elif len(set(answers)) == 1:
        said = (*said, "All these reference answers are the same text, so that no reward can prefer one.")
    others = answers[1:] + answers[:1]
    samples = [sample_of(row, answer) for row, answer in zip(chosen * 2, answers + others, strict=True)]
    progress.start("check", len(recipe.rewards))
    scores: dict[str, np.ndarray] = {}
    checks: dict[str, RewardCheck] = {}
    told: list[str] = []
    for name, section in recipe.rewards.items():
        scorer = make_scorer(name, section)
        check_functions([scorer], samples)
        if reads_tokens(scorer) and not samples[0].tokens:
            make = tokens_of(recipe)
            samples = [replace(sample, tokens=make(sample.completion)) for sample in samples]
        said = (*said, *left_open(name, section, getattr(scorer, "heads", ())))
        log = Log()
        with counted(told.append, progress.say):
            score(name, scorer, samples[:1])  # what is made at the first call is not timed
            before = snapshot()
            scores[name], seconds = _score(name, logging_to(log, scorer), samples)
            asked = used_since(before).get(name, Usage())
        if late := log.means().get("out_of_time"):
            said = (*said, f"{name} took too long over {late:.0%} of the answers, which count as wrong.")
        lower = section.direction == "minimize"
        per_second = _texts_asked(section, asked, scores[name].size) / seconds
        checks[name] = _summary(scores[name], per_second, judged=bool(with_reference), lower=lower)
        progress.advance(name)
    progress.finish()
    return Check(len(chosen), len(with_reference), checks, correlations(scores), first, (*said, *told))


def _first_prompt(
    recipe: Recipe, task: Task, found: Rows, chosen: Sequence[Row]
) -> tuple[Example | None, tuple[str, ...]]:
    """Return the first prompt of some rows and what is to be told; DataError if no prompt can be made of them."""
    from rsoup.models.load import load_tokenizer  # loads torch

    try:
        tokenizer = load_tokenizer(recipe.model.base, recipe.model.revision)
    except ModelError as problem:
        return None, (
            *Examples((), found.dropped, said=found.said, repeats=found.repeats).remarks("held-out"),
            f"No prompt is shown: {problem.message}",
        )
    examples, refused = make_examples(task, tokenizer, chosen, recipe.seed)
    dropped = Counter(found.dropped) + refused
    told = Examples(tuple(examples), dropped, said=found.said, repeats=found.repeats).remarks("held-out")
    return examples[0], tuple(told)


def _missing_reference(task: Task) -> str:
    stands_in = "the first sentences of the posts stand in, and nothing is preferred"
    if task.reference is not None:
        return f"The column {task.reference!r} holds no reference answer in any held-out row: {stands_in}."
    if task.read is not None:
        return f"No row has a reference answer: {stands_in}."
    return f"No column is named as the reference answer (task.reference): {stands_in}."


def _score(name: str, scorer: Scorer, samples: Sequence[Sample]) -> tuple[np.ndarray, float]:
    """Return the scores (2, n) of n rows' own answers and of other rows', and the time taken."""
    began = time.perf_counter()
    values = score(name, scorer, samples)
    return values.reshape(2, -1), time.perf_counter() - began


def _texts_asked(section: RewardSection, asked: Usage, scored: int) -> float:
    """Return how many texts were scored, at an endpoint those it was asked about; NaN if it was asked about none."""
    if section.judge is None or section.judge.base_url is None:
        return scored
    return asked.calls / (1 + section.judge.pairwise) or math.nan


def _summary(values: np.ndarray, per_second: float, *, judged: bool, lower: bool = False) -> RewardCheck:
    """Return what the scores (2, n) of own and other answers come to; ``lower`` scores may be the better ones."""
    own, other = values[:, ~np.isnan(values).any(axis=0)]
    wins = ((own < other) if lower else (own > other)) + 0.5 * (own == other)
    there = values[~np.isnan(values)]
    several = len(there) > 1
    return RewardCheck(
        scored=len(there),
        mean=float(there.mean()) if several else math.nan,
        deviation=float(there.std(ddof=1)) if several else math.nan,
        least=float(there.min(initial=math.inf)) if several else math.nan,
        most=float(there.max(initial=-math.inf)) if several else math.nan,
        preferred=(float(wins.mean()), float(wins.std(ddof=1) / np.sqrt(len(wins))))
        if judged and len(wins) > 1
        else None,
        per_second=per_second,
    )


def correlations(scores: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """Return Spearman's rank correlation of each pair of rewards over the same answers; NaN if one is constant."""
    return {one: {other: _spearman(scores[one].ravel(), scores[other].ravel()) for other in scores} for one in scores}


def _spearman(one: np.ndarray, other: np.ndarray) -> float:
    both = ~np.isnan(one) & ~np.isnan(other)
    one, other = one[both], other[both]
    if len(one) < 2 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    return float(stats.spearmanr(one, other).statistic)


def remarks(check: Check, names: Sequence[str]) -> list[str]:
    """Return what stands out in a check."""
    said = list(check.said)
    for name in names:
        reward = check.rewards[name]
        if reward.scored < 2:
            said.append(f"{name} applies to {reward.scored} of these answers: rows lack what it reads.")
        elif reward.deviation == 0:
            said.append(f"{name} gives every answer the same score.")
        elif reward.preferred is not None and reward.preferred[0] < 0.5 - 2 * reward.preferred[1]:
            said.append(f"{name} prefers the answers to other posts: its direction, sign or format may be wrong.")
    deviations = {name: check.rewards[name].deviation for name in names if check.rewards[name].deviation > 0}
    if deviations and max(deviations.values()) > 10 * min(deviations.values()):
        small, large = min(deviations, key=deviations.__getitem__), max(deviations, key=deviations.__getitem__)
        said.append(
            f"Scores of {large} vary much more than those of {small}: equal weights in morl would not mean equal."
        )
    return said + [
        f"{name} applies to {check.rewards[name].scored} of {2 * check.rows} answers."
        for name in names
        if 1 < check.rewards[name].scored < 2 * check.rows
    ]
