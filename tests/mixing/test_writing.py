from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors import safe_open

from rsoup import __version__, mixing
from rsoup.errors import AdapterError
from rsoup.files import sha256_file

from .making import make_adapter, update_of

WEIGHTS = "adapter_model.safetensors"


def pair(folder: Path, **settings: Any) -> list[Path]:
    start = {"init_sha256": "a" * 64, "base_model": {"name": "owner/tiny", "sha256": "c" * 64}}
    return [make_adapter(folder / name, i, provenance=start, **settings) for i, name in enumerate(("one", "two"))]


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def identity(path: Path) -> tuple[int, int]:
    """Return what changes when a file is written again."""
    return path.stat().st_ino, path.stat().st_mtime_ns


@pytest.mark.parametrize("method", mixing.METHODS)
def test_what_is_written_is_read_back_the_same(method: str, tmp_path: Path) -> None:
    soup = mixing.mix(pair(tmp_path), [0.25, 0.75], method=method)
    found = mixing.read(mixing.write(soup, tmp_path / "soup"))
    assert found.tensors().keys() == soup.adapter.tensors().keys()
    for name, array in soup.adapter.tensors().items():
        assert found.tensors()[name].tobytes() == array.tobytes()
    for module in found.layers:
        np.testing.assert_array_equal(update_of(found, module), update_of(soup.adapter, module))


def test_rsoup_json_says_where_the_soup_comes_from(tmp_path: Path) -> None:
    one, two = pair(tmp_path)
    soup = mixing.mix([one, two], [0.25, 0.5], base_weight=0.25, method="svd", options=mixing.Options(rank=3))
    path = mixing.write(soup, tmp_path / "soup")
    found = json.loads((path / "rsoup.json").read_text())
    assert found["parents"] == [
        {"name": "one", "path": str(one), "sha256": sha256_file(one / WEIGHTS), "weight": 0.25},
        {"name": "two", "path": str(two), "sha256": sha256_file(two / WEIGHTS), "weight": 0.5},
    ]
    assert found["base_model"] == {"name": "owner/tiny", "sha256": "c" * 64}
    assert (found["schema"], found["kind"], found["name"]) == (1, "soup", "soup")
    assert (found["method"], found["base_weight"], found["options"]) == ("svd", 0.25, {"rank": 3, "seed": 0})
    assert (found["init_sha256"], found["sha256"]) == ("a" * 64, sha256_file(path / WEIGHTS))
    assert found["versions"]["rsoup"] == __version__


def test_the_safetensors_header_carries_the_parents(tmp_path: Path) -> None:
    path = mixing.write(mixing.mix(pair(tmp_path), [0.25, 0.75]), tmp_path / "soup")
    with safe_open(path / WEIGHTS, "np") as file:
        metadata = file.metadata()
    assert metadata["format"] == "pt"
    found = json.loads(metadata["rsoup"])
    assert [(parent["name"], parent["weight"]) for parent in found["parents"]] == [("one", 0.25), ("two", 0.75)]
    assert found["method"] == "factors"


def test_the_model_card_is_what_the_hub_reads(tmp_path: Path) -> None:
    cards = pytest.importorskip("huggingface_hub")
    path = mixing.write(mixing.mix(pair(tmp_path, task_type="CAUSAL_LM"), [0.25, 0.75]), tmp_path / "soup")
    card = cards.ModelCard.load(path / "README.md")
    assert card.data.base_model == "owner/tiny"
    assert card.data.library_name == "peft"
    assert card.data.pipeline_tag == "text-generation"
    assert {"lora", "merge", "rewarded-soups"} <= set(card.data.tags)
    assert "| one | 0.25 |" in card.text


@pytest.mark.parametrize("name", ["/home/me/model", "tiny", "a/b: [c", 'a/"b"', "a/b/c", None])
def test_a_base_that_is_no_hub_id_stays_out_of_the_front_matter(name: str | None, tmp_path: Path) -> None:
    soup = mixing.mix([make_adapter(tmp_path / "a", base_model_name_or_path=name)], [1.0])
    text = (mixing.write(soup, tmp_path / "soup") / "README.md").read_text()
    assert set(yaml.safe_load(text.split("---")[1])) == {"library_name", "tags"}


def test_names_in_the_card_cannot_become_markup(tmp_path: Path) -> None:
    path = make_adapter(tmp_path / "a", provenance={"name": "<script>|`x`[y](z)"})
    text = (mixing.write(mixing.mix([path], [1.0]), tmp_path / "soup") / "README.md").read_text()
    assert "| _script___x__y__z_ | 1 |" in text


def test_the_same_mix_is_not_written_twice(tmp_path: Path) -> None:
    paths = pair(tmp_path)
    folder = mixing.write(mixing.mix(paths, [0.25, 0.75]), tmp_path / "soup")
    before = identity(folder / WEIGHTS)
    assert mixing.write(mixing.mix(paths, [0.25, 0.75]), folder) == folder
    assert identity(folder / WEIGHTS) == before
    with pytest.raises(AdapterError, match="is already there"):
        mixing.write(mixing.mix(paths, [0.5, 0.5]), folder)


def test_overwrite_replaces_an_adapter_and_nothing_else(tmp_path: Path) -> None:
    soup = mixing.mix(pair(tmp_path), [0.25, 0.75])
    old = make_adapter(tmp_path / "old", 7)
    assert mixing.read(mixing.write(soup, old, overwrite=True)).sha256 != mixing.read(tmp_path / "one").sha256
    assert not list(tmp_path.glob(".old*"))
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("work")
    with pytest.raises(AdapterError, match="was not written by rsoup"):
        mixing.write(soup, tmp_path / "thesis", overwrite=True)
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "work"


@pytest.mark.parametrize("place", ["one", "one/soup", ".", "link", "link/soup", "one/../two"])
def test_an_output_on_an_input_is_refused(place: str, tmp_path: Path) -> None:
    soup = mixing.mix(pair(tmp_path / "in"), [0.25, 0.75])
    (tmp_path / "in" / "link").symlink_to(tmp_path / "in" / "one")
    before = snapshot(tmp_path)
    with pytest.raises(AdapterError, match="is, holds or lies in the input"):
        mixing.write(soup, tmp_path / "in" / place, overwrite=True)
    assert snapshot(tmp_path) == before


def test_a_file_or_a_dangling_link_as_output_is_refused(tmp_path: Path) -> None:
    soup = mixing.mix(pair(tmp_path), [0.25, 0.75])
    (tmp_path / "file").write_text("keep")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("file", "dangling", "file/soup", "file/deep/soup"):
        with pytest.raises(AdapterError):
            mixing.write(soup, tmp_path / name, overwrite=True)
    assert (tmp_path / "file").read_text() == "keep"
    assert not (tmp_path / "nowhere").exists()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    soup = mixing.mix(pair(tmp_path), [0.25, 0.75])
    with pytest.raises(AdapterError, match=r"/proc/rsoup/soup: could not be written"):
        mixing.write(soup, "/proc/rsoup/soup")


def test_a_folder_without_write_permission_is_named(tmp_path: Path) -> None:
    """Root, who may write everywhere, becomes somebody else for it, in a folder that others can reach."""
    one, two = pair(tmp_path)
    program = (
        "import os, sys; from rsoup import mixing, errors\n"
        "soup = mixing.mix(sys.argv[1:3], [0.25, 0.75])\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"
        "try: mixing.write(soup, sys.argv[3])\n"
        "except errors.AdapterError as error: print(error.message)"
    )
    with tempfile.TemporaryDirectory() as name:
        locked = Path(name) / "locked"
        Path(name).chmod(0o755)
        locked.mkdir(mode=0o555)
        words = [sys.executable, "-c", program, one, two, locked / "soup"]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        assert f"{locked / 'soup'}: could not be written (Permission denied" in done.stdout
        assert not list(locked.iterdir())


def limit_file_size() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (400, 400))


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: the write fails in the middle."""
    one, two = pair(tmp_path / "in")
    program = (
        "import sys; from rsoup import mixing, errors\n"
        "try: mixing.write(mixing.mix(sys.argv[1:3], [0.5, 0.5]), sys.argv[3])\n"
        "except errors.AdapterError as error: print(error.message)"
    )
    (tmp_path / "out").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", program, one, two, tmp_path / "out" / "soup"],
        capture_output=True,
        text=True,
        check=True,
        env=environment(),
        preexec_fn=limit_file_size,
    )
    assert "out/soup: could not be written (File too large" in done.stdout
    assert list((tmp_path / "out").iterdir()) == []


def environment() -> dict[str, str]:
    root = Path(mixing.__file__).parents[2]
    return {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}


def test_a_kill_at_any_time_leaves_a_whole_output_or_none(tmp_path: Path) -> None:
    shapes = {f"layers.{i}.q_proj": (64, 64) for i in range(64)}
    one, two = pair(tmp_path / "in", shapes=shapes, rank=8)
    before = snapshot(tmp_path / "in")
    program = (
        "import sys; from rsoup import mixing\n"
        "soups = [mixing.mix(sys.argv[1:3], [w, 1 - w]) for w in (0.25, 0.5)]\n"
        "print('ready', flush=True)\n"
        "while True:\n    for soup in soups: mixing.write(soup, sys.argv[3], overwrite=True)"
    )
    output = tmp_path / "out" / "soup"
    rng = random.Random(0)
    for _ in range(6):
        with subprocess.Popen(
            [sys.executable, "-c", program, one, two, output], stdout=subprocess.PIPE, env=environment()
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            time.sleep(rng.uniform(0.0, 0.03))
            process.send_signal(signal.SIGKILL)
        if output.exists():
            assert len(mixing.read(output).layers) == len(shapes)
    assert snapshot(tmp_path / "in") == before


def test_a_grid_holds_every_point_and_its_corners_are_the_experts(tmp_path: Path) -> None:
    paths = pair(tmp_path)
    points = mixing.write_grid(paths, 4, tmp_path / "grid").points
    names = ["soup-1.00-0.00", "soup-0.75-0.25", "soup-0.50-0.50", "soup-0.25-0.75", "soup-0.00-1.00"]
    assert [point.name for point in points] == names
    for corner, expert in ((points[0], paths[0]), (points[-1], paths[1])):
        found, expected = mixing.read(corner).tensors(), mixing.read(expert).tensors()
        assert {name: array.tobytes() for name, array in found.items()} == {
            name: array.tobytes() for name, array in expected.items()
        }
    listed = json.loads((tmp_path / "grid" / "grid.json").read_text())["points"]
    assert listed[1] == {"path": "soup-0.75-0.25", "weights": {"one": 0.75, "two": 0.25}}


def test_the_same_grid_is_not_written_twice(tmp_path: Path) -> None:
    paths = [make_adapter(tmp_path / name, i, rank=2 + i) for i, name in enumerate(("one", "two"))]
    settings: dict[str, Any] = {"method": "svd", "options": mixing.Options(rank=1)}
    first = mixing.write_grid(paths, 2, tmp_path / "grid", **settings)
    before = identity(tmp_path / "grid" / "grid.json")
    assert mixing.write_grid(paths, 2, tmp_path / "grid", **settings) == first
    assert identity(tmp_path / "grid" / "grid.json") == before
    assert len(first.warnings) == 1  # of both adapters the start is unknown
    worst = {
        module: max(mixing.mix(paths, w, **settings).discarded[module] for w in ([1, 0], [0.5, 0.5], [0, 1]))
        for module in first.discarded
    }
    assert first.discarded == worst
    for changed in ({"method": "cat"}, {**settings, "dtype": "BF16"}):
        with pytest.raises(AdapterError, match="is already there"):
            mixing.write_grid(paths, 2, tmp_path / "grid", **changed)
    with pytest.raises(AdapterError, match="is already there"):
        mixing.write_grid(paths, 1, tmp_path / "grid", **settings)
    (tmp_path / "grid" / "soup-0.50-0.50" / WEIGHTS).write_bytes(b"")
    with pytest.raises(AdapterError, match="is already there"):
        mixing.write_grid(paths, 2, tmp_path / "grid", **settings)


def test_a_grid_that_fails_leaves_nothing(tmp_path: Path) -> None:
    paths = [make_adapter(tmp_path / "one"), make_adapter(tmp_path / "two", rank=3)]
    with pytest.raises(AdapterError, match="rank 3"):
        mixing.write_grid(paths, 4, tmp_path / "out" / "grid")
    assert not (tmp_path / "out" / "grid").exists()
    assert list((tmp_path / "out").glob("*")) == []


def test_a_mix_of_three_in_one_grid(tmp_path: Path) -> None:
    paths = [make_adapter(tmp_path / str(i), i) for i in range(3)]
    points = mixing.write_grid(paths, 3, tmp_path / "grid", method="cat").points
    assert len(points) == 10
    assert mixing.read(tmp_path / "grid" / "soup-0.33-0.33-0.33").config.rank == 6


def test_soups_are_mixed_again(tmp_path: Path) -> None:
    paths = pair(tmp_path)
    soups = [mixing.write(mixing.mix(paths, [w, 1 - w]), tmp_path / f"soup{w}") for w in (0.25, 0.75)]
    again = mixing.mix(soups, [0.5, 0.5])
    assert again.warnings == ()
    even = mixing.mix(paths, [0.5, 0.5]).adapter
    for module in even.layers:
        np.testing.assert_allclose(update_of(again.adapter, module), update_of(even, module), atol=1e-5)


def test_mixing_imports_no_torch(tmp_path: Path) -> None:
    program = "import sys, rsoup.mixing; print([m for m in ('torch', 'transformers', 'peft') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment()
    )
    assert done.stdout.strip() == "[]"
