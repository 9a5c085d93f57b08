"""Rewards: the registry (data only) here, the scorers that load models in the modules beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rsoup.errors import RecipeError, RewardError, did_you_mean, reason_of
from rsoup.recipe import NAME_PATTERN, TEMPLATE_WORDS, RewardSection
from rsoup.recipe.direction import sounds_lower
from rsoup.rewards.code import code_sha256
from rsoup.rewards.judges import judge_identity
from rsoup.rewards.sources import find_source


@dataclass(frozen=True)
class Judge:
    """A reward model of the hub: the text it reads (by task, where that differs), its labels, its length.

    ``architecture`` is transformers' name of its kind, ``revision`` the commit that is known to work.
    """

    model: str
    architecture: str
    template: str
    labels: tuple[str, ...] = ("LABEL_0",)
    format: str = "0"
    max_tokens: int = 512
    revision: str | None = None
    templates: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RewardEntry:
    """A registry entry: what a reward reads and returns, and the scorer class ``module:attribute`` that computes it.

    ``settings`` are the keys of a recipe that it takes, with their defaults. ``reads_rows``: it reads more of a row
    than the post.
    """

    scorer: str
    reads: str
    returns: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    judge: Judge | None = None
    reads_rows: bool = False


CLASSIFIER = "rsoup.rewards.classifier:Classifier"
DEFAULT_TEMPLATE = "{post}{sep}{completion}"
CHAT, PAIR, TEXT = TEMPLATE_WORDS

READING = 2
"""Counts the rules by which classifiers read and score: scores that were kept under others are not used."""


def _judge(reads: str, returns: str, **settings: Any) -> RewardEntry:
    return RewardEntry(CLASSIFIER, reads, returns, judge=Judge(**settings))


def _answer_judge(model: str, architecture: str, **settings: Any) -> RewardEntry:
    """Return the entry of a model trained by OpenAssistant on human preferences between answers."""
    return _judge(
        "the post and the completion",
        f"logit for an answer that people prefer, of {model}",
        model=model,
        architecture=architecture,
        template=DEFAULT_TEMPLATE,
        templates={"review": "{cls}{post}{sep}{completion}"},  # as in the paper's code
        **settings,
    )


ANSWER = "the completion (after </think>)"


def _verifiable(scorer: str, returns: str, settings: Mapping[str, Any] | None = None) -> RewardEntry:
    """Return the entry of a reward that compares an answer with the row's reference; without one it does not apply."""
    scorer = f"rsoup.rewards.verifiable:{scorer}"
    return RewardEntry(scorer, f"{ANSWER} and the reference", returns, settings or {}, reads_rows=True)


REWARDS = {
    "positive": RewardEntry(
        scorer="rsoup.rewards.lexicon:Sentiment",
        reads="the completion",
        returns="VADER compound sentiment, -1 (negative) to 1 (positive)",
    ),
    "faithful": RewardEntry(
        scorer="rsoup.rewards.similarity:Similarity",
        reads="the post and the completion",
        returns="cosine of their MiniLM embeddings, -1 to 1",
    ),
    "brief": RewardEntry(
        scorer="rsoup.rewards.words:Brevity",
        reads="the completion",
        returns="minus the number of its words",
    ),
    "length": RewardEntry(
        scorer="rsoup.rewards.words:Length",
        reads="the completion",
        returns="minus the distance of the number of its words from target",
        settings={"target": 20},
    ),
    "varied": RewardEntry(
        scorer="rsoup.rewards.words:Variety",
        reads="the completion",
        returns="minus the share of its word triples that repeat an earlier one, -1 to 0",
    ),
    "regex": RewardEntry(
        scorer="rsoup.rewards.words:Pattern",
        reads="the completion",
        returns="1 if pattern is found in it, else 0",
        settings={"pattern": None},
    ),
    "readable": RewardEntry(
        scorer="rsoup.rewards.words:ReadingEase",
        reads="the completion",
        returns="Flesch reading ease of English text; the higher the easier, mostly 0 to 100",
    ),
    "math": _verifiable("Mathematics", "1 if its answer equals the reference as mathematics (math-verify), else 0"),
    "exact": _verifiable("Exact", "1 if it is the reference but for case, spaces and end punctuation, else 0"),
    "choice": _verifiable("Choice", "1 if the letter it chooses is that of the reference, else 0"),
    "contains": _verifiable(
        "Contains",
        "1 if the reference (or pattern, if set) is found in it, else 0",
        settings={"pattern": None},
    ),
    "json": RewardEntry(
        scorer="rsoup.rewards.verifiable:Json",
        reads=ANSWER,
        returns="1 if it is JSON, and fulfils schema if one is set, else 0",
        settings={"json_schema": None},
    ),
    "gym": RewardEntry(
        scorer="rsoup.rewards.gym:Gym",
        reads=f"{ANSWER}, and the row of a reasoning-gym task (task.gym)",
        returns="the score of the task's own scorer, 0 to 1",
        reads_rows=True,
    ),
    "summary-gpt2": _judge(
        "the completion, then the post",
        "logit for a summary that people prefer, of Tristan/gpt2_reward_summarization",
        model="Tristan/gpt2_reward_summarization",
        architecture="gpt2",
        template="{completion} {bos} {post}",
        max_tokens=1024,
    ),
    "faithful-bart": _judge(
        "the completion, then the post",
        "logit for faithful minus that for hallucinated, of CogComp/bart-faithful-summary-detector",
        model="CogComp/bart-faithful-summary-detector",
        revision="9ee8dc596655cde178f27a956659c4402bf6355f",
        architecture="bart",
        template="{completion}{eos}{eos}{post}",
        labels=("HALLUCINATED", "FAITHFUL"),
        format="1-0",
        max_tokens=1024,
    ),
    "answer-deberta-base": _answer_judge(
        "OpenAssistant/reward-model-deberta-v3-base",
        "deberta-v2",
        labels=("REWARD",),
        revision="7dab4156e63944834c3aae169c3fe83955672cff",
    ),
    "answer-electra-large": _answer_judge(
        "OpenAssistant/reward-model-electra-large-discriminator", "electra", labels=("REWARD",)
    ),
    "answer-deberta-large-v2": _answer_judge("OpenAssistant/reward-model-deberta-v3-large-v2", "deberta-v2"),
    "answer-deberta-base-v2": _answer_judge("theblackcat102/reward-model-deberta-v3-base-v2", "deberta-v2"),
}

JUDGES = {entry.judge.model: entry.judge for entry in REWARDS.values() if entry.judge}
"""The reward models of the registry by their hub id."""


def registry_entry(name: str, beside: Iterable[str] = ()) -> RewardEntry:
    """Return the registry entry of that name; the error also suggests the names ``beside``."""
    if name not in REWARDS:
        nearest = did_you_mean(name, [*beside, *REWARDS])
        raise RecipeError(
            f"There is no reward {name!r} in the registry.",
            f"{nearest} Of your own: a classifier's folder or hub id, file.py:function; a judge, with a section judge: "
            "in the recipe.",
        )
    return REWARDS[name]


def complete_reward(name: str, section: RewardSection, task: str | None = None) -> RewardSection:
    """Fill in what the registry knows of a reward; ``task`` may change what it reads.

    A name that the registry does not know is left as it is, and so are the template and the format of a classifier of
    a user's own: without them, it reads as its files say, and its first logit counts.
    """
    if section.judge is not None:
        _check_keys(name, section, {}, is_classifier=False)
        return section
    entry = None if section.model or section.function else REWARDS.get(section.use or name)
    judge = JUDGES.get(section.model or "") or (entry.judge if entry else None)
    model = section.model or (judge.model if judge else None)
    _check_keys(name, section, {} if entry is None else entry.settings, is_classifier=model is not None)
    if model is None:
        settings = {} if entry is None else {key: value for key, value in entry.settings.items() if value is not None}
        missing = {key: value for key, value in settings.items() if getattr(section, key) is None}
        return section.model_copy(update=missing)
    known: dict[str, Any] = {}
    if judge is not None:
        template = judge.templates.get(task or "", judge.template)
        known = {"format": judge.format, "template": template, "max_tokens": judge.max_tokens}
        known["revision"] = judge.revision
    missing = {key: value for key, value in known.items() if getattr(section, key) is None}
    return section.model_copy(update={"use": None, "model": model, **missing})


def _check_keys(name: str, section: RewardSection, settings: Mapping[str, Any], *, is_classifier: bool) -> None:
    """Refuse keys that the source of a reward does not read."""
    local = section.judge is not None and section.judge.base_url is None
    for key in ("format", "template", "max_tokens", "trust_remote_code", *(() if local else ("revision", "dtype"))):
        given = getattr(section, key)
        if given and given != "auto" and not is_classifier:
            raise RecipeError(f"rewards.{name}: {key} is for a classifier, and this is none.", f"Leave {key} out.")
    for key in ("pattern", "target", "json_schema"):
        if getattr(section, key) is not None and key not in settings:
            told = key.removeprefix("json_")
            raise RecipeError(f"rewards.{name}: {told} is not read by this reward.", f"Leave {told} out.")
    if section.columns and section.function is None:
        raise RecipeError(f"rewards.{name}: columns is for a function, and this is none.", "Leave columns out.")


def reward_identity(name: str, section: RewardSection, device: str | None = None) -> dict[str, Any]:
    """Return what decides the scores of a reward, to be hashed; a function's file counts by its content.

    With the type of a ``device``, also the dtype that ``auto`` means there.
    """
    section = complete_reward(name, section)
    unread = {"batch_size", "direction", "dtype", *(() if section.columns else ("columns",))}
    identity = section.model_dump(exclude=unread, exclude_none=True)
    if section.judge is not None:
        if section.judge.base_url is None:
            identity["dtype"] = section.dtype if device is None else judge_dtype(section.dtype, device)
        return {**identity, "judge": judge_identity(name, section)}
    if isinstance(section.json_schema, str):
        identity["json_schema"] = read_schema(name, section.json_schema)
    if section.model is None and section.function is None:
        identity["use"] = section.use or name
    if section.function is not None:
        identity["file"] = code_sha256(section.function.rpartition(":")[0])
    elif section.model is not None:
        source = find_source(f"The reward {name}: {section.model}", section.model, section.revision)
        identity |= {"format": section.format or "0", **source.identity(), "reading": READING}
        identity["dtype"] = section.dtype if device is None else judge_dtype(section.dtype, device)
    return identity


def judge_dtype(dtype: str, device: str) -> str:
    """Return the dtype of a classifier's weights on a device; ``auto`` is then that of its files."""
    return "float32" if dtype == "auto" and device == "cpu" else dtype


def choosing_head(name: str, section: RewardSection, heads: Sequence[str]) -> str | None:
    """Return what is to be told of a model of several heads, of which nobody named the one that is the reward."""
    if section.model is None or section.format is not None or section.model in JUDGES or len(heads) < 2:
        return None
    shown = [*heads[:4], *["..."] * (len(heads) > 4)]
    return f"{name} is {heads[0]}, the first of its model's logits ({', '.join(shown)}): format names another."


def left_open(name: str, section: RewardSection, heads: Sequence[str]) -> list[str]:
    """Return what a recipe leaves open of a reward, and how that is read; ``heads`` are the logits of its model."""
    found = (choosing_head(name, section, heads), doubtful_direction(name, section, heads))
    return [told for told in found if told]


def doubtful_direction(name: str, section: RewardSection, heads: Sequence[str]) -> str | None:
    """Return what is to be told of a reward that sounds as if lower were better, if the recipe does not say which."""
    own = section.function is not None or section.judge is not None or section.model is not None
    if "direction" in section.model_fields_set or not own or section.model in JUDGES:
        return None
    label = section.format or "0"
    by_label = any(map(str.isalpha, label))
    if not any(map(sounds_lower, [label] if by_label else [name, *heads[:1]])):
        return None
    return f"Higher counts as better for {name}: direction (minimize or maximize) says which way it is."


def reads_rows(name: str, section: RewardSection) -> bool:
    """Tell whether the scores of a reward depend on more of a row than its post."""
    section = complete_reward(name, section)
    if section.judge is not None:
        return section.judge.pairwise
    if section.model is not None or section.function is not None:
        return section.function is not None
    return registry_entry(section.use or name).reads_rows


def read_schema(name: str, path: str) -> dict[str, Any]:
    """Return the JSON schema that a file holds."""
    try:
        schema = json.loads(Path(path).expanduser().read_text(encoding="utf-8"))
    except OSError as problem:
        raise RewardError(
            f"The reward {name}: {path} cannot be read ({reason_of(problem)}).", "Check schema."
        ) from problem
    except ValueError as problem:
        raise RewardError(f"The reward {name}: {path} is not JSON ({problem}).", "Mend the schema.") from problem
    if not isinstance(schema, dict):
        raise RewardError(f"The reward {name}: {path} is not a JSON schema.", "It has to be a mapping.")
    return schema


def parse_reward(text: str, beside: Iterable[str] = ()) -> tuple[str, RewardSection]:
    """Read a reward given on the command line: a registry name, module:function, a model folder or a hub id.

    Names ``beside`` the registry's, as of a recipe, are suggested for what is none.
    """
    if text in REWARDS:  # though a folder of a run may be called so
        return text, RewardSection()
    if Path(text).expanduser().is_dir():
        return _usable_name(Path(text).resolve().name), RewardSection(model=text)
    if ":" in text:
        return _usable_name(text.rpartition(":")[2]), RewardSection(function=text)
    if "/" in text:
        return _usable_name(text.rstrip("/").rpartition("/")[2]), RewardSection(model=text)
    registry_entry(text, beside)
    return text, RewardSection()


def _usable_name(text: str) -> str:
    if not re.match(NAME_PATTERN, text):
        raise RecipeError(
            f"{text!r} cannot name a reward.", "Give it a name in a recipe: rewards: {name: {model: ...}}."
        )
    return text


WEIGHTED = re.compile(r"(?P<format>.+)x(?P<weight>\d+(\.\d*)?|\.\d+)")


def split_weight(text: str) -> tuple[str, float]:
    """Read a format of the command line that may carry a weight: ``1-0x0.6`` is the format 1-0 with the weight 0.6."""
    match = WEIGHTED.fullmatch(text)
    return (match["format"], float(match["weight"])) if match else (text, 1.0)
