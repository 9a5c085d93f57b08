"""Workers as Ray actors: one Ray of two cores for the session, no processes of a command."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from command import Command, assert_refused
from rsoup.progress import Silent
from rsoup.recipe_file import load_recipe
from rsoup.resolve import resolve
from rsoup.stages.address import HERE, prepare
from rsoup.stages.together import train_together
from rsoup.training.folders import Training
from tiny import recipe_content, write_recipe

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install '.[ray]'")

WEIGHTS = "adapter_model.safetensors"
MEMORY = 100 << 20


@pytest.fixture(scope="module")
def two_cores() -> Iterator[None]:
    """Ray on this machine, as --ray starts it; commands find it and leave it running."""
    prepare(HERE)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    ray.init(
        address=HERE,
        num_cpus=2,
        num_gpus=0,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=MEMORY,
    )
    yield
    ray.shutdown()
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("two_cores")
def test_a_run_on_ray_has_the_results_of_a_run_without_it(
    rsoup: Command, tmp_path: Path, tiny_run: Path, tiny_model: Path
) -> None:
    recipe = write_recipe(tmp_path / "tiny.yaml", recipe_content(tmp_path, tiny_model))
    called = rsoup("run", recipe, "--ray")
    assert (called.code, called.lines[-1]) == (0, str(tmp_path / "run/report/index.html"))
    assert "Ray has no GPUs and 2 cores." in called.err
    for file in ("eval/results.json", f"adapters/positive/{WEIGHTS}", f"adapters/morl-0.50-0.50/{WEIGHTS}"):
        assert (tmp_path / "run" / file).read_bytes() == (tiny_run / "run" / file).read_bytes()


class Killing(Silent):
    """Kills all workers once, when a checkpoint has arrived."""

    def __init__(self, checkpoints: Path) -> None:
        self.lost: list[str] = []
        self._checkpoints = checkpoints
        self._killed = False

    def show(self, stage: str, total: int, done: int, note: str = "") -> None:
        if not self._killed and done < total and list(self._checkpoints.glob("step-*")):
            self._killed = True
            for own in psutil.Process().children(recursive=True):
                if any("Workshop" in word for word in own.cmdline()):
                    own.kill()

    def say(self, text: str) -> None:
        self.lost += [text] if "was lost" in text else []


@pytest.mark.usefixtures("two_cores")
def test_a_killed_worker_is_replaced_and_its_training_goes_on(tmp_path: Path, tiny_model: Path) -> None:
    from rsoup.stages.cluster import connected
    from rsoup.stages.workshop import Workshop

    content = recipe_content(tmp_path, tiny_model)
    content["training"] |= {"steps": 60, "checkpoint_every": 2}
    recipe = load_recipe(write_recipe(tmp_path / "tiny.yaml", content))
    killing, training = (
        Killing(tmp_path / "run/checkpoints/positive"),
        Training("positive", {"positive": 1.0}, "expert"),
    )
    with connected(HERE, Workshop) as cluster:
        (folder,) = train_together([resolve(recipe)], [training], cluster, killing, overwrite=False)
    assert len(killing.lost) == 1
    steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 61))


@pytest.mark.usefixtures("two_cores")
def test_an_error_of_a_worker_is_two_lines(rsoup: Command, tmp_path: Path, tiny_model: Path) -> None:
    (tmp_path / "own.py").write_text("def none(completions):\n    return [float('nan') for _ in completions]\n")
    content = recipe_content(tmp_path, tiny_model)
    content["rewards"], content["morl"] = {"none": {"function": f"{tmp_path / 'own.py'}:none"}}, []
    recipe = write_recipe(tmp_path / "tiny.yaml", content)
    called = rsoup("train", recipe, "--reward", "none", "--ray")
    assert_refused(called, "The reward none returned", f"The sample is in {tmp_path}/run/checkpoints/none/")
