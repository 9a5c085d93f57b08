"""How the answers of judges are read: pure functions on texts."""

from __future__ import annotations

import re

from rsoup.recipe.judge import JudgeSection
from rsoup.rewards.judges.texts import LETTERS

_THOUGHT = re.compile(r"\s*<think>.*?</think>", re.DOTALL)
_TAG = re.compile(r"</?[A-Za-z][\w-]*>")
_DRESS = re.compile(r"[*_`#$\\{}\[\]()\"=:|]")
"""Markdown, JSON, TeX and the like, which may stand at a number."""
_NUMBER = r"-?\d+(?:\.\d+)?"
_SHARE = re.compile(rf"(?<!\S)({_NUMBER})\s*(?:/|\bout of\b)\s*(\d+(?:\.0+)?)(?!\w)", re.IGNORECASE)
_NUMBERED = re.compile(r"(?P<token>\S*\d\S*)(?:[ \t]+(?P<next>[^\W\d_]+))?")
_FOLLOWING = (
    "point",
    "points",
    "star",
    "stars",
    "overall",
    "because",
    "for",
    "as",
    "since",
    "given",
    "due",
    "and",
    "but",
)
"""Words that may come after a score; a number before another word counts something."""
_LETTER = re.compile(
    r"(?:the (?:better )?answer is)?\s*(?:answer\b)?\s*(?:is\b)?\s*([AB])(?:\s+is better)?[\s.!]*", re.IGNORECASE
)


def read_answer(judge: JudgeSection, text: str) -> float | None:
    """Return the score that an answer gives, or 1 and 0 for A and B; None if it gives none, or more than one.

    Thoughts before it (``<think>``) are left out. A score is the one number of the text, which has to lie on the scale;
    ``7/10`` and ``7 out of 10`` are 7 if the scale ends with 10, and mentions of the whole scale are no numbers.
    """
    text = _THOUGHT.sub("", text, count=1)
    if "<think>" in text:  # a thought without an end
        return None
    text = _DRESS.sub(" ", _TAG.sub(" ", text))
    if judge.pairwise:
        found = _LETTER.fullmatch(text.strip())
        return None if found is None else float(found[1].upper() == LETTERS[0])
    return _number(text, *judge.scale)


def _number(text: str, least: int, most: int) -> float | None:
    """Return the one number of a text, None if there is none, another one, or one that is no score."""
    text = re.sub(rf"(?<![\w.-]){least}\s*(?:-|–|to|and)\s*{most}(?![\w.])", " ", text)
    if any(float(share[2]) != most for share in _SHARE.finditer(text)):
        return None  # on another scale
    text = _SHARE.sub(r"\1", text)
    values = set()
    for found in _NUMBERED.finditer(text):
        token = found["token"].lstrip("'‘“").rstrip(".,;!?'’”")
        token = token.removesuffix("%") if (least, most) == (0, 100) else token
        counts = found["next"] is not None and found["next"].lower() not in _FOLLOWING
        if not re.fullmatch(_NUMBER, token) or (counts and found["token"] == token):
            return None
        values.add(float(token))
    value = values.pop() if len(values) == 1 else None
    return value if value is not None and least <= value <= most else None
