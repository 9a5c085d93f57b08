"""What the bundled recipes say of themselves at their top: what they need, how long they take, what they gave."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Group = Literal["offline", "gpu", "paper"]

GROUPS: dict[Group, str] = {
    "offline": "offline, on two cores",
    "gpu": "a small model on one GPU, with the hub",
    "paper": "the paper's settings, on one large GPU, with the hub",
}

_LINE = re.compile(r"# (needs|time|run|try|check|note|gave) +(.+)")
_GIB = 2**30


@dataclass(frozen=True)
class Header:
    """The top of a recipe; memory, GPU memory and disk in bytes, as far as they are told."""

    what: str
    needs: str
    time: str
    run: str
    gave: str

    @property
    def gpu(self) -> bool:
        """Whether it needs a GPU."""
        return "GPU" in self.needs

    @property
    def hub(self) -> bool:
        """Whether it needs the hub."""
        return bool(re.search(r"\bthe hub\b", self.needs))

    @property
    def memory(self) -> int | None:
        """The memory of the machine."""
        return _size(r"(\d+) GB of memory", self.needs)

    @property
    def gpu_memory(self) -> int | None:
        """The memory of the GPU."""
        return _size(r"GPU of (\d+) GB", self.needs)

    @property
    def disk(self) -> int | None:
        """What the recipe takes of the disk."""
        return _size(r"(\d+) GB of disk", self.needs)

    @property
    def hardware(self) -> str:
        """What it needs of a machine, in a few words."""
        first = re.split(r" \(|; |, the extra", self.needs)[0]
        return first.removeprefix("one ").removesuffix(",")

    @property
    def extras(self) -> tuple[str, ...]:
        """The extras it asks for."""
        found = re.search(r"\bextras? \[([\w,]+)\]", self.needs)
        return tuple(found[1].split(",")) if found else ()

    @property
    def takes(self) -> str:
        """How long it takes, in a few words."""
        return re.split(r" \(|, |; ", self.time.removeprefix("about "))[0]


def header_of(text: str) -> Header:
    """Read the first comment of a recipe; what it does not say is empty."""
    said: dict[str, str] = {}
    key = ""
    lines = text.partition("\n\n")[0].splitlines()
    for line in lines[1:]:
        if (match := _LINE.match(line)) is not None:
            key = match[1]
            said[key] = match[2].strip()
        elif line.startswith("#        ") and key:
            said[key] += f" {line[1:].strip()}"
        else:
            key = ""
    what = lines[0].lstrip("# ").rstrip() if lines else ""
    return Header(what, *(said.get(key, "") for key in ("needs", "time", "run", "gave")))


def read_header(path: Path) -> Header:
    """Return the header of a recipe's file."""
    return header_of(path.read_text(encoding="utf-8"))


def group_of(name: str, header: Header) -> Group:
    """Return the group of a bundled recipe."""
    if name.startswith("paper-"):
        return "paper"
    return "gpu" if header.gpu else "offline"


def grouped(recipes: Iterable[tuple[str, Path]]) -> dict[Group, dict[str, Header]]:
    """Return the headers of recipes by group and name, the quickstart first."""
    found: dict[Group, dict[str, Header]] = {group: {} for group in GROUPS}
    for name, path in sorted(recipes, key=lambda pair: (not pair[0].startswith("quickstart"), pair[0])):
        header = read_header(path)
        found[group_of(name, header)][name] = header
    return found


def _size(pattern: str, text: str) -> int | None:
    found = re.search(pattern, text)
    return int(found[1]) * _GIB if found else None
