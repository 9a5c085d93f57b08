"""What functions are given: a batch or one completion, texts or messages, columns, a trainer's state, a log."""

from __future__ import annotations

import asyncio
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from trl.rewards import accuracy_reward, get_soft_overlong_punishment, think_format_reward

from rsoup.errors import FailedSampleError, RewardError
from rsoup.recipe import RewardSection
from rsoup.rewards.functions import Function, TrainerState, check_functions, load_function
from rsoup.rewards.logs import Log
from rsoup.rewards.samples import Sample
from rsoup.rewards.scoring import make_scorer, score, score_all

ROWS = [
    Sample("2 + 2?", "It is 4.", (5, 6, 7), "4", {"solution": "4", "level": 1}),
    Sample("2 + 3?", "It is 6.", (5, 8), "5", {"solution": "5", "level": 2}),
]
TURNS = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2?"})
CHAT = [Sample("2 + 2?", "It is 4.", (5, 6), "4", {"solution": "4"}, TURNS)]


def test_columns_tokens_and_all_the_rest_arrive_as_lists() -> None:
    seen: dict[str, Any] = {}

    def record(completions: list[str], solution: list[str], **rest: Any) -> list[float]:
        seen.update(rest)
        return [float(s in c) for c, s in zip(completions, solution, strict=True)]

    assert score("own", Function(record), ROWS).tolist() == [1, 0]
    assert seen.keys() == {
        "prompts", "completion_ids", "level", "ground_truth", "trainer_state", "log_extra", "log_metric"
    }  # fmt: skip
    assert seen["prompts"] == ["2 + 2?", "2 + 3?"]
    assert seen["completion_ids"] == [[5, 6, 7], [5, 8]]
    assert (seen["level"], seen["ground_truth"]) == ([1, 2], ["4", "5"])


def test_the_rows_own_prompt_and_completion_are_no_keyword_of_trl_functions() -> None:
    rows = [Sample("a", "b", columns={"prompt": "x", "completion": "y", "completions": "z"})]
    seen: list[dict[str, Any]] = []
    score("own", Function(lambda completions, **rest: seen.append({**rest, "c": completions}) or [0.0]), rows)
    assert seen[0].keys().isdisjoint({"prompt", "completion"})
    assert seen[0]["c"] == ["b"]


def test_a_column_that_some_rows_lack_is_none_there() -> None:
    rows = [Sample("a", "b", columns={"x": 1}), Sample("a", "b")]
    seen: list[Any] = []
    score("own", Function(lambda completions, x: seen.append(x) or [0.0, 0.0]), rows)
    assert seen == [[1, None]]


def test_rows_of_a_batch_may_all_lack_a_column_that_other_rows_have() -> None:
    rows = [Sample("a", "b", columns={"x": 1}), Sample("a", "bc")]
    seen: list[Any] = []
    batch = Function(lambda completions, x: seen.extend(x) or [0.0])
    single = Function(lambda completion, x, y=7: seen.append((x, y)) or 0.0)
    check_functions([batch, single], rows)
    score_all({"batch": batch, "single": single}, rows[1:])
    assert seen == [None, (None, 7)]


def test_conversations_arrive_as_messages_unless_annotations_say_texts() -> None:
    seen: list[Any] = []

    def free(prompts, completions):  # type: ignore[no-untyped-def]
        seen.append((prompts, completions))
        return [0.0]

    def of_texts(prompts: list[str], completions: list[str]) -> list[float]:
        seen.append((prompts, completions))
        return [0.0]

    score("own", Function(free), CHAT)
    score("own", Function(of_texts), CHAT)
    assert seen[0] == ([[dict(turn) for turn in TURNS]], [[{"role": "assistant", "content": "It is 4."}]])
    assert seen[1] == (["2 + 2?"], ["It is 4."])


def test_trls_own_rewards_run_unchanged_on_texts_and_on_conversations() -> None:
    r"""The oracle is TRL's call: by keyword, with lists of messages."""
    right, wrong = r"So \boxed{4}", r"So \boxed{6}"
    rows = [Sample("?", text, (1,) * 90, columns={"solution": s}) for text in (right, wrong) for s in ("$4$", "")]
    chats = [Sample(row.post, row.completion, row.tokens, None, row.columns, TURNS) for row in rows]
    expected = accuracy_reward(
        completions=[[{"role": "assistant", "content": row.completion}] for row in rows],
        solution=[row.columns["solution"] for row in rows],
    )
    assert expected == [1.0, None, 0.0, None]
    for samples in (rows, chats):
        log = Log()
        found = score_all({"own": load_function("trl.rewards:accuracy_reward")}, samples, TrainerState(), log)["own"]
        np.testing.assert_array_equal(found, [1, math.nan, 0, math.nan])
        assert log.first()["own/solution"] == "$4$"
    thought = [Sample("?", "<think>a</think> b"), Sample("?", "b")]
    assert score("own", Function(think_format_reward), thought).tolist() == [1, 0]
    overlong = Function(get_soft_overlong_punishment(max_completion_len=100, soft_punish_cache=20))
    assert score("own", overlong, rows).tolist() == [-0.5] * 4  # (80 - 90) / 20


def verl(data_source: str, solution_str: str, ground_truth: str, extra_info: Any = None) -> dict[str, float]:
    assert data_source == "sums"
    assert extra_info == {}
    return {"score": float(ground_truth in solution_str), "length": len(solution_str), "why": "text"}  # type: ignore[dict-item]


def test_verls_function_gets_one_sample_and_its_figures_are_logged() -> None:
    rows = [
        Sample("?", "It is 4.", reference="5", columns={"data_source": "sums", "reward_model": {"ground_truth": "4"}}),
        Sample("?", "It is 6!!", reference="5", columns={"data_source": "sums"}),
    ]
    log = Log()
    assert score_all({"own": Function(verl)}, rows, TrainerState(), log)["own"].tolist() == [1, 0]
    assert log.means() == {"own/length": 8.5}
    with pytest.raises(RewardError, match="returned a mapping without 'score', of 'reward'"):
        score("own", Function(lambda solution_str: {"reward": 1.0}), rows)


def test_verls_function_of_a_batch_gets_lists_under_its_names() -> None:
    seen: list[Any] = []

    def compute_score(data_sources, solution_strs, ground_truths, extra_infos, **_: Any) -> list[Any]:  # type: ignore[no-untyped-def]
        seen.append((data_sources, solution_strs, ground_truths, extra_infos))
        return [{"score": float(t in s), "length": len(s)} for s, t in zip(solution_strs, ground_truths, strict=True)]

    rows = [Sample(own.post, own.completion, (), own.reference, {"data_source": "sums"}, TURNS) for own in ROWS]
    log = Log()
    assert Function(compute_score).at(TrainerState(), log)(rows) == [1.0, 0.0]
    assert seen == [(["sums"] * 2, ["It is 4.", "It is 6."], ["4", "5"], [{}, {}])]
    assert log.means() == {"length": 8.0}
    with pytest.raises(RewardError, match="nothing gives its parameter 'data_sources'"):
        Function(compute_score)(ROWS)


def test_what_a_function_does_to_its_lists_stays_there() -> None:
    columns = {"tags": ["a"], "info": {"seen": []}, "reward_model": {"ground_truth": ["4"]}}
    call = {"role": "assistant", "content": "", "tool_calls": [{"function": {"arguments": {"x": 1}}}]}
    sample = Sample("2 + 2?", "It is 4.", (5, 6), None, columns, (call, *TURNS))
    before = repr(sample)

    def spoil(prompts, completions, completion_ids, tags, info, ground_truth):  # type: ignore[no-untyped-def]
        tags[0].append("b")
        info[0]["seen"].append(1)
        ground_truth[0].pop()
        prompts[0][0]["tool_calls"][0]["function"]["arguments"].clear()
        completion_ids[0].clear()
        completions.clear()
        return [1.0]

    assert score("own", Function(spoil), [sample]).tolist() == [1.0]
    assert repr(sample) == before


def test_token_ids_that_nobody_made_are_not_taken_for_none() -> None:
    text = [Sample("a", "b")]
    readers = (get_soft_overlong_punishment(8, 4), lambda **rest: [len(rest["completion_ids"][0])])
    for reader in readers:
        with pytest.raises(RewardError, match="reads completion_ids, and a text by itself has no tokens"):
            score("own", Function(reader), text)
    assert score("own", Function(lambda completions, completion_ids, **rest: [4]), text) == [4.0]
    assert score("own", Function(lambda completions, completion_ids=None: [completion_ids is None]), text) == [1.0]
    assert score("own", Function(lambda completion_ids: [len(completion_ids[0])]), [Sample("a", "")]) == [0.0]


def test_none_does_not_apply_and_nan_is_an_error() -> None:
    """None is for the row, NaN a failure: the first is kept, the second stops."""
    rows = [Sample("a", "one"), Sample("b", "two")]
    found = score("own", Function(lambda completions: [None, 2.0]), rows)
    np.testing.assert_array_equal(found, [math.nan, 2.0])
    for values in ([1.0, math.nan], torch.tensor([1.0, math.nan]), np.array([None, math.nan], dtype=object)):
        with pytest.raises(RewardError, match="returned nan for the completion 'two'"):
            score("own", Function(lambda completions, values=values: values), rows)
    with pytest.raises(FailedSampleError) as caught:
        score_all({"own": Function(lambda completion: math.nan if completion == "two" else None)}, rows)
    assert caught.value.completion == "two"


def test_async_functions_work_at_the_same_time_and_keep_their_loop() -> None:
    """Each waits until both have begun, which would never end one after the other."""
    began: list[str] = []
    loops: set[Any] = set()

    async def meet(name: str, count: int) -> list[float]:
        began.append(name)
        loops.add(asyncio.get_running_loop())
        while len(set(began)) < 2:
            await asyncio.sleep(0.001)
        return [float(len(name))] * count

    async def one(completions: list[str]) -> list[float]:
        return await meet("a", len(completions))

    async def three(prompts: list[str], completions: list[str]) -> list[float]:
        return await meet("abc", len(completions))

    scorers = {"one": Function(one), "three": Function(three)}
    for _ in range(2):
        scores = score_all(scorers, ROWS)
        assert {name: values.tolist() for name, values in scores.items()} == {"one": [1, 1], "three": [3, 3]}
        began.clear()
    assert len(loops) == 1  # connections that a client keeps belong to it

    async def single(completion: str) -> float | None:
        return (await meet(completion, 0) and None) or float(completion[-2])

    assert score("own", Function(single), ROWS).tolist() == [4, 6]

    async def failing(completions: list[str]) -> list[float]:
        return [1 / (c != "It is 6.") for c in completions]

    with pytest.raises(FailedSampleError, match=r"ZeroDivisionError.*It is 6"):
        score_all({"own": Function(failing)}, ROWS)


def test_a_function_sees_the_training_and_logs_figures_and_columns() -> None:
    def own(completions: list[str], trainer_state: Any, log_metric: Any, log_extra: Any) -> list[float]:
        log_metric("words", 3)
        log_metric("words", torch.tensor(5.0))
        log_extra("first", [c[0] for c in completions])
        return [trainer_state.global_step / trainer_state.max_steps] * len(completions)

    log = Log()
    assert score_all({"own": Function(own)}, ROWS, TrainerState(3, 4), log)["own"].tolist() == [0.75, 0.75]
    assert (log.means(), log.first()) == ({"own/words": 4.0}, {"own/first": "I"})
    assert score("own", Function(lambda completions, trainer_state: [trainer_state.global_step] * 2), ROWS).sum() == 0


def test_what_nothing_gives_is_refused_by_name_before_anything_is_called() -> None:
    called: list[int] = []

    def own(completions: Any, answer: Any) -> list[float]:
        called.append(1)
        return [0.0] * len(completions)

    with pytest.raises(RewardError) as caught:
        check_functions([Function(own, "own.py:own"), object()], ROWS)
    assert caught.value.message == "own.py:own: nothing gives its parameter 'answer'."
    assert caught.value.hint.startswith("The rows have ground_truth, level, solution beside prompts, completions")
    check_functions([Function(own, columns={"answer": "solution"})], ROWS)
    with pytest.raises(RewardError, match="is to get the column 'solutoin', which the rows have not") as caught:
        check_functions([Function(own, columns={"answer": "solutoin"})], ROWS)
    assert caught.value.hint == "Did you mean solution?"
    assert not called


def test_a_recipe_may_say_which_column_a_parameter_gets(tmp_path: Path) -> None:
    (tmp_path / "own_columns.py").write_text("def near(completions, wanted): return [float(w) for w in wanted]\n")
    section = RewardSection(function=f"{tmp_path / 'own_columns.py'}:near", columns={"wanted": "level"})
    assert score("near", make_scorer("near", section), ROWS).tolist() == [1, 2]


def test_a_response_that_may_be_the_column_is_refused() -> None:
    rows = [Sample("a", "b", columns={"response": "the row's own"})]
    with pytest.raises(RewardError, match="'response' may be the completion or the column"):
        score("own", Function(lambda response: 1.0), rows)
    assert score("own", Function(lambda completions, response: [len(response[0])]), rows).tolist() == [13]


def test_a_class_is_made_if_it_needs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "own_classes.py"
    path.write_text(
        "class Ready:\n    def __call__(self, completions): return [2.0] * len(completions)\n"
        "class Needy(Ready):\n    def __init__(self, model): pass\n"
        "class Mute: pass\n"
        "class Wordy:\n    def score(self, completions): return [3.0] * len(completions)\n"
        "wordy, mute, number = Wordy(), Mute(), 3\n"
    )
    assert score("own", load_function(f"{path}:wordy.score"), ROWS).tolist() == [3, 3]
    assert score("own", load_function(f"{path}:Ready"), ROWS).tolist() == [2, 2]
    with pytest.raises(RewardError, match="is a class that needs model"):
        load_function(f"{path}:Needy")
    with pytest.raises(RewardError, match="is a class without __call__"):
        load_function(f"{path}:Mute")
    for name, kind, hint in (
        ("wordy", "Wordy", "Name a method of it (file.py:object.score), or give it __call__."),
        ("mute", "Mute", "Name a function, or an object that can be called."),
        ("number", "int", "Name a function, or an object that can be called."),
    ):
        with pytest.raises(RewardError, match=f"{name}: is no function, but of the type {kind}") as caught:
            load_function(f"{path}:{name}")
        assert caught.value.hint == hint
    with pytest.raises(RewardError, match=r"has no function wordy\.absent"):
        load_function(f"{path}:wordy.absent")
    sys.modules.pop("rsoup_reward_own_classes", None)


def test_a_function_that_wants_messages_is_told_that_it_got_texts() -> None:
    with pytest.raises(RewardError) as caught:
        score("own", Function(lambda completions: [len(c["content"]) for c in completions]), ROWS)
    assert caught.value.hint.startswith("Its completions were texts")
