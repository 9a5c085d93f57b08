"""Rows of reasoning-gym: from a seed, different questions, held-out ones apart, scored by their own task."""

from __future__ import annotations

import math
from typing import Any

import pytest
import reasoning_gym

from rsoup.errors import DataError, RecipeError
from rsoup.recipe import RewardSection, TaskSection
from rsoup.rewards.samples import Sample, sample_of
from rsoup.rewards.scoring import make_scorer, score
from rsoup.tasks import resolve_task
from rsoup.tasks.gym import gym_rows, gym_source
from rsoup.tasks.loading import read_rows

SMALL = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}


def task(**settings: Any) -> Any:
    return resolve_task(TaskSection.model_validate({"gym": "chain_sum", "gym_config": SMALL, **settings}))


def test_rows_are_those_of_the_library_without_repeated_questions() -> None:
    found = list(gym_rows(gym_source("chain_sum", {**SMALL, "seed": 3}, 60)))
    made = reasoning_gym.create_dataset("chain_sum", **SMALL, seed=3, size=500)
    assert found == [{"id": row["id"], **made[int(row["id"])]} for row in found]
    assert len({row["question"] for row in found}) == 60
    skipped = {made[number]["question"] for number in range(int(found[-1]["id"]))}
    assert skipped <= {row["question"] for row in found}
    assert list(gym_rows(gym_source("chain_sum", {**SMALL, "seed": 3}, 20))) == found[:20]
    assert list(gym_rows(gym_source("chain_sum", SMALL, 20))) != found[:20]


def test_held_out_questions_are_never_trained_on() -> None:
    train, test = (read_rows(task(gym_size=100, eval_share=0.3), split).rows for split in ("train", "test"))
    assert (len(train), len(test)) == (70, 30)
    assert {row.post for row in train}.isdisjoint(row.post for row in test)
    assert all(row.reference == row.columns["answer"] for row in train)


def test_the_tasks_own_scorer_scores() -> None:
    """chain_sum gives a part for an answer with the number among other letters: 2 of 8 for the last one."""
    rows = read_rows(task(gym_size=5), "train").rows
    row = next(row for row in rows if len(row.columns["answer"]) == 2)
    answer = row.columns["answer"]
    texts = (answer, f"<answer>{answer}</answer>", f"<think>7</think>{answer}", "no", f"I say {answer}")
    scorer = make_scorer("gym", RewardSection())
    own = reasoning_gym.get_score_answer_fn("chain_sum")
    assert own(texts[-1], entry=dict(row.columns)) == 0.25
    assert score("gym", scorer, [sample_of(row, text) for text in texts]).tolist() == [1, 1, 1, 0, 0.25]
    assert math.isnan(score("gym", scorer, [Sample("?", "4", columns={"metadata": {}})])[0])


def test_an_answer_that_a_scorer_cannot_read_is_wrong() -> None:
    row = next(gym_rows(gym_source("prime_factorization", {}, 1)))
    scorer = make_scorer("gym", RewardSection())
    samples = [Sample("?", text, columns=row) for text in (row["answer"], "no idea")]
    assert score("gym", scorer, samples).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gym": "chain_sums"}, "reasoning-gym has no task 'chain_sums'"),
        ({"gym_config": {"min_term": 2}}, "chain_sum cannot be made with it"),
        ({"gym_config": {"min_terms": 9, "max_terms": 2}}, "chain_sum cannot be made with it"),
        ({"gym_config": {"size": 9}}, "the size is not part of it"),
        ({"data": "rows.jsonl"}, "task.data: is given, and task.gym makes rows of its own"),
        ({"name": "reviews"}, "task.name: is given"),
    ],
)
def test_what_no_task_can_be_made_of_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        read_rows(task(**settings), "train")


def test_a_task_with_too_few_questions_says_how_many_there_are() -> None:
    with pytest.raises(DataError, match=r"task.gym: chain_sum has only \d+ different questions") as caught:
        read_rows(task(gym_size=400), "train")
    assert caught.value.hint.startswith("Lower task.gym_size to ")
