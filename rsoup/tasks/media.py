"""Pictures, sounds and films in rows, which prompts of text do not hold."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rsoup.tasks.plain import is_empty
from rsoup.tasks.rows import UnusableRow
from rsoup.tasks.turns import Messages

COLUMNS = ("image", "images", "video", "videos", "audio", "audios")
MARK = re.compile(r"<(?:image|video|audio)>|<\|(?:image|video|audio)(?:_pad)?\|>")
"""Where a picture, a film or a sound stands in a text."""


def media_of(row: Mapping[str, Any]) -> str | None:
    """Return the column of a row's pictures, sounds or films, None if it has none."""
    return next((name for name in COLUMNS if not is_empty(row.get(name))), None)


def check_media(prompt: str | Messages, row: Mapping[str, Any], *, named: bool) -> None:
    """Raise UnusableRow if a prompt asks about what only its row's pictures, sounds or films show.

    They are marked in its text; or, unless the column of the prompt was ``named``, come with turns as more than an
    address.
    """
    name = media_of(row)
    if name is None:
        return
    texts = [prompt] if isinstance(prompt, str) else [turn["content"] for turn in prompt]
    shown = not isinstance(prompt, str) and not named and not _is_address(row[name])
    if shown or any(MARK.search(text) for text in texts):
        raise UnusableRow(f"a prompt about pictures, films or sounds ({name})")


def _is_address(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(own, str) for own in value))
