"""A sweep that is killed at any moment, or that shares its folder, ends as if nothing had happened."""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from forking import Forked
from rsoup.adapters.tensorfile import map_tensors, read_header, write_tensors
from rsoup.evaluation.cache import Kept
from rsoup.evaluation.sweep import evaluate
from rsoup.progress import Silent
from rsoup.recipe_file import load_recipe
from rsoup.resolve import resolve

from .sweeping import Recording, files, sweep


class Telling(Silent):
    """Takes its time."""

    def advance(self, note: str = "") -> None:
        time.sleep(0.02)


def sweep_slowly(recipe: Path, out: Path, experts: list[Path]) -> None:
    resolved = resolve(load_recipe(recipe))
    print("ready", flush=True)
    evaluate(resolved, experts, out, Telling())


@pytest.fixture
def recipe(content: dict[str, Any], tmp_path: Path) -> Path:
    """A recipe of two rewards and seven points, in a file."""
    content["rewards"] = {"brief": None, "positive": None}
    content["evaluation"].update(lambdas=6)
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_a_sweep_killed_at_random_moments_ends_with_the_same_files(
    content: dict[str, Any], recipe: Path, experts: list[Path], tmp_path: Path
) -> None:
    sweep(content, experts[:2], tmp_path / "whole")
    moments = random.Random(time.time_ns())
    for _ in range(2):
        with Forked(sweep_slowly, recipe, tmp_path / "eval", experts[:2]) as process:
            process.wait_for(lambda own: own.out == "ready\n")
            time.sleep(moments.uniform(0.02, 0.8))
            process.send_signal(signal.SIGKILL)
            process.ended()
    more = Recording()
    sweep(content, experts[:2], tmp_path / "eval", more)
    assert files(tmp_path / "eval") == files(tmp_path / "whole")
    assert len(more.completed) <= 7 * 4
    assert len(more.completed) % 4 == 0  # whole points


def test_two_sweeps_at_once_share_their_work(content: dict[str, Any], experts: list[Path], tmp_path: Path) -> None:
    sweep(content, experts[:2], tmp_path / "whole", lambdas=6)
    both = [Recording(), Recording()]
    with ThreadPoolExecutor(2) as pool:
        ends = [pool.submit(sweep, content, experts[:2], tmp_path / "eval", own, lambdas=6) for own in both]
    assert all(end.result() for end in ends)
    completed = both[0].completed + both[1].completed
    assert sorted(completed) == sorted(4 * [point["id"] for point in points(tmp_path / "whole")])
    assert files(tmp_path / "eval") == files(tmp_path / "whole")


def test_a_sweep_that_is_stopped_keeps_its_point_until_it_goes_on(
    content: dict[str, Any], recipe: Path, experts: list[Path], tmp_path: Path
) -> None:
    sweep(content, experts[:2], tmp_path / "whole")
    own = Recording()
    with Forked(sweep_slowly, recipe, tmp_path / "eval", experts[:2]) as process, ThreadPoolExecutor(1) as pool:
        process.wait_for(lambda _: len(list((tmp_path / "eval/points").glob("*/.lock"))) > 1)
        process.send_signal(signal.SIGSTOP)
        ours = pool.submit(sweep, content, experts[:2], tmp_path / "eval", own)
        while len(list((tmp_path / "eval/points").glob("*/completions.json"))) < 6 and not ours.done():
            time.sleep(0.02)
        time.sleep(0.2)
        assert not ours.done()  # one point is left, which is the other's
        process.send_signal(signal.SIGCONT)
        ours.result()
        assert process.ended() == 0, process.err
    assert files(tmp_path / "eval") == files(tmp_path / "whole")


def points(out: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((out / "results.json").read_text())["points"]
    return found


def test_sweeps_of_other_adapters_share_a_folder_and_what_they_have_in_common(
    content: dict[str, Any], experts: list[Path], tmp_path: Path
) -> None:
    sweep(content, [experts[0], experts[1]], tmp_path / "eval")
    other = Recording()
    sweep(content, [experts[1], experts[2]], tmp_path / "eval", other)
    assert set(other.completed) == {"soup-0.50-0.50", "c"}
    back = Recording()
    sweep(content, [experts[0], experts[1]], tmp_path / "eval", back)
    assert back.completed == []


def test_one_changed_byte_of_an_adapter_invalidates_exactly_its_points(
    content: dict[str, Any], experts: list[Path], tmp_path: Path
) -> None:
    changed = Path(shutil.copytree(experts[1], tmp_path / "b"))
    weights = changed / "adapter_model.safetensors"
    sources = [experts[0], changed, experts[2]]
    sweep(content, sources, tmp_path / "eval")
    tensors = {name: array.copy() for name, array in map_tensors(read_header(weights)).items()}
    next(iter(tensors.values())).view("u1")[0, 0] ^= 1  # the last digit of one number
    write_tensors(weights, tensors, {"format": "pt"})
    more = Recording()
    results, _ = sweep(content, sources, tmp_path / "eval", more)
    affected = {point.id for point in results.points if point.weights.get("b")}
    assert set(more.completed) == affected == {"b", "soup-0.50-0.50-0.00", "soup-0.00-0.50-0.50"}


@pytest.mark.parametrize("name", ["completions", "scores"])
def test_a_kept_file_with_one_changed_character_is_made_again(
    name: str, content: dict[str, Any], experts: list[Path], tmp_path: Path
) -> None:
    sweep(content, experts[:2], tmp_path / "eval")
    whole = files(tmp_path / "eval")
    path = next((tmp_path / "eval/points").glob(f"*/{name}*.json"))
    kept = path.read_text()
    at = next(at for at, letter in enumerate(kept) if at > kept.index('"rows"') and letter.isdigit())
    path.write_text(kept[:at] + str((int(kept[at]) + 1) % 10) + kept[at + 1 :])
    sweep(content, experts[:2], tmp_path / "eval")
    assert files(tmp_path / "eval") == whole


def test_a_point_that_another_sweep_is_at_is_waited_for(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "points" / "key")

    def ours(wait: bool) -> bool:
        with kept.held(wait=wait) as mine:
            return mine

    with ThreadPoolExecutor(1) as pool:
        with kept.held(wait=True) as first:
            assert first
            assert not pool.submit(ours, False).result()
            waiting = pool.submit(ours, True)
            time.sleep(0.05)
            assert not waiting.done()
        assert waiting.result()
        assert pool.submit(ours, False).result()
