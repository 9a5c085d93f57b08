"""The shapes that data sets come in, recognised by the columns of a row: pure functions of mappings.

They are those of TRL (messages, prompt and completion, preferences with the prompt in both answers), of ShareGPT
(conversations), verl (prompt, reward_model), Alpaca (instruction, input, output) and plain questions with answers.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from rsoup.tasks.plain import as_text, is_empty, plain
from rsoup.tasks.rows import UnusableRow
from rsoup.tasks.turns import Messages, blanks_after_mark, is_answered, parted, turns

CONVERSATIONS = ("messages", "conversations", "conversation")
QUESTIONS = ("question", "problem", "query", "input")
ANSWERS = (
    *("answer", "solution", "response", "output", "completion", "ground_truth", "reference"),
    *("final_answer", "expected_answer", "reference_answer", "correct_answer", "gold_answer"),
    *("gold", "expected", "expected_output", "target"),
)
SYSTEMS = ("system", "system_prompt")
PASSAGES = ("context", "passage", "article")
"""What a question is about, which comes before it."""
CHOICES = ("choices", "options")
"""Columns of what may be chosen; how a prompt lists them is the recipe's to say."""
SPEAKER = "\n\nAssistant:"
"""Where an answer begins in dialogues that are one text, as those of Anthropic/hh-rlhf."""

WHOLE = 1e15
"""Floats below this that have no fraction are whole numbers."""

MISSING = object()

NEXT_TURN = "the assistant's turn after the prompt"


@dataclass(frozen=True)
class Question:
    """What is asked in a row, a text or the turns of a conversation up to the user's, and its answer."""

    prompt: str | Messages
    reference: str | None = None


@dataclass(frozen=True)
class Shape:
    """How rows are read, what they are called in a remark, and where their reference comes from.

    ``prompts`` are the columns whose name asks for this shape; ``talks`` means that rows are conversations, ``joined``
    that a prompt is more or less than one of these columns, ``left_out`` what it may be expected to have and has not,
    ``usual`` that nothing has to be said.
    """

    rows: str
    read: Callable[[Mapping[str, Any]], Question]
    prompts: tuple[str, ...]
    reference: str | None = None
    system: str | None = None
    talks: bool = False
    joined: bool = False
    left_out: str | None = None
    usual: bool = False

    def said(self, column: str | None, reference: str | None, answered: float = 1.0) -> str | None:
        """Return a remark on how rows are read, unless the recipe, which may name columns, says all of it.

        ``answered`` is the share of the rows that have a reference.
        """
        found = self.talks or self.system or self.joined
        if self.usual or (column is not None and not found and (reference or not self.reference)):
            return None
        source = reference or self.reference
        answer = f"the reference is {source}" if source else "they have no reference answer"
        if source and not answered:
            answer = "they have no reference answer" if source == NEXT_TURN else f"{answer}, which is empty in all"
        elif source and answered < 1:
            answer += f" (of {max(answered, 0.01):.0%} of them)"
        system = f" The column {self.system} is the system message where it is filled." if self.system else ""
        left_out = f" Prompts do not hold the column {self.left_out}." if self.left_out else ""
        return f"Rows are {self.rows}; {answer}.{system}{left_out}"


def lookup(row: Mapping[str, Any], name: str) -> Any:
    """Return the value of a column, or of a.b within the column a; MISSING if there is none."""
    if name in row:
        return row[name]
    head, dot, rest = name.partition(".")
    inner = row.get(head) if dot else None
    return lookup(inner, rest) if isinstance(inner, Mapping) else MISSING


def text_of(value: Any) -> str:
    """Return a text without blanks around it, UnusableRow if the value is none or an empty one."""
    if isinstance(value, str):
        if value.strip():
            return value.strip() + blanks_after_mark(value)
    elif value is not None:
        kinds = {bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}
        raise UnusableRow(f"{kinds.get(type(value), type(value).__name__)} in the place of text")
    raise UnusableRow("no text")


def answer_of(value: Any) -> str | None:
    """Return a reference answer as a text: of turns what the assistant says, else as JSON writes it.

    A whole number is one without a fraction, also in a column of floats, as tables with gaps have them.
    """
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, (list, tuple)) and len(value) == 1 and not isinstance(value[0], Mapping):
        return answer_of(value[0])
    if isinstance(value, (list, tuple, Mapping)) and (messages := turns(value)) is not None:
        return next((turn["content"].strip() for turn in messages if turn["role"] == "assistant"), None)
    if isinstance(value, float) and value.is_integer() and abs(value) < WHOLE:
        value = int(value)
    return None if value in ([], (), {}) else as_text(plain(value)) or None


def spelled_out(reference: str | None, columns: Mapping[str, Any]) -> str | None:
    """Return a remark on a reference that is the text of a list or a mapping among the (plain) columns of its row."""
    if reference is None or reference[:1] not in ("[", "{"):
        return None
    values = list(columns.values())
    while values:
        value = values.pop()
        if isinstance(value, (list, dict)) and as_text(value) == reference:
            return f"References such as {reference[:60]} are read as JSON text, and compared as a whole."
        values += value.values() if isinstance(value, dict) else ()
    return None


def prompt_of(value: Any) -> Question:
    """Return what a column asks: a conversation up to the user's last turn, or a text."""
    messages = turns(value)
    if messages is None:
        return Question(text_of(value))
    return Question(*parted(messages))


def recognise(row: Mapping[str, Any], column: str | None) -> Shape | None:
    """Return the shape of a row, None if it has none that is known; ``column`` is the one that has to be asked."""
    texts = _open_texts if column is None else _texts
    shapes = (_verl, _pairs, _answered, _conversations, _instructions, _prompts, _questions, texts)
    if column is None and "post" in row:
        return _of_column(row, "post")
    if column in QUESTIONS:  # it is asked for alone
        row = {name: value for name, value in row.items() if name not in PASSAGES}
    for recogniser in shapes:
        shape = recogniser(row)
        if shape is not None and (column is None or column in shape.prompts):
            return shape
    return None if column is None or lookup(row, column) is MISSING else _of_column(row, column)


def _of_column(row: Mapping[str, Any], name: str) -> Shape:
    talks = _is_conversation(lookup(row, name))
    answer = _answer(row, name) if talks else None

    def read(row: Mapping[str, Any]) -> Question:
        question = prompt_of(_value(row, name))
        if answer is None or question.reference is not None:
            return question
        return Question(question.prompt, answer_of(row.get(answer)))

    told = NEXT_TURN if talks else None
    if answer is not None:
        ends = _is_answered(lookup(row, name))
        told = f"{NEXT_TURN}, or else {answer}" if ends else answer
    rows = f"conversations ({name})" if talks else f"texts ({name})"
    return Shape(rows, read, (name,), told, _system(row, talks=talks), talks, usual=not talks)


def _answer(row: Mapping[str, Any], asked: str) -> str | None:
    """Return the column of a row's answer, a filled one rather than an empty one; None if it has none."""
    names = [name for name in ANSWERS if name in row and name != asked]
    return next((name for name in names if not is_empty(plain(row[name]))), next(iter(names), None))


def _is_answered(value: Any) -> bool:
    try:
        return prompt_of(value).reference is not None
    except UnusableRow:
        return True


def _value(row: Mapping[str, Any], name: str) -> Any:
    value = lookup(row, name)
    if value is MISSING:
        raise UnusableRow(f"no column {name!r}")
    return value


def _is_conversation(value: Any) -> bool:
    try:
        return turns(value) is not None
    except UnusableRow:
        return True


def _asks(value: Any) -> bool:
    """Tell whether a value is a conversation with a turn of the user's."""
    try:
        return any(turn["role"] == "user" for turn in turns(value) or ())
    except UnusableRow:
        return True


def _system(row: Mapping[str, Any], *, talks: bool) -> str | None:
    """Return the column of system messages; a text has one only if the column is filled: it then is a conversation."""
    columns = [name for name in SYSTEMS if name in row and isinstance(row[name], (str, type(None)))]
    return next((name for name in columns if talks or (row[name] or "").strip()), None)


def _verl(row: Mapping[str, Any]) -> Shape | None:
    if not isinstance(row.get("reward_model"), Mapping) or "prompt" not in row:
        return None

    def read(row: Mapping[str, Any]) -> Question:
        truth = lookup(row, "reward_model.ground_truth")
        return Question(_open_prompt(_value(row, "prompt")), None if truth is MISSING else answer_of(truth))

    return _about_prompt(row, "verl's (prompt, reward_model)", read, "reward_model.ground_truth")


def _about_prompt(
    row: Mapping[str, Any],
    rows: str,
    read: Callable[[Mapping[str, Any]], Question],
    reference: str,
    asked: str = "prompt",
) -> Shape:
    """Return a shape whose column ``asked`` is a text or a conversation."""
    talks = _is_conversation(row[asked])
    return Shape(rows, read, (asked,), reference, _system(row, talks=talks), talks)


def _open_prompt(value: Any) -> str | Messages:
    """Return a prompt that has its answer elsewhere, and so has to end with the user's turn."""
    messages = turns(value)
    if messages is None:
        return text_of(value)
    question, _ = parted(messages)
    if len(question) < len(messages):
        raise UnusableRow("a prompt that does not end with the user's turn")
    return question


def _pairs(row: Mapping[str, Any]) -> Shape | None:
    if "chosen" not in row or "rejected" not in row:
        return None
    asked = next((name for name in ("prompt", "instruction", *QUESTIONS) if name in row), None)
    if asked is not None and (_is_conversation(row[asked]) or not _asks(row["chosen"])):
        what = f"pairs of answers ({asked}, chosen, rejected)"
        return _about_prompt(row, what, lambda own: _read_pair(own, asked), "the chosen answer", asked)
    talks = _is_conversation(row["chosen"])
    rows = "pairs of answers (chosen, rejected) that begin with their prompt"
    system = _system(row, talks=talks)
    return Shape(rows, _read_implicit, ("chosen", "rejected"), "the rest of the chosen one", system, talks, True)


def _read_pair(row: Mapping[str, Any], asked: str) -> Question:
    prompt, chosen = _open_prompt(_value(row, asked)), row.get("chosen")
    if isinstance(chosen, str) and isinstance(prompt, str):
        chosen = chosen.strip().removeprefix(prompt)
    if isinstance(prompt, tuple) and (whole := turns(chosen)) is not None and whole[: len(prompt)] == prompt:
        chosen = list(whole[len(prompt) :])
    return Question(prompt, answer_of(chosen))


def _read_implicit(row: Mapping[str, Any]) -> Question:
    chosen, rejected = row.get("chosen"), row.get("rejected")
    one, other = turns(chosen), turns(rejected)
    if one is None or other is None:
        return _common_text(text_of(chosen), text_of(rejected))
    shared = next((place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
    shared = min(len(one), len(other)) if shared is None else shared
    prompt, _ = parted(one[:shared])
    rest = one[len(prompt) :]
    return Question(prompt, rest[0]["content"] if rest and rest[0]["role"] == "assistant" else None)


def _common_text(chosen: str, rejected: str) -> Question:
    """Return what two texts begin with, up to the answers; both may begin with the same words."""
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(chosen, rejected, strict=False))
    shared = chosen[: sum(1 for _ in same)]
    if SPEAKER in shared:
        end = shared.rindex(SPEAKER) + len(SPEAKER)
    elif shared in (chosen, rejected) and chosen != rejected:  # one is the other and more
        end = len(shared)
    else:
        end = max(shared.rfind(" "), shared.rfind("\n")) + 1
    if not chosen[:end].strip():
        raise UnusableRow("answers that begin with no common prompt")
    return Question(chosen[:end].strip(), chosen[end:].strip() or None)


def _answered(row: Mapping[str, Any]) -> Shape | None:
    if "prompt" not in row or "completion" not in row:
        return None

    def read(row: Mapping[str, Any]) -> Question:
        wanted = _verdict(row.get("label")) is not False
        return Question(_open_prompt(_value(row, "prompt")), answer_of(_value(row, "completion")) if wanted else None)

    judged = " where label is true" if _verdict(row.get("label")) is not None else ""
    return _about_prompt(row, "prompts with answers (prompt, completion)", read, f"completion{judged}")


def _verdict(label: Any) -> bool | None:
    """Return what TRL's unpaired preferences say of a completion, also where a table spells it; None if they do not."""
    return {"true": True, "1": True, "false": False, "0": False}.get(str(plain(label)).strip().lower())


def _conversations(row: Mapping[str, Any]) -> Shape | None:
    name = next((name for name in CONVERSATIONS if name in row and _is_conversation(row[name])), None)
    if name is None and "prompt" not in row and any(row.get(name, "") in (None, []) for name in CONVERSATIONS):
        raise UnusableRow("no text")  # another row tells the shape
    return None if name is None else _of_column(row, name)


def _instructions(row: Mapping[str, Any]) -> Shape | None:
    if "instruction" not in row:
        return None
    context = next((name for name in ("input", "context") if name in row), None)
    answer = next((name for name in ("output", "response") if name in row), None) or _answer(row, context or "")

    def read(row: Mapping[str, Any]) -> Question:
        if row.get("history"):
            raise UnusableRow("turns before the instruction (history)")
        added = (row.get(context) or "") if context else ""
        text = text_of(row.get("instruction"))
        if isinstance(added, str) and added.strip():
            text = f"{text}\n\n{added.strip()}"
        return Question(text, answer_of(row.get(answer)) if answer else None)

    columns = ", ".join(name for name in ("instruction", context, answer) if name)
    system = _system(row, talks=False)
    return Shape(f"instructions ({columns})", read, ("instruction",), answer, system, joined=context is not None)


def _prompts(row: Mapping[str, Any]) -> Shape | None:
    return _asked(row, "prompt", "prompts") if "prompt" in row else None


def _questions(row: Mapping[str, Any]) -> Shape | None:
    name = next((name for name in QUESTIONS if name in row), None)
    return None if name is None else _asked(row, name, "questions")


def _asked(row: Mapping[str, Any], name: str, what: str) -> Shape:
    answer = _answer(row, name)
    talks = _is_conversation(row[name])
    passages = PASSAGES if name in QUESTIONS and not talks else ()
    passage = next((other for other in passages if _is_text(row.get(other))), None)

    def read(row: Mapping[str, Any]) -> Question:
        asked = _value(row, name)
        if passage and isinstance(asked, str) and _is_text(row.get(passage)):
            asked = f"{row[passage].strip()}\n\n{text_of(asked)}"
        return prompt_of(asked) if answer is None else Question(_open_prompt(asked), answer_of(row.get(answer)))

    columns = ", ".join(column for column in (passage, name, answer) if column)
    own = answer or (NEXT_TURN if talks else None)
    left_out = next((other for other in CHOICES if isinstance(row.get(other), (list, dict))), None)
    return Shape(
        f"{what} ({columns})",
        read,
        (name,),
        own,
        _system(row, talks=talks),
        talks,
        joined=passage is not None or left_out is not None,
        left_out=left_out,
    )


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _texts(row: Mapping[str, Any]) -> Shape | None:
    if "text" not in row:
        return None
    talks = _is_conversation(row["text"])
    system = _system(row, talks=talks)
    return Shape("texts (text)", lambda own: prompt_of(_value(own, "text")), ("text",), None, system, talks)


def _open_texts(row: Mapping[str, Any]) -> Shape | None:
    """Return the shape of texts that nobody named as what is asked: none that hold their answer is a prompt."""
    shape = _texts(row)
    if shape is None:
        return None
    if "role" in row and "parent_id" in row:
        raise UnusableRow("a single message of a tree of conversations (parent_id)")

    def read(own: Mapping[str, Any]) -> Question:
        text = _value(own, "text")
        if isinstance(text, str) and is_answered(text):
            raise UnusableRow("a conversation in one text that ends with its answer")
        return shape.read(own)

    return replace(shape, read=read)
