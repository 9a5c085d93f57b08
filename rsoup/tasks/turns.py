"""Conversations in the forms that data sets keep them, as turns of a role and a content."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rsoup.tasks.plain import filled, plain
from rsoup.tasks.rows import UnusableRow

Messages = tuple[Mapping[str, Any], ...]

ROLES = {
    "system": "system",
    "developer": "developer",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "chatbot": "assistant",
    "model": "assistant",
    "ai": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "ipython": "tool",
    "function": "tool",
    "function_response": "tool",
    "tool_response": "tool",
    "observation": "tool",
}
"""What the roles of data sets are called in chat templates."""

OTHER_ROLES = tuple(role for role in ROLES if role not in ROLES.values())
"""The other names of roles."""

SYSTEM = ("system", "developer")
TEXTS = ("text", "input_text", "output_text")
"""What parts of a content are called that are text."""

PRINTED = re.compile(r"""(?:array\()?\[\s*\{\s*(['"])(?:role|content|from|value)\1\s*:.*[\])]""", re.DOTALL)
"""A text that spells turns."""


def turns(value: Any) -> Messages | None:
    """Return a conversation as turns with a role and a content; None if the value is no conversation.

    It may be a list of role and content or of from and value, the same by columns, one turn alone, or a text that
    spells a list. Parts of a content become one text, each on a line. UnusableRow if a turn cannot be used, or a text
    spells turns that cannot be read.
    """
    if isinstance(value, str) and not value.lstrip().startswith(("[", "array([")):
        return None
    records = _records(value)
    if not records or not all(isinstance(record, Mapping) and _names(record) for record in records):
        if isinstance(value, str) and PRINTED.fullmatch(value.strip()):
            raise UnusableRow("turns that are spelled in a way that cannot be read")
        return None
    return tuple(turn for record in records if (turn := _turn(record)) is not None)


def _records(value: Any) -> Sequence[Any]:
    if isinstance(value, str):
        value = _unpacked(value.strip())
    if isinstance(value, Mapping) and _names(value) and all(isinstance(own, list) for own in value.values()):
        count = min(map(len, value.values()))
        return [{key: own[index] for key, own in value.items()} for index in range(count)]
    if isinstance(value, Mapping) and (names := _names(value)) and isinstance(value.get(names[1]), (str, list)):
        return [value]
    return value if isinstance(value, (list, tuple)) else ()


def _unpacked(text: str) -> Any:
    """Return the list that a text spells in JSON, or as Python or numpy print it, which tables hold; None if none."""
    for reader in (json.loads, ast.literal_eval, _of_array):
        try:
            return reader(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return None


def _of_array(text: str) -> Any:
    """Return the list that an array of mappings is printed as: a new line is between two, where a list has a comma."""
    inner = re.fullmatch(r"array\((.*),\s*dtype=object\)", text, re.DOTALL)
    return ast.literal_eval(re.sub(r"\}\n\s*\{", "}, {", inner[1] if inner else text))


def _names(record: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the keys of a turn's role and content."""
    if "role" in record:
        return "role", "content"
    return ("from", "value") if "from" in record else None


def _turn(record: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return a turn under the names of chat templates; None for a system message that says nothing."""
    names = _names(record)
    assert names is not None
    word = str(record[names[0]]).strip().lower()
    role, content = ROLES.get(word), _content(record.get(names[1]))
    if role is None:
        raise UnusableRow(f"a turn of the unknown role {word!r}")
    rest = {key: own for key, own in filled(plain(dict(record))).items() if key not in names and own != []}
    if not content.strip():
        if role in SYSTEM:
            return None
        if not (role == "assistant" and "tool_calls" in rest):
            raise UnusableRow("an empty turn")
    return {"role": role, "content": content, **rest}


def _content(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, list) and all(isinstance(part, (str, Mapping)) for part in value):
        return joined(part if isinstance(part, str) else _part(part) for part in value)
    raise UnusableRow("a turn that is no text")


def joined(parts: Iterable[str]) -> str:
    """Return the parts of a content as one text: a new line is between two that no blank parts."""
    whole = ""
    for part in parts:
        glued = whole and part and not whole[-1].isspace() and not part[0].isspace()
        whole += f"\n{part}" if glued else part
    return whole


def _part(part: Mapping[str, Any]) -> str:
    kind = part.get("type") or "text"
    if kind not in TEXTS or not isinstance(part.get("text"), str):
        raise UnusableRow(f"a turn with a part that is no text ({kind})")
    return str(part["text"])


def parted(messages: Messages) -> tuple[Messages, str | None]:
    """Return the turns up to the last user's, and what the assistant then says, if it does.

    UnusableRow if there is no user's turn, or tools come between that turn and the answer.
    """
    last = max((place for place, turn in enumerate(messages) if turn["role"] == "user"), default=None)
    if last is None:
        raise UnusableRow("no user's turn")
    rest = messages[last + 1 :]
    if any(turn["role"] == "tool" or "tool_calls" in turn for turn in rest):
        raise UnusableRow("tools are called after the last user's turn")
    answers = [turn["content"] for turn in rest if turn["role"] == "assistant"]
    return messages[: last + 1], answers[0] if answers else None


def with_system(messages: Messages, text: str | None, *, replace: bool) -> Messages:
    """Return turns with a system message, in the place of their own if ``replace``; an empty text leaves none."""
    own = [turn for turn in messages if turn["role"] in SYSTEM]
    if text is None or (own and not replace):
        return messages
    rest = tuple(turn for turn in messages if turn["role"] not in SYSTEM)
    return ({"role": "system", "content": text}, *rest) if text.strip() else rest


_ANSWERS = re.compile(
    r"<\|im_start\|>assistant|<\|start_header_id\|>assistant<\|end_header_id\|>|<\|assistant\|>|<start_of_turn>model"
    r"|\[/INST\]|#{2,3} ?(?:Assistant|Response):|(?:^|\n)Assistant:"
)
"""What an answer begins with in conversations that are one text."""


def blanks_after_mark(text: str) -> str:
    """Return the blanks at the end of a text that ends with the mark of an answer, of which they are a part."""
    *_, rest = _ANSWERS.split(text)
    return rest if len(rest) < len(text) and not rest.strip() else ""


def is_answered(text: str) -> bool:
    """Tell whether a text is a conversation, written as one text, that goes on after the mark of its last answer."""
    *_, rest = _ANSWERS.split(text)
    return len(rest) < len(text) and bool(rest.strip())


_SPOKEN = re.compile(r"(?:^|\n\n)(Human|Assistant):")


def spoken(text: str) -> Messages | None:
    """Return the turns of a dialogue that is one text and ends where the assistant is to speak; None if it is none."""
    words = _SPOKEN.split(text)
    if len(words) < 5 or words[0].strip() or words[-2:] != ["Assistant", ""]:
        return None
    pairs = zip(words[1:-2:2], words[2:-2:2], strict=True)
    return tuple({"role": ROLES[who.lower()], "content": said.strip()} for who, said in pairs)
