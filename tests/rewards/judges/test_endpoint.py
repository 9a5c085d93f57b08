"""Judges at an endpoint that is slow, busy, broken or wrong: what they say, what they keep, what they cost."""

from __future__ import annotations

import errno
import os
import re
import socket
from pathlib import Path

import numpy as np
import pytest

from rewards.judges.conftest import Section
from rewards.judges.server import KEY, Endpoint
from rsoup.errors import FailedSampleError, RewardError, RewardUnavailableError
from rsoup.recipe import RewardSection
from rsoup.rewards.judges import pace
from rsoup.rewards.judges.usage import USED, Usage, counted, snapshot, used_since
from rsoup.rewards.samples import Sample
from rsoup.rewards.scoring import make_scorer, score, score_each

ANSWERS = ["bad", "good", "good good", "good good good"]
SAMPLES = [Sample("p", answer) for answer in ANSWERS]


def scores(section: RewardSection, samples: list[Sample] = SAMPLES) -> list[float]:
    return score("kind", make_scorer("kind", section), samples).tolist()


def refused(section: RewardSection) -> RewardError:
    with pytest.raises(RewardUnavailableError) as caught:
        scores(section)
    assert KEY not in str(caught.value)
    return caught.value


def test_every_completion_gets_its_own_score(section: Section, endpoint: Endpoint) -> None:
    assert scores(section()) == [0, 1, 2, 3]
    assert endpoint.keys == {f"Bearer {KEY}"}
    body = endpoint.bodies[0]
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("judge-1", 0.0, 64)
    assert len(body["messages"]) == 1


def test_what_is_null_is_not_sent_and_options_are(section: Section, endpoint: Endpoint) -> None:
    scores(section(temperature=None, max_tokens=None, options={"reasoning_effort": "low"}))
    assert {"temperature", "max_tokens"}.isdisjoint(endpoint.bodies[0])
    assert endpoint.bodies[0]["reasoning_effort"] == "low"


def test_a_comparison_is_asked_twice_and_does_not_apply_without_a_reference(
    section: Section, endpoint: Endpoint
) -> None:
    rows = [Sample("p", answer, reference="good good") for answer in ANSWERS] + [Sample("p", "good")]
    found = scores(section(pairwise=True), rows)
    np.testing.assert_equal(found, [0, 0, 0.5, 1, np.nan])  # of equals the server prefers A
    assert len(endpoint.bodies) == 7  # of equals both orders are one question


def test_no_question_is_asked_twice_not_even_by_another_process(section: Section, endpoint: Endpoint) -> None:
    assert scores(section(), SAMPLES + SAMPLES) == [0, 1, 2, 3] * 2
    assert len(endpoint.bodies) == 4
    before = snapshot()
    assert scores(section()) == [0, 1, 2, 3]  # a scorer that knows nothing but the folder
    assert len(endpoint.bodies) == 4
    assert used_since(before) == {"kind": Usage(kept=4)}
    assert scores(section(rubric="How nice is it?")) == [0, 1, 2, 3]
    assert len(endpoint.bodies) == 8


def test_questions_at_the_same_time_are_bounded(section: Section, endpoint: Endpoint) -> None:
    endpoint.pause = 0.02
    many = [Sample("p", f"good {number}") for number in range(12)]
    assert scores(section(concurrency=3), many) == [1] * 12
    assert endpoint.busiest == 3


@pytest.mark.parametrize("fault", ["busy", "broken", "torn"])
def test_what_fails_in_passing_is_asked_again(fault: str, section: Section, endpoint: Endpoint) -> None:
    endpoint.next.append(fault)
    assert scores(section()) == [0, 1, 2, 3]
    assert len(endpoint.bodies) == 5
    pause = endpoint.times[1] - endpoint.times[0]
    assert 0.1 <= pause < 0.37 if fault == "busy" else pause >= 0.37  # Retry-After, or a pause of the client's own


def test_an_answer_that_takes_too_long_is_given_up_and_asked_for_again(section: Section, endpoint: Endpoint) -> None:
    endpoint.next.append("slow")
    assert scores(section(timeout=0.2), SAMPLES[:1]) == [0]
    assert len(endpoint.bodies) == 2


def test_an_answer_is_kept_before_the_next_one_is_asked_for(section: Section, endpoint: Endpoint, kept: Path) -> None:
    there: list[int] = []

    def count(_: str) -> str:
        there.append(len(list(kept.rglob("*.json"))))
        return "5"

    endpoint.says = count
    assert not kept.exists()
    assert scores(section(concurrency=1)) == [5] * 4
    assert there == [0, 1, 2, 3]


def test_a_slow_judge_says_once_how_long_the_rest_will_take(
    section: Section, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "WAIT", 0.05)
    endpoint.pause = 0.05
    said: list[str] = []
    scorer = make_scorer("kind", section(concurrency=2))
    with counted(said.append):
        score("kind", scorer, [Sample("p", f"good {number}") for number in range(9)])
        score("kind", scorer, [Sample("p", f"bad {number}") for number in range(9)])
    slow = [line for line in said if "s an answer" in line]
    assert len(slow) == 1
    assert re.fullmatch(r"kind: its judge takes 0\.\d+ s an answer: about 0 seconds more for the 6 others .*", slow[0])
    assert said.index(slow[0]) == 0


def test_a_server_that_stays_broken_stops_with_what_it_says_and_loses_nothing(
    section: Section, endpoint: Endpoint, kept: Path
) -> None:
    endpoint.next.extend(["", "", "never"])
    told = refused(section(concurrency=1))
    assert "answers 500: it fell off with ***" in told.message
    assert f"2 of 4 answers are kept in {kept}: the same command goes on from there." in told.hint
    assert len(endpoint.bodies) == 3  # nothing was asked in vain
    assert scores(section()) == [0, 1, 2, 3]
    assert len(endpoint.bodies) == 5


def test_a_server_that_is_too_slow_is_told_from_one_that_is_not_there(section: Section, endpoint: Endpoint) -> None:
    endpoint.pause = 0.5
    told = refused(section(timeout=0.1, retries=0))
    assert "did not answer within 0.1 s, in 1 try" in told.message
    assert "timeout" in told.hint
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        told = refused(section(base_url=f"http://127.0.0.1:{closed.getsockname()[1]}/v1", retries=0))
    assert "cannot be reached" in told.message
    assert "base_url" in told.hint


def test_a_key_that_is_refused_is_told_at_once_and_shown_to_nobody(
    section: Section, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "sk-another-key")
    told = refused(section(api_key_env="MY_KEY"))
    assert "refuses the key in MY_KEY (401)" in told.message
    assert "sk-another" not in str(told)
    monkeypatch.delenv("MY_KEY")
    told = refused(section(api_key_env="MY_KEY"))
    assert "asks for a key (401), and MY_KEY is not set" in told.message
    assert len(endpoint.bodies) == 2  # the first question alone


def test_a_model_that_is_not_there_is_told_with_those_that_are(section: Section, endpoint: Endpoint) -> None:
    told = refused(section(model="judge-l"))
    assert told.message.endswith("has no model judge-l.")
    assert told.hint == "Did you mean judge-1?"
    assert len(endpoint.bodies) == 1


def test_a_page_in_the_place_of_an_api_is_none(section: Section, endpoint: Endpoint) -> None:
    endpoint.next.extend(["page"] * 9)
    assert "sends what is no answer" in refused(section()).message


def test_a_field_that_the_endpoint_does_not_take_is_no_fault_of_a_text(section: Section, endpoint: Endpoint) -> None:
    endpoint.next.append("no such field")
    told = refused(section())
    assert "answers 400: temperature is not supported" in told.message
    assert "null" in told.hint


def test_a_text_that_the_endpoint_refuses_is_named_and_the_others_are_scored(
    section: Section, endpoint: Endpoint
) -> None:
    endpoint.next.extend(["", "", "no such field"])
    found = score_each("kind", make_scorer("kind", section(concurrency=1)), SAMPLES)
    np.testing.assert_equal(found.scores, [0, 1, np.nan, 3])
    assert isinstance(found.problem, FailedSampleError)
    assert found.problem.completion == "good good"
    assert len(endpoint.bodies) == 4  # what failed is not asked again for each half of the batch


def test_prose_is_asked_again_once_and_then_told_as_it_is(section: Section, endpoint: Endpoint) -> None:
    endpoint.next.append("say:It is rather nice!")
    assert scores(section(), SAMPLES[:1]) == [0]
    again = endpoint.bodies[1]["messages"]
    assert [turn["role"] for turn in again] == ["user", "assistant", "user"]
    assert again[1]["content"] == "It is rather nice!"
    endpoint.says = lambda text: "It is rather nice!" if "good good\n" in text else "4"
    found = score_each("kind", make_scorer("kind", section(rubric="Nice?")), SAMPLES[:3])
    np.testing.assert_equal(found.scores, [4, 4, np.nan])
    assert isinstance(found.problem, FailedSampleError)
    assert "asked twice, answered 'It is rather nice!' in the place of a number from 0 to 9" in str(found.problem)
    assert "2 of 3 answers are kept" in found.problem.hint
    assert len(endpoint.bodies) == 2 + 4


def test_a_budget_stops_and_the_same_command_goes_on_from_there(section: Section, endpoint: Endpoint) -> None:
    told = refused(section(max_calls=3))
    assert "was asked 3 times, which is max_calls" in told.message
    assert "3 of 4 answers are kept" in told.hint
    assert len(endpoint.bodies) == 3
    USED.clear()  # as in a new process
    assert scores(section(max_calls=3)) == [0, 1, 2, 3]
    assert len(endpoint.bodies) == 4


def test_a_judge_that_cannot_be_asked_fails_every_sample_and_blames_none(section: Section) -> None:
    found = score_each("kind", make_scorer("kind", section(max_calls=1)), SAMPLES)
    assert found.failed.all()
    assert not isinstance(found.problem, FailedSampleError)


def test_the_key_is_in_no_file(section: Section, kept: Path) -> None:
    scores(section())
    files = [file for file in kept.rglob("*") if file.is_file()]
    assert len(files) == 4
    assert not any(KEY in file.read_text() for file in files)


def test_a_full_disk_costs_the_folder_and_not_the_run(
    section: Section, endpoint: Endpoint, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "open", full)  # which tempfile makes files with
    said: list[str] = []
    with counted(said.append):
        assert scores(section()) == [0, 1, 2, 3]
    assert [line for line in said if "No space left on device" in line] == said[:1]
    assert said[1:] == ["kind: its judge was asked 4 times (400 tokens read, 8 written); 0 answers were there."]
    assert not list(kept.rglob("*.json"))


def test_answers_of_the_same_process_were_there_too(section: Section, endpoint: Endpoint, kept: Path) -> None:
    judge = make_scorer("kind", section())
    said: list[str] = []
    with counted(said.append):
        assert list(judge(SAMPLES)) == list(judge(SAMPLES))
    assert len(endpoint.bodies) == 4
    assert said == ["kind: its judge was asked 4 times (400 tokens read, 8 written); 4 answers were there."]


def test_a_damaged_answer_is_asked_for_again(section: Section, endpoint: Endpoint, kept: Path) -> None:
    scores(section(), SAMPLES[:1])
    [file] = kept.rglob("*.json")
    file.write_text(file.read_text()[:20])
    assert scores(section(), SAMPLES[:1]) == [0]
    assert len(endpoint.bodies) == 2


def test_a_first_question_shows_what_is_wrong_and_is_kept_like_any_other(section: Section, endpoint: Endpoint) -> None:
    for _ in range(2):
        make_scorer("kind", section()).ready()  # type: ignore[attr-defined]
    assert len(endpoint.bodies) == 1
    endpoint.next.extend(["say:hello", "say:hello"])
    make_scorer("kind", section(rubric="Nice?")).ready()  # type: ignore[attr-defined]  # it may read other texts
    with pytest.raises(RewardUnavailableError, match="has no model"):
        make_scorer("kind", section(model="other")).ready()  # type: ignore[attr-defined]
