"""Open the rows of a data set: a file, a folder, or the hub; of one of several parts, a configuration and a split."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsoup.errors import DataError, did_you_mean, first_line
from rsoup.hub import hub_trouble
from rsoup.tasks.forms import KNOWN, reader_of
from rsoup.tasks.gym import SCHEME, gym_rows

if TYPE_CHECKING:
    from rsoup.tasks import Part

SAVED = ("dataset_dict.json", "state.json")
"""What ``save_to_disk`` leaves in a folder of several splits, and of one."""

_CONFIGURATIONS = re.compile(
    r"(?:Config name is missing|BuilderConfig '.*' not found).*?(?:configs|Available): \[(.*?)\]", re.S
)
"""What datasets says where a configuration has to be named, or another one."""
_MEDIA = re.compile(r"\b(?:Image|Audio|Video)\(")
"""What columns of pictures, sounds and films are called among the features of a data set."""
TEXTUAL = (".json", ".jsonl", ".ndjson", ".csv", ".tsv")
"""Forms whose values are texts until something reads them: datasets takes some of these for numbers, dates or null."""


def open_rows(source: str, part: Part) -> Iterable[Any]:
    """Return the rows of a split of a file, a folder, a task of reasoning-gym or a hub id."""
    if source.startswith(SCHEME):
        return gym_rows(source)
    check_data(source)
    path = Path(source).expanduser()
    reader = reader_of(path)
    if path.is_file() and reader is not None:
        _refuse_parts(source, "a file", part)
        return reader(path)
    if path.is_dir():
        return _read_saved(path, part) if any((path / name).is_file() for name in SAVED) else _read_folder(path, part)
    return _read_hub(source, part)


def check_data(source: str) -> None:
    """Raise DataError if a source is no file that is read, no folder, and cannot be a hub id."""
    path = Path(source).expanduser()
    reader = reader_of(path)
    if path.is_file() and reader is None:
        raise DataError(
            f"{source}: a {path.suffix or 'nameless'} file is not data that rsoup reads.",
            f"Give one of: {KNOWN}, a folder saved by datasets, or a hub id.",
        )
    if source.startswith(SCHEME) or path.is_file() or path.is_dir():
        return
    if re.search(r"[*?]", source):
        raise DataError(
            f"{source}: is a pattern of names, and data is one file, a folder or a hub id.",
            "Give the folder: all files of rows in it are read.",
        )
    if path.exists() or reader is not None or source.count("/") != 1 or source.startswith((".", "/", "~")):
        raise DataError(f"{source}: there is no such data file.", "Check the path (task.data, task.eval_data).")


def _refuse_parts(source: str, what: str, part: Part, keys: tuple[str, ...] = ("config", "split")) -> None:
    """Raise DataError if a part of what has no parts is asked for."""
    asked = {"config": part.config, "split": part.names[0] if part.told else None}
    for key in keys:
        if asked[key] is not None:
            named = part.told if key == "split" else key
            raise DataError(
                f"{source}: is {what}, which has no {key} {asked[key]!r}.",
                f"Leave task.{named} out; held-out rows are those of task.eval_data.",
            )


def _read_saved(path: Path, part: Part) -> Iterable[Any]:
    from datasets import DatasetDict, load_from_disk

    _refuse_parts(str(path), "a folder saved by datasets", part, ("config",))
    try:
        saved = load_from_disk(str(path)).with_format(None)  # of columns as tensors or arrays, or of some alone
    except (FileNotFoundError, ValueError) as problem:
        raise DataError(
            f"{path}: is not a folder saved by datasets: {first_line(problem)}.", "Save it with Dataset.save_to_disk."
        ) from problem
    if isinstance(saved, DatasetDict):
        return _undecoded(_split(saved, part, str(path)))
    _refuse_parts(str(path), "a folder of one split saved by datasets", part)
    return _undecoded(saved)


def _undecoded(rows: Any) -> Iterable[Any]:
    """Return the rows of a data set with pictures, sounds and films as they are stored: opening them is for nothing."""
    if not _MEDIA.search(str(rows.features)):
        return rows  # type: ignore[no-any-return]
    stream = rows.to_iterable_dataset() if hasattr(rows, "to_iterable_dataset") else rows
    return stream.decode(False)  # type: ignore[no-any-return]


def _read_folder(path: Path, part: Part) -> Iterable[Any]:
    """Read a folder of data files laid out as on the hub, without a copy in the cache."""
    from datasets import load_dataset, load_dataset_builder
    from datasets.exceptions import DatasetsError

    try:
        kept = load_dataset_builder(str(path), part.config, data_dir=part.folder).config.data_files
        files = [Path(file) for file in _split(kept or {}, part, str(path))]
        if set(map(str, kept or ())) == {"train"} and part.config is None and part.folder is None:
            _refuse_left_out(path, files)
        if all(map(_is_textual, files)):
            return _read_files(files)
        loaded = load_dataset(str(path), part.config, data_dir=part.folder, streaming=True)
        return _undecoded(_split(loaded, part, str(path)))
    except (OSError, ValueError, RuntimeError, DatasetsError) as problem:
        told = _configuration_trouble(problem, str(path), part) or (
            f"{path}: the folder holds no data that can be read: {first_line(problem)}.",
            "Give a folder saved by datasets, or one of JSONL, CSV or Parquet files.",
        )
        raise DataError(*told) from problem


def _refuse_left_out(folder: Path, files: Iterable[Path]) -> None:
    """Raise DataError if datasets reads some files of a folder and not others, which have another form.

    Names that tell a split, and a card that names files, say which ones are meant.
    """
    files, card = list(files), folder / "README.md"
    used = {file.resolve() for file in files}
    named = any("train" in str(file).removeprefix(str(folder.absolute())).lower() for file in files)
    if named or (card.is_file() and "data_files" in card.read_text(encoding="utf-8", errors="replace")):
        return
    found = [
        file for file in sorted(folder.rglob("*")) if file.is_file() and reader_of(file) and file.suffix != ".json"
    ]
    visible = (file for file in found if not any(part.startswith(".") for part in file.relative_to(folder).parts))
    other = next((file for file in visible if file.resolve() not in used), None)
    if other is not None:
        read = ", ".join(sorted(file.name for file in files)[:3])
        raise DataError(
            f"{folder}: holds rows in several forms, of which one is read at a time: {read}, and not {other.name}.",
            "Give a folder whose files have one form, or name the file.",
        )


def _is_textual(file: Path) -> bool:
    return reader_of(file) is not None and any(suffix.lower() in TEXTUAL for suffix in file.suffixes[-2:])


def _read_files(files: Iterable[Path]) -> Iterator[Any]:
    """Read files one after the other; DataError if one of them is about something else."""
    known: set[str] | None = None
    for file in files:
        reader = reader_of(file)
        assert reader is not None
        for number, row in enumerate(reader(file)):
            columns = set(row) if number == 0 and isinstance(row, Mapping) else None
            if known is not None and columns is not None and known.isdisjoint(columns):
                raise DataError(
                    f"{file}: its rows have none of the columns that the files before it have.",
                    "Give a folder whose files are rows with the same columns.",
                )
            known = known or columns
            yield row


def _configuration_trouble(problem: Exception, source: str, part: Part) -> tuple[str, str] | None:
    """Return what to say if a data set has configurations and none of them is named, else None."""
    found = _CONFIGURATIONS.search(str(problem))
    if found is None:
        return None
    names = re.findall(r"'(.*?)'", found[1])
    if part.config is None:
        return f"{source}: has the configurations {', '.join(names)}.", "Name one: task.config (--config)."
    return f"{source}: has no configuration {part.config!r}.", f"Set task.config. {did_you_mean(part.config, names)}"


def is_remote(source: str) -> bool:
    """Tell whether rows come from the hub, and so stay as they are while a command runs."""
    return not Path(source).expanduser().exists()


def _read_hub(source: str, part: Part) -> Iterator[Any]:
    """Read a data set of the hub; where only some rows are asked for, no more than these are fetched."""
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    try:
        loaded = load_dataset(source, part.config, data_dir=part.folder, streaming=part.limit is not None)
        yield from _undecoded(_split(loaded, part, source))
    except (OSError, ValueError, RuntimeError, DatasetsError) as problem:
        told = (
            _configuration_trouble(problem, source, part)
            or hub_trouble(problem, source, "data set")
            or (
                f"{source}: the data set cannot be loaded: {first_line(problem)}.",
                "Check the path or hub id; a data set that is a script has to be converted to Parquet first.",
            )
        )
        raise DataError(*told) from problem


def _split(splits: Any, part: Part, source: str) -> Iterable[Any]:
    for name in part.names:
        if name in splits:
            rows: Iterable[Any] = splits[name]
            return rows
    raise DataError(
        f"{source}: has no split {part.names[0]!r}, only {', '.join(map(str, splits))}.",
        "Name the rows to train on with task.split (--split) and those held out with task.eval_split.",
    )
