"""Files that travel are whole where they arrive, and a checkpoint never comes without its metrics."""

from __future__ import annotations

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rsoup.stages.parcels import Changes, pack, unpack
from tiny import tree


def write(root: Path, **files: str) -> None:
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_files_arrive_where_they_were(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    write(one, adapters__a__weights="1", adapters__a__deep__er="2", checkpoints__a__step="3", logs__x="4")
    unpack(pack(one, "adapters", "checkpoints"), other)
    assert tree(other) == {path for path in tree(one) if not path.startswith("logs")}
    assert (other / "adapters/a/deep/er").read_text() == "2"


def test_an_adapter_replaces_an_older_one_as_a_whole(tmp_path: Path) -> None:
    write(tmp_path, adapters__a__old="old")
    unpack({"adapters/a/new": b"new"}, tmp_path)
    assert tree(tmp_path / "adapters") == {"a", "a/new"}


def test_only_what_has_changed_travels_and_what_is_being_written_does_not(tmp_path: Path) -> None:
    changes = Changes(tmp_path, "checkpoints")
    assert changes.look() == {}
    write(tmp_path, checkpoints__a__metrics="1", checkpoints__a__step="2", logs__x="x")
    (tmp_path / "checkpoints/a/.step-3.partial").write_text("half")
    assert changes.look() == {"checkpoints/a/metrics": b"1", "checkpoints/a/step": b"2"}
    assert changes.look() == {}
    write(tmp_path, checkpoints__a__metrics="12")
    assert changes.look() == {"checkpoints/a/metrics": b"12"}


def test_folders_may_go_during_a_look(tmp_path: Path) -> None:
    """A training that ends removes its checkpoints while it is asked for news."""
    changes, over = Changes(tmp_path, "checkpoints"), threading.Event()
    write(tmp_path, checkpoints__b__kept="x")

    def come_and_go() -> None:
        while not over.is_set():
            write(tmp_path, **{f"checkpoints__a__deep__step-{number}": "x" for number in range(3)})
            shutil.rmtree(tmp_path / "checkpoints/a")

    with ThreadPoolExecutor(1) as pool:
        training = pool.submit(come_and_go)
        try:
            found = [changes.look() for _ in range(1500)]
        finally:
            over.set()
        training.result()
    assert "checkpoints/b/kept" in found[0]


def test_a_checkpoint_saved_during_a_look_comes_with_the_metrics_of_its_last_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step is over when the checkpoint is read: metrics written up to then are read after it, and written first."""
    write(tmp_path, **{"checkpoints__a__metrics.jsonl": "1\n", "checkpoints__a__step-000002.safetensors": "s"})
    metrics, read_bytes = tmp_path / "checkpoints/a/metrics.jsonl", Path.read_bytes

    def read(path: Path) -> bytes:
        if path.suffix == ".safetensors":
            metrics.write_text("1\n2\n")
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", read)
    found = Changes(tmp_path, "checkpoints").look()
    assert list(found) == ["checkpoints/a/metrics.jsonl", "checkpoints/a/step-000002.safetensors"]
    assert found["checkpoints/a/metrics.jsonl"] == b"1\n2\n"
