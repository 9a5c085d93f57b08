"""Read YAML as people write it, and say which text lacks quotes where it cannot be read."""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import yaml

from rsoup.errors import RecipeError, first_line


class _Loader(yaml.SafeLoader):
    """YAML as people write it: 1e-5 is a number, and a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                break  # the parser's own error names the line
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


_UNREADABLE = (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError)
"""What the parser raises: of values that are no date, no number or no truth value as they are said to be, anything."""


def parse_yaml(text: str, where: str) -> Any:
    """Return what a text says; RecipeError names the line, and the text there that lacks quotes, if one does."""
    try:
        return yaml.load(text, Loader=_Loader)
    except RecursionError as problem:
        raise RecipeError(f"{where}: not valid YAML: it is nested too deeply.", "Check the brackets.") from problem
    except _UNREADABLE as problem:
        mark, begun = getattr(problem, "problem_mark", None), getattr(problem, "context_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        what = getattr(problem, "problem", None) or f"it cannot be parsed ({first_line(problem)})"
        hint = "Mend the line and try again."
        if mark and "given twice" not in what:
            first = begun.line if begun and mark.line - begun.line < NEAR else mark.line - 1
            nearest_first = text.splitlines()[max(0, first) : mark.line + 1][::-1]
            found = next((key for own in nearest_first if (key := unquoted(own)) is not None), None)
            if found is None and what.startswith("mapping values") and len(nearest_first) > 1:
                found = _key_of_words(nearest_first[1])
                hint = "Indent the line as its neighbours are, and try again."
            hint = hint if found is None else quote(found)
        raise RecipeError(f"{where}{line}: not valid YAML: {what}.", hint) from problem


NEAR = 4
"""Lines above an error, up to where what it belongs to began, that may hold its cause."""

_ENTRY = re.compile(r"\s*(?:- +)*(?P<key>[\w.-]+) *:(?: +(?P<value>.*\S))?\s*$")
_QUOTED = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"\\]|\\.)*\"")
_BLOCK = re.compile(r"[|>][-+0-9]{0,2}\s*(#.*)?")
_SPECIAL = re.compile(r"[@`%*&!|>,\]}]|[-?] ")
_PAIR = re.compile(r"([\w.-]+): *([^,{}\[\]]*)")


def quote(key: str) -> str:
    """Return a hint to quote the text of a key."""
    return f'Quote the text ({key}: "..."), or write it on lines of its own below {key}: |'


def unquoted(line: str) -> str | None:
    """Return the key of a text on a line that YAML cannot read without quotes, None if there is none."""
    entry = _ENTRY.match(line)
    if entry is None or not entry["value"]:
        return None
    key, value = entry["key"], entry["value"]
    if value[0] in "'\"":
        rest = _QUOTED.sub("", value, count=1).strip()
        return key if rest and not rest.startswith("#") else None
    if re.match(r"\{+\w+\}+", value):  # {post}, which is no mapping
        return key
    if value[0] in "{[":
        pairs = _PAIR.findall(_QUOTED.sub("q", value))
        return next((name for name, text in pairs if _lacks_quotes(text) or "?" in text), None)
    return key if not _BLOCK.fullmatch(value) and _lacks_quotes(value) else None


def _lacks_quotes(text: str) -> bool:
    return bool(_SPECIAL.match(text)) or ": " in text or " #" in text or text.endswith(":")


def _key_of_words(line: str) -> str | None:
    """Return the key of a text of several words, which the next line may have been meant to go on with."""
    entry = _ENTRY.match(line)
    return entry["key"] if entry and entry["value"] and " " in entry["value"] else None
