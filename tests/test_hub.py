"""What rsoup says when the hub does not give what is asked for, and that nothing from it is run unasked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rsoup.adapters import read_adapter
from rsoup.errors import AdapterError, DataError, RewardError
from rsoup.recipe import RewardSection
from rsoup.rewards.scoring import make_scorer
from rsoup.tasks import Task
from rsoup.tasks.loading import read_rows

EXPECTED = {
    "gated": ("the {kind} is gated", "Ask for access on its page on the hub"),
    "closed": ("the {kind} is gated", "Ask for access on its page on the hub"),
    "absent": ("there is no such {kind} on the hub, or it is private", "Check the spelling"),
    "nowhere": ("there is no such {kind} on the hub, or it is private", "Check the spelling"),
    "revision": ("the {kind} has no such revision", "Check revision"),
    "forbidden": ("the hub answered with the error 403", "Check your access"),
    "broken": ("the hub answered with the error 500", "Try again later."),
    "unreachable": (
        "the hub cannot be reached, and the {kind} is not on this machine",
        "Check the network",
    ),
}
KINDS = {"model": "model", "reward": "reward model", "data": "data set", "adapter": "repository"}


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, list[str]]]:
    """What was said of every kind of trouble that a server on this machine made."""
    script = Path(__file__).parent / "hub_server.py"
    ended = subprocess.run(
        [sys.executable, str(script), str(tmp_path_factory.mktemp("hub"))],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    answers: dict[str, dict[str, list[str]]] = json.loads(ended.stdout.splitlines()[-1])
    return answers


@pytest.mark.parametrize("case", EXPECTED)
def test_each_trouble_has_its_own_message(case: str, said: dict[str, dict[str, list[str]]]) -> None:
    message, hint = EXPECTED[case]
    for what, kind in KINDS.items():
        found = said[case][what]
        assert f"someone/{case}: {message.format(kind=kind)}" in found[0]
        assert hint in found[1]
        assert "\n" not in found[0]


def test_messages_tell_wrong_names_from_a_missing_network(said: dict[str, dict[str, list[str]]]) -> None:
    messages = {said[case]["model"][0].partition(": ")[2] for case in EXPECTED}
    assert len(messages) == len(EXPECTED) - 2  # gated and absent come with two statuses each


def test_code_of_a_repository_is_not_run_and_the_key_that_allows_it_is_named(
    said: dict[str, dict[str, list[str]]],
) -> None:
    for what in ("model", "reward"):
        message, hint = said["code"][what]
        assert "needs code from its repository, and rsoup does not run that by itself" in message
        assert "trust_remote_code: true" in hint


def test_what_is_not_here_in_offline_mode_is_told_from_a_missing_network() -> None:
    """The tests run with HF_HUB_OFFLINE."""
    with pytest.raises(RewardError, match="is no folder here and not in the hub's cache") as caught:
        make_scorer("judge", RewardSection(model="someone/judge"))
    assert caught.value.hint == "Check the path, or unset HF_HUB_OFFLINE. (README: #no-network)"
    with pytest.raises(DataError, match="someone/rows: is no folder here and not in the hub's cache"):
        read_rows(Task("t", "someone/rows"), "train")
    with pytest.raises(AdapterError, match="someone/adapter: is no folder here and not in the hub's cache"):
        read_adapter("someone/adapter")


@pytest.mark.parametrize("name", ["a-model", "an-adapter", "a-judge", "judge-adapter", "some-rows"])
def test_what_the_hub_hands_out_is_what_lies_in_the_folder(name: str, said: dict[str, dict[str, list[str]]]) -> None:
    found = said["whole"]
    assert found[name] == found[f"{name}'s folder"]
    assert found[name]


def test_the_hub_tells_models_to_be_mixed_from_adapters(said: dict[str, dict[str, list[str]]]) -> None:
    assert said["whole"]["kinds"] == ["model", "adapter"]
    assert said["whole"]["weights"] == said["whole"]["weights's folder"]


def test_a_reward_model_of_the_hub_is_known_by_its_commit(said: dict[str, dict[str, list[str]]]) -> None:
    assert said["whole"]["commit"] == ["0" * 40]
