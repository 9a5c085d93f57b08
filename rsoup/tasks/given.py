"""What rows give chat templates beside turns, in columns of TRL's names: tools, and options of the template."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rsoup.tasks.plain import filled


def tools_of(columns: Mapping[str, Any]) -> list[Any] | None:
    """Return the tools of a row, mappings or a text that spells them in JSON; None if it has none."""
    tools = _read(columns.get("tools"))
    if not isinstance(tools, list) or not tools or not all(isinstance(tool, Mapping) for tool in tools):
        return None
    return [filled(tool) for tool in tools]


def options_of(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that a row gives its chat template."""
    options = _read(columns.get("chat_template_kwargs"))
    return {name: value for name, value in options.items() if value is not None} if isinstance(options, Mapping) else {}


def names_of(tools: list[Any]) -> list[str]:
    """Return the names of tools, in OpenAI's form or bare."""
    inner = [tool["function"] if isinstance(tool.get("function"), Mapping) else tool for tool in tools]
    return [name for tool in inner if isinstance(name := tool.get("name"), str)]


def _read(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return None
