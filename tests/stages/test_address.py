"""Where Ray is, and which GPUs a command uses."""

from __future__ import annotations

import pickle
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from command import Command, assert_refused
from rsoup.errors import FailedSampleError, MissingPackageError, RecipeError, RsoupError
from rsoup.stages.address import Head, prepare, with_address
from rsoup.stages.gpus import names_of, one_process_each, way_of

TWO, EIGHT = ["0", "1"], [str(number) for number in range(8)]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("run r.yaml --ray", "run r.yaml --ray=local"),
        ("run --ray r.yaml", "run --ray=local r.yaml"),
        ("run --ray quickstart -o out", "run --ray=local quickstart -o out"),
        ("run --ray auto r.yaml", "run --ray=auto r.yaml"),
        ("run --ray head:6379 r.yaml", "run --ray=head:6379 r.yaml"),
        ("run r.yaml --ray ray://10.0.0.1:10001 --json", "run r.yaml --ray=ray://10.0.0.1:10001 --json"),
        ("run r.yaml --ray [::1]:6379", "run r.yaml --ray=[::1]:6379"),
        ("run r.yaml --ray=auto", "run r.yaml --ray=auto"),
        ("train r.yaml --ray --reward own.py:f", "train r.yaml --ray=local --reward own.py:f"),
        ("eval --adapters --ray", "eval --adapters --ray=local"),
    ],
)
def test_an_address_may_follow(words: str, expected: str) -> None:
    assert with_address(words.split()) == expected.split()


def test_what_is_no_address_is_refused() -> None:
    with pytest.raises(RecipeError, match="is not an address"):
        prepare("nowhere")


def test_a_launcher_and_ray_are_not_both_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RecipeError, match="a launcher started"):
        prepare("local")


def test_no_cluster_at_an_address_is_two_lines(rsoup: Command, tiny_recipe: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install '.[ray]'")
    called = rsoup("run", tiny_recipe, "--ray", "localhost:1")
    assert_refused(called, "--ray localhost:1: nothing answers there", "ray start --head")


def test_help_and_mix_do_not_load_ray() -> None:
    asked = (
        "import sys; from rsoup.cli import main\ntry: main()\nexcept SystemExit: pass\nassert 'ray' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", asked, "run", "--help"], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("gpus", "environment", "has_ray", "way"),
    [
        ([], {}, True, "here"),
        (["0"], {}, True, "here"),
        (TWO, {}, True, "ray"),
        (TWO, {}, False, "processes"),
        (EIGHT, {"RANK": "0", "WORLD_SIZE": "8"}, True, "here"),
        (EIGHT, {"LOCAL_RANK": "3"}, False, "here"),
        (EIGHT, {"PATH": "/bin"}, True, "ray"),
    ],
)
def test_several_gpus_are_used_unless_a_launcher_has_them(
    gpus: list[str], environment: dict[str, str], has_ray: bool, way: str
) -> None:
    assert way_of(gpus, environment, has_ray=has_ray) == way


def test_gpus_have_the_names_that_a_process_sees() -> None:
    assert names_of(2, {}) == ["0", "1"]
    assert names_of(2, {"CUDA_VISIBLE_DEVICES": "3, GPU-8f"}) == ["3", "GPU-8f"]
    assert names_of(0, {"CUDA_VISIBLE_DEVICES": ""}) == []


def test_the_command_is_given_again_for_each_further_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["rsoup", "recipes", "nothing-of-the-kind"])
    said: list[str] = []
    with one_process_each(TWO, tmp_path, said.append) as logs:
        assert [log.relative_to(tmp_path) for log in logs] == [Path("logs/gpu-1.log")]
        ends = time.monotonic() + 60
        while "there is no such recipe" not in logs[0].read_text():
            assert time.monotonic() < ends
            time.sleep(0.05)
        time.sleep(1)  # for its end
    assert said == [f"warning: the process of GPU 1 ended with code 1, and the others did its part: see {logs[0]}"]


def test_a_head_may_be_gone_for_a_while() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = f"127.0.0.1:{server.getsockname()[1]}"
        assert Head(place, 0.0).answers()
        patient, impatient = Head(place, 60.0), Head(place, 0.0)
        assert patient.answers()
    assert not patient.answers()
    with pytest.raises(RsoupError, match=f"Ray's head is gone \\({place}: .*refused"):
        impatient.answers()
    assert Head("", 0.0).answers()  # of a client no head is known


@pytest.mark.parametrize(
    "error",
    [
        RsoupError("what", "do"),
        MissingPackageError("ray", "--ray", "pip install ray"),
        FailedSampleError("what", "do", reward="r", prompt="p", completion="c"),
    ],
)
def test_an_error_travels_as_it_is(error: RsoupError) -> None:
    arrived = pickle.loads(pickle.dumps(error))
    assert type(arrived) is type(error)
    assert str(arrived) == str(error)
    assert vars(arrived) == vars(error)
