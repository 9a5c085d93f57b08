"""Models of the hub, and what may be wrong with it: no network, a wrong name, a closed door, a missing file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from rsoup.errors import RsoupError, first_line, see

COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class _Trouble:
    """Something that goes wrong: how its exceptions are called or what they say, and what the user is told."""

    classes: tuple[str, ...]
    phrases: tuple[str, ...]
    message: str
    hint: str


NETWORK = ("ConnectionError", "ConnectError", "TimeoutException", "TransportError", "LocalEntryNotFoundError")

ABSENT = _Trouble(
    ("RepositoryNotFoundError",),
    ("doesn't exist on the Hub",),
    "there is no such {kind} on the hub, or it is private and you are not logged in",
    "Check the spelling (owner/name); for a private one run: hf auth login",
)
TROUBLES = (
    _Trouble(
        ("OfflineModeIsEnabled",),
        ("OfflineModeIsEnabled", "outgoing traffic has been disabled"),
        "is no folder here and not in the hub's cache, and offline mode is on (HF_HUB_OFFLINE)",
        "Check the path, or unset HF_HUB_OFFLINE." + see("no-network"),
    ),
    _Trouble(
        ("GatedRepoError",),
        ("is a gated",),
        "the {kind} is gated: its owners ask you to accept their terms first",
        "Ask for access on its page on the hub, then run: hf auth login" + see("a-gated-model"),
    ),
    _Trouble(
        ("RevisionNotFoundError", "RevisionResolutionError"),
        (),
        "the {kind} has no such revision",
        "Check revision: a branch, a tag or a commit of it.",
    ),
    ABSENT,
    _Trouble(
        ("RemoteEntryNotFoundError",),
        (),
        "the {kind} is there, but lacks a file that is needed",
        "Check that it is the right one.",
    ),
    _Trouble(
        (),
        ("trust_remote_code",),
        "the {kind} needs code from its repository, and rsoup does not run that by itself",
        "Read that code; if you trust that of a reward model, set its trust_remote_code: true in the recipe.",
    ),
)
SERVER = "the hub answered with the error {status}"
UNREACHABLE = _Trouble(
    NETWORK,
    (),
    "the hub cannot be reached, and the {kind} is not on this machine",
    "Check the network (and HF_ENDPOINT, if it is set); the name may well be right." + see("no-network"),
)


@cache
def commit_of(repository: str, revision: str | None) -> str:
    """Return the commit that a model's revision on the hub stands for; the machine's copy serves where there is one.

    OSError, from what the hub's client raised, if there is none.
    """
    if revision is not None and COMMIT.fullmatch(revision):
        return revision
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repository, "config.json", revision=revision)).parent.name
    except Exception as problem:  # errors of the client's own and of the libraries under it
        raise OSError(first_line(problem)) from problem


def folder_or_hub_id(name: str, what: str, error: type[RsoupError], advice: str = "") -> str:
    """Return the absolute path of a model folder, or the hub id itself; ``what`` names it in errors."""
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise error(
                f"{what}: the folder is not a model: it has no config.json.",
                "Give a folder written by save_pretrained, or a hub id.",
            )
        return str(path.resolve())
    if path.exists() or name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise error(f"{what}: there is no such model folder.", f"Check the path.{advice}")
    return name


def hub_trouble(problem: BaseException, what: str, kind: str) -> tuple[str, str] | None:
    """Return what is wrong and what to do if an exception came from the hub, else None.

    ``what`` names the model or data set in the message, ``kind`` says which of them it is. Libraries wrap the
    hub's exceptions, so the causes are searched too; the names of classes are compared, so that nothing is imported.
    """
    chain = list(_causes(problem))
    names = {base.__name__ for cause in chain for base in type(cause).__mro__}
    said = " ".join(str(cause) for cause in chain)
    status = next((code for cause in chain if (code := _status(cause)) is not None), None)

    def fits(trouble: _Trouble) -> bool:
        return not names.isdisjoint(trouble.classes) or any(phrase in said for phrase in trouble.phrases)

    found = next((trouble for trouble in TROUBLES if fits(trouble)), None)
    if found is None and status is not None and status != 404:
        hint = "Try again later." if status >= 500 else "Check your access on the hub, or run: hf auth login"
        return f"{what}: {SERVER.format(status=status)}.", hint
    if found is None:
        found = ABSENT if status is not None else UNREACHABLE if fits(UNREACHABLE) else None
    return None if found is None else (f"{what}: {found.message.format(kind=kind)}.", found.hint)


def _causes(problem: BaseException | None) -> Iterator[BaseException]:
    while problem is not None:
        yield problem
        problem = problem.__cause__ or problem.__context__


def _status(problem: BaseException) -> int | None:
    """Return the HTTP status that a server answered with, if one did."""
    status = getattr(getattr(problem, "response", None), "status_code", None)
    return status if isinstance(status, int) else None
