"""Make prompts of rows: texts through a template, conversations through the tokenizer's, each with one beginning."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rsoup.errors import DataError, did_you_mean, first_line, see
from rsoup.recipe import ResponseRule
from rsoup.tasks import Task
from rsoup.tasks.given import names_of, options_of, tools_of
from rsoup.tasks.rows import Row, UnusableRow
from rsoup.tasks.turns import SYSTEM, Messages, with_system

MARKER = re.compile(r"<\|\w+\|>")
"""A chat token in a template."""

BROKEN = "\ufffd"
"""What bytes that are no whole character are decoded to."""

_PART = re.compile(r"""['"]type['"]\s*:\s*['"]text['"]""")
"""What a list of parts is spelled with."""

PROBE = "a"
"""A text that shows which tokens a tokenizer puts before any text."""


@dataclass(frozen=True)
class Example:
    """A row of a task: ``post`` is what rewards read, ``prompt`` what the model is given, as text and as tokens.

    A prompt may end with ``prefix``, the first ``prefix_tokens`` of the reference answer: rewards then read these and
    the completion as the answer, after the rule ``response``. The last three fields are the row's.
    """

    id: str
    post: str
    prompt: str
    tokens: tuple[int, ...]
    prefix: str = ""
    prefix_tokens: tuple[int, ...] = ()
    response: ResponseRule = "whole"
    reference: str | None = None
    messages: tuple[Mapping[str, Any], ...] | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)


def make_examples(
    task: Task, tokenizer: Any, rows: Sequence[Row], seed: int, most: int | None = None
) -> tuple[list[Example], Counter[str]]:
    """Return the prompts of rows, the first ``most`` of them, and the reasons of those that have none.

    DataError if no row has one.
    """
    prompter = Prompter(task, tokenizer, conversational=rows[0].messages is not None)
    examples: list[Example] = []
    refused: Counter[str] = Counter()
    for row in rows:
        if len(examples) == most:
            break
        try:
            examples.append(prompter.example(row, seed))
        except UnusableRow as problem:
            refused[str(problem)] += 1
    if not examples:
        raise _refusal(task, refused, rows)
    return examples, refused


class Prompter:
    """Makes the prompts of a task with a model's tokenizer; DataError if it cannot make any."""

    def __init__(self, task: Task, tokenizer: Any, *, conversational: bool) -> None:
        self._task, self._tokenizer = task, tokenizer
        self._chat = conversational if task.chat is None else task.chat
        self._in_parts: bool | None = None  # whether the template takes contents as lists of parts
        self._head = head_of(tokenizer)
        _check_markers(task, tokenizer)
        _check_chat(task, tokenizer, chat=self._chat, conversational=conversational)

    def example(self, row: Row, seed: int) -> Example:
        """Return the prompt of a row, UnusableRow if the chat template does not make one of it."""
        assert row.id is not None
        task = self._task
        prompt = self._templated(row) if self._chat else task.template.replace("{post}", row.post)
        tokens, prefix = self.encode(prompt), list[int]()
        if task.prefix is not None and row.reference:
            reference = row.reference.replace(".", ",") if task.response == "first_sentence" else row.reference
            count = draw_count(*task.prefix, seed, row.id)
            tokens, prefix = _continued(tokens, self.encode(prompt + reference), count, self._tokenizer)
        text = self._tokenizer.decode(prefix).strip() if prefix else ""
        return Example(
            id=row.id,
            post=row.post,
            prompt=prompt + text,
            tokens=tuple(tokens),
            prefix=text,
            prefix_tokens=tuple(prefix),
            response=task.response,
            reference=row.reference,
            messages=row.messages,
            columns=row.columns,
        )

    def encode(self, prompt: str) -> list[int]:
        """Return the tokens of a prompt: those that the tokenizer begins texts with once, and no end."""
        ids: list[int] = self._tokenizer(prompt, add_special_tokens=False, verbose=False)["input_ids"]
        if not self._head:
            return ids
        rest = list(itertools.dropwhile(self._head.__contains__, ids))
        first = self._tokenizer.decode(self._head[:1])
        after_blanks = len(rest) == len(ids) and prompt.lstrip().startswith(first)
        return ids if after_blanks else [*self._head, *rest]

    def _templated(self, row: Row) -> str:
        """Return a row's turns as the chat template writes them, checked to hold what was said."""
        text = self._task.template.replace("{post}", row.post)
        if row.messages is None:
            turns = with_system(({"role": "user", "content": text},), self._task.system, replace=True)
        else:
            last = row.messages[-1]
            turns = (*row.messages[:-1], last if text == row.post else {**last, "content": text})
        failed: UnusableRow | None = None
        for in_parts in (False, True) if self._in_parts is None else (self._in_parts,):
            try:
                prompt = self._rendered(turns, row.columns, in_parts=in_parts)
                _check_holds(prompt, turns)
                if in_parts and spells_parts(prompt, (str(turn["content"]) for turn in turns)):
                    raise UnusableRow("the chat template spells the parts of a turn")
                _check_names(prompt, names_of(tools_of(row.columns) or []))
            except UnusableRow as problem:
                failed = failed or problem
            else:
                self._in_parts = in_parts
                return prompt
        assert failed is not None
        raise failed

    def _rendered(self, turns: Messages, columns: Mapping[str, Any], *, in_parts: bool) -> str:
        given = [_in_parts(turn) if in_parts else dict(turn) for turn in turns]
        options = {"tools": tools_of(columns), **options_of(columns), **(self._task.chat_template_kwargs or {})}
        fixed = {"tokenize": False, "add_generation_prompt": True}
        try:
            prompt: str = self._tokenizer.apply_chat_template(given, **{**options, **fixed})
        except Exception as problem:  # whatever a template does, it is a program of the model's
            raise UnusableRow(f"the chat template refuses it: {first_line(problem)}") from problem
        return prompt


def parts_of(text: str) -> list[dict[str, str]]:
    """Return a text as the parts of a content."""
    return [{"type": "text", "text": text}]


def spells_parts(prompt: str, texts: Iterable[str]) -> bool:
    """Tell whether a chat template that was given ``texts`` as lists of parts wrote such a list out: it reads texts."""
    return len(_PART.findall(prompt)) > sum(len(_PART.findall(text)) for text in texts)


def _in_parts(turn: Mapping[str, Any]) -> dict[str, Any]:
    return {**turn, "content": parts_of(turn["content"])}


def head_of(tokenizer: Any) -> list[int]:
    """Return the tokens that a tokenizer puts before any text."""
    bare, whole = (tokenizer(PROBE, add_special_tokens=special)["input_ids"] for special in (False, True))
    places = range(len(whole) - len(bare) + 1)
    start = next((place for place in places if whole[place : place + len(bare)] == bare), None)
    if start is None:  # the text itself is cut in another way after them
        start = int(whole[:1] == [tokenizer.bos_token_id])
    return list(whole[:start])


def _check_markers(task: Task, tokenizer: Any) -> None:
    """Refuse a template with chat tokens that the model does not have: it would read them as text."""
    vocabulary = tokenizer.get_vocab()
    for marker in MARKER.findall(task.template):
        if marker not in vocabulary:
            raise DataError(
                f"task.template: the model's tokenizer does not know {marker}.",
                "Set task.template to the prompt alone, and task.chat to true for the model's own chat format.",
            )


def _check_chat(task: Task, tokenizer: Any, *, chat: bool, conversational: bool) -> None:
    """Refuse conversations that are not to be, or cannot be, put into a chat template."""
    if conversational and not chat:
        raise DataError(
            f"{task.data}: its rows are conversations, which only a chat template makes a prompt of; task.chat is off.",
            "Leave task.chat out, or name a column of texts in task.column.",
        )
    if chat and tokenizer.chat_template is None:
        if task.chat is None:
            raise DataError(
                f"{task.data}: its rows are conversations, and the model's tokenizer has no chat template.",
                "Take an instruct model, or name a column of texts in task.column." + see("no-chat-template"),
            )
        asked = [key for key in ("system", "chat_template_kwargs") if getattr(task, key)]
        if asked:
            raise DataError(
                f"task.{asked[0]} is for a chat template, and the model's tokenizer has no chat template.",
                "Take an instruct model, or leave it out.",
            )
        raise DataError(
            "task.chat is on, but the model's tokenizer has no chat template.",
            f"Set task.chat to false.{see('no-chat-template')}",
        )
    if chat:
        _check_options(task.chat_template_kwargs or {}, tokenizer.chat_template)


def _check_options(options: Mapping[str, Any], template: Any) -> None:
    """Refuse options that a chat template does not name: it would take no notice of them."""
    words = set(re.findall(r"\w+", str(options.get("chat_template", template))))
    for name in options:
        if name not in words and name != "chat_template":
            nearest = did_you_mean(name, words)
            raise DataError(
                f"task.chat_template_kwargs: the chat template does not read {name!r}.",
                nearest if nearest.startswith("Did") else "Leave it out.",
            )


def _check_holds(prompt: str, turns: Messages) -> None:
    """Raise UnusableRow if a prompt lacks what was said to the model; templates may change blanks, or write JSON."""
    squeezed = "".join(prompt.split())
    for place, turn in enumerate(turns):
        if turn["role"] != "user" and turn["role"] not in SYSTEM:
            continue  # templates take thoughts out of earlier answers
        spellings = [turn["content"], *(json.dumps(turn["content"], ensure_ascii=sign)[1:-1] for sign in (True, False))]
        if not any("".join(spelling.split()) in squeezed for spelling in spellings):
            what = "the post" if place == len(turns) - 1 else f"a turn of the {turn['role']}"
            raise UnusableRow(f"the chat template leaves out {what}")


def _check_names(prompt: str, tools: Sequence[str]) -> None:
    """Raise UnusableRow if a prompt does not name the tools that its row gives."""
    if not all(name in prompt for name in tools):
        raise UnusableRow("the chat template leaves out the tools")


def _refusal(task: Task, dropped: Mapping[str, int], rows: Sequence[Row]) -> DataError:
    """Return the error for rows of which the chat template makes no prompt at all."""
    reason = max(dropped, key=dropped.__getitem__)
    has_system = any(turn["role"] in SYSTEM for turn in rows[0].messages or ()) or bool(task.system)
    hint = "Set task.chat to false and write the model's format in task.template, or take another model."
    if "system" in reason.lower():
        hint = "Set task.system to '' to leave system messages out." if has_system else "Set task.system (--system)."
    elif reason.endswith("leaves out the tools"):
        hint = "Take a model whose chat template reads tools, or give rows without the column tools."
    elif "alternat" in reason.lower():
        hint = "Give conversations in which user and assistant take turns."
    return DataError(f"{task.data}: no prompt can be made: {reason} (all {len(rows)} rows).", hint)


def draw_count(least: int, most: int, seed: int, identifier: str) -> int:
    """Return a number from ``least..most`` that depends on the seed and the row's id, and on nothing else."""
    digest = hashlib.sha256(f"{seed}/prefix/{identifier}".encode()).digest()
    return least + int.from_bytes(digest[:8], "little") % (most - least + 1)


def _continued(prompt: list[int], whole: list[int], count: int, tokenizer: Any) -> tuple[list[int], list[int]]:
    """Return the tokens of a prompt continued by ``count`` tokens of its reference answer, and these tokens.

    ``whole`` are the tokens of both texts together: where they meet, a space may belong to the answer's first word.
    """
    shared = next((i for i, (one, other) in enumerate(zip(prompt, whole, strict=False)) if one != other), None)
    shared = min(len(prompt), len(whole)) if shared is None else shared
    end = min(shared + count, len(whole))
    while end < len(whole) and tokenizer.decode(whole[shared:end]).endswith(BROKEN):
        end += 1  # not within a character
    return whole[:end], whole[shared:end]
