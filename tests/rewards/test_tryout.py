"""Trying rewards before training: on one text, and on a recipe's reference answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from command import Command, assert_refused
from rewards.models import CHATS, SHAPE, bert_words, encoder, save
from rsoup.errors import RecipeError
from rsoup.progress import Silent
from rsoup.recipe import RewardSection
from rsoup.recipe_file import load_recipe
from rsoup.rewards import bounded, complete_reward, doubtful_direction
from rsoup.rewards.samples import Sample
from rsoup.rewards.tryout import check_rewards, correlations, remarks, try_reward
from tiny import POSTS, build_classifier, recipe_content, write_recipe

OWN = """
def same(prompts, completions):
    return [float(c.startswith(p.split()[0])) for p, c in zip(prompts, completions)]
def against(prompts, completions):
    return [-1000.0 * value for value in same(prompts, completions)]
def constant(prompts, completions):
    return [2.0] * len(prompts)
def words(prompts, completions):
    return [float(len(c.split())) for c in completions]
"""


def recipe_with(folder: Path, model: Path, *, answers: bool = True) -> Path:
    """Write a recipe whose rows are answered by their own first word, and rewards that look for it."""
    content: dict[str, Any] = recipe_content(folder, model)
    (folder / "own.py").write_text(OWN)
    words = dict.fromkeys(word for post in POSTS for word in post.split())
    rows = [
        {"post": f"{word} kettle", "answer": word + " lid" * (index % 3) if answers else None}
        for index, word in enumerate(words)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    content["task"] = {
        "data": str(folder / "rows.jsonl"),
        "eval_data": str(folder / "rows.jsonl"),
        "reference": "answer",
    }
    functions = ("same", "against", "constant", "words")
    content |= {"rewards": {name: {"function": f"{folder / 'own.py'}:{name}"} for name in functions}, "morl": []}
    return write_recipe(folder / "r.yaml", content)


def test_a_reward_that_prefers_its_own_answers_is_told_from_one_that_does_not(tmp_path: Path, tiny_model: Path) -> None:
    recipe = load_recipe(recipe_with(tmp_path, tiny_model))
    check = check_rewards(recipe, 10, Silent())
    assert (check.rows, check.references) == (10, len((tmp_path / "rows.jsonl").read_text().splitlines()))
    assert check.rewards["same"].preferred == (1.0, 0.0)
    assert check.rewards["against"].preferred == (0.0, 0.0)
    assert check.rewards["constant"].preferred == (0.5, 0.0)
    words = check.rewards["words"]
    assert (words.mean, words.least, words.most) == (pytest.approx(1.9), 1, 3)
    assert words.deviation == pytest.approx(np.std(2 * ([1, 2, 3] * 3 + [1]), ddof=1))
    assert words.per_second > 0
    assert check.correlations["same"]["against"] == pytest.approx(-1)
    assert np.isnan(check.correlations["same"]["constant"])
    said = remarks(check, list(recipe.rewards))
    assert any(remark.startswith("against prefers the answers to other posts") for remark in said)
    assert "constant gives every answer the same score." in said


def test_lower_scores_are_preferred_where_they_are_better(tmp_path: Path, tiny_model: Path) -> None:
    path = recipe_with(tmp_path, tiny_model)
    turned = ["rewards.against.direction=minimize", "rewards.same.direction=minimize"]
    recipe = load_recipe(path, turned)
    plain, check = check_rewards(load_recipe(path), 10, Silent()), check_rewards(recipe, 10, Silent())
    assert plain.rewards["against"].preferred == check.rewards["same"].preferred == (0.0, 0.0)
    assert plain.rewards["same"].preferred == check.rewards["against"].preferred == (1.0, 0.0)
    assert check.rewards["against"].mean == plain.rewards["against"].mean
    said = remarks(check, list(recipe.rewards))
    assert any(remark.startswith("same prefers the answers to other posts") for remark in said)
    assert not any(remark.startswith("against") for remark in said)


def test_the_number_of_rows_is_that_asked_for_or_there_is(tmp_path: Path, tiny_model: Path) -> None:
    recipe = load_recipe(recipe_with(tmp_path, tiny_model))
    assert check_rewards(recipe, 2, Silent()).rows == 2
    every = check_rewards(recipe, 1000, Silent())
    assert every.rows == every.references


def test_without_reference_answers_the_rest_is_told(tmp_path: Path, tiny_model: Path) -> None:
    recipe = load_recipe(recipe_with(tmp_path, tiny_model, answers=False))
    check = check_rewards(recipe, 10, Silent())
    assert check.references == 0
    assert all(reward.preferred is None for reward in check.rewards.values())
    assert check.rewards["same"].mean == 0.5
    said = remarks(check, list(recipe.rewards))
    assert any(line.startswith("The column 'answer' holds no reference answer") for line in said)


def test_correlations_are_of_ranks() -> None:
    scores = {"a": np.array([1.0, 2.0, 3.0]), "cubed": np.array([1.0, 8.0, 27.0]), "b": np.array([3.0, 1.0, 2.0])}
    found = correlations(scores)
    assert found["a"]["cubed"] == pytest.approx(1)
    assert found["a"]["b"] == found["b"]["a"] == pytest.approx(-0.5)


def test_scales_far_apart_are_told(tmp_path: Path, tiny_model: Path) -> None:
    content = recipe_with(tmp_path, tiny_model)
    (tmp_path / "own.py").write_text(OWN.replace("float(len(c.split()))", "0.001 * len(c.split())"))
    path = Path(str(content))
    recipe = load_recipe(path, ["rewards.large.use=length"])
    said = remarks(check_rewards(recipe, 12, Silent()), ["words", "large"])
    rows = len((tmp_path / "rows.jsonl").read_text().splitlines())
    assert said == [
        f"warning: {rows} of {rows} held-out rows ask what a training row asks: scores on them do not tell what a "
        "model makes of new ones.",
        "Scores of large vary much more than those of words: equal weights in morl would not mean equal.",
    ]


def test_one_reference_for_all_rows_and_answers_that_take_too_long_are_told(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = recipe_with(tmp_path, tiny_model)
    (tmp_path / "rows.jsonl").write_text("".join(f'{{"post": "a{n}", "answer": "b"}}\n' for n in range(3)))
    recipe = load_recipe(path, [f"task.eval_data={tmp_path / 'rows.jsonl'}"])
    said = check_rewards(recipe, 10, Silent()).said
    assert "All these reference answers are the same text, so that no reward can prefer one." in said
    monkeypatch.setattr(bounded, "SECONDS", 0.3)
    (tmp_path / "rows.jsonl").write_text('{"post": "a", "answer": "4"}\n{"post": "b", "answer": "$9^{9^{9^9}}$"}\n')
    recipe = recipe.model_copy(update={"rewards": {"math": RewardSection()}})
    told = [remark for remark in check_rewards(recipe, 10, Silent()).said if remark.startswith("math took too long")]
    assert told
    assert told[0].endswith("% of the answers, which count as wrong.")


def test_a_reward_of_tokens_gets_those_of_the_recipes_model(rsoup: Command, tmp_path: Path, tiny_model: Path) -> None:
    """An answer counts with the token that ends it, as when it is sampled."""
    path = recipe_with(tmp_path, tiny_model)
    content = yaml.safe_load(path.read_text())
    (tmp_path / "long.py").write_text("def count(completion_ids): return [float(len(ids)) for ids in completion_ids]\n")
    content["rewards"] = {"long": {"function": f"{tmp_path / 'long.py'}:count"}, "words": content["rewards"]["words"]}
    path = write_recipe(path, content)
    check = check_rewards(load_recipe(path), 64, Silent())
    assert check.rewards["long"].mean == pytest.approx(check.rewards["words"].mean + 1)
    assert rsoup("rewards", "long", "--recipe", path, "--completion", "the lid").lines[-1] == "score       3.0000"
    alone = rsoup("rewards", f"{tmp_path / 'long.py'}:count", "--completion", "the lid")
    assert_refused(alone, "a text by itself has no tokens", "--recipe RECIPE")


def test_one_row_cannot_be_compared(tmp_path: Path, tiny_model: Path) -> None:
    path = recipe_with(tmp_path, tiny_model)
    (tmp_path / "rows.jsonl").write_text('{"post": "a", "answer": "b"}\n')
    with pytest.raises(RecipeError, match=r"too few held-out rows \(1\)"):
        check_rewards(load_recipe(path), 10, Silent())


def test_a_trial_of_a_classifier_has_its_reading(tmp_path: Path) -> None:
    section = complete_reward("judge", RewardSection(model=str(build_classifier(tmp_path / "judge"))))
    trial = try_reward("judge", section, Sample("the kettle", "good lid"))
    assert trial.reading is not None
    assert trial.reading.texts == ("the kettle<sep>good lid",)
    assert trial.reading.tokens == ("the", "kettle", "<sep>", "good", "lid")
    assert trial.score == trial.reading.logits["negative"]
    assert list(trial.reading.logits) == ["negative", "positive"]
    assert try_reward("brief", RewardSection(), Sample("", "two words")).reading is None


def test_a_check_says_which_of_several_heads_is_the_reward_if_nobody_named_one(
    tmp_path: Path, tiny_model: Path
) -> None:
    content = yaml.safe_load(recipe_with(tmp_path, tiny_model).read_text())
    judge = str(build_classifier(tmp_path / "judge"))
    content["rewards"] = {"open": {"model": judge}, "named": {"model": judge, "format": "positive"}}
    recipe = load_recipe(write_recipe(tmp_path / "r.yaml", content))
    said = [line for line in check_rewards(recipe, 3, Silent()).said if "logits" in line]
    assert said == ["open is negative, the first of its model's logits (negative, positive): format names another."]


# The commands


def test_a_classifier_is_shown_with_text_tokens_and_logits(rsoup: Command, tmp_path: Path) -> None:
    judge = build_classifier(tmp_path / "judge")
    words = ["rewards", judge, "--prompt", "the kettle", "--completion", "good lid"]
    lines = dict(line.split(maxsplit=1) for line in rsoup(*words, "--format", "positive-negative").lines)
    assert lines["text"] == "the kettle<sep>good lid"
    assert [pair.split(":")[1] for pair in lines["tokens"].split()] == ["the", "kettle", "<sep>", "good", "lid"]
    _, negative, _, positive = lines["logits"].split()
    assert float(lines["score"]) == pytest.approx(float(positive) - float(negative), abs=2e-4)
    assert lines["format"] == "positive-negative"


def test_a_classifier_is_shown_with_its_way_of_reading_its_segments_and_what_was_cut(
    rsoup: Command, tmp_path: Path
) -> None:
    tokenizer = bert_words()
    judge = save(tmp_path / "pair", encoder("Bert", tokenizer, max_position_embeddings=12, **SHAPE), tokenizer)
    words = ["--prompt", "the kettle boils fast and hot", "--completion", "good lid ."]
    lines = dict(line.split(maxsplit=1) for line in rsoup("rewards", judge, *words).lines)
    assert lines["reads"] == "the post and the completion as a pair of texts"
    assert "template" not in lines
    assert (lines["text"], lines["and"]) == ("the kettle boils fast and hot", "good lid .")
    assert lines["segments"] == "0 0 0 0 0 0 0 0 1 1 1 1"
    assert "cut" not in lines
    longer = rsoup(
        "rewards", judge, "--prompt", "the kettle boils fast and hot", "--completion", "good lid . not"
    ).lines
    assert "cut         1 token of the post: it reads 12" in longer
    chat = save(tmp_path / "chat", *CHATS["llama"]())
    shown = rsoup("rewards", chat, "--prompt", "a lid", "--completion", "good").lines
    assert "reads       its own chat template" in shown
    assert "text        <s><start>user a lid<end><start>assistant good<end>" in shown
    assert "tokens      1:<s> 4:<start> 25:user 13:a 11:lid 5:<end> 4:<start> 26:assistant 19:good 5:<end>" in shown


def test_a_reward_is_shown_as_a_recipe_has_it(rsoup: Command, tmp_path: Path, tiny_model: Path) -> None:
    content = recipe_content(tmp_path, tiny_model)
    content |= {"rewards": {"digits": {"use": "regex", "pattern": "[0-9]"}}, "morl": []}
    recipe = write_recipe(tmp_path / "r.yaml", content)
    assert rsoup("rewards", "digits", "--recipe", recipe, "--completion", "3 lids").lines[-1].split() == [
        "score",
        "1.0000",
    ]
    assert_refused(rsoup("rewards", "digit", "--recipe", recipe), "has no reward 'digit'", "Did you mean digits?")
    assert_refused(rsoup("rewards", "regex"), "has no pattern", "pattern")


def test_a_recipe_is_checked_from_the_command_line(rsoup: Command, tmp_path: Path, tiny_model: Path) -> None:
    called = rsoup("rewards", "check", recipe_with(tmp_path, tiny_model), "--rows", 8)
    assert called.code == 0
    assert called.lines[:2] == ["first prompt  'the kettle' (2 tokens)", "reference     'the'"]
    assert called.lines[3].startswith("8 reference answers")
    rows = {line.split()[0]: line.split() for line in called.lines if line.strip()}
    assert rows["constant"][1:4] == ["-", "-", "-"]  # its correlations come last
    same = next(line.split() for line in called.lines if line.startswith("same"))
    assert same[1:4] == ["100%", "±", "0%"]
    assert "note: against prefers the answers to other posts" in called.err
    assert not (tmp_path / "run").exists()
    assert_refused(rsoup("rewards", "check", "quikstart"), "there is no such recipe", "Did you mean quickstart?")


def test_a_check_counts_the_answers_that_a_reward_applies_to(tmp_path: Path, tiny_model: Path) -> None:
    """Every second answer of ten rows, each scored under two posts, is one that ``some`` applies to; ``never`` none."""
    path = recipe_with(tmp_path, tiny_model)
    (tmp_path / "own_some.py").write_text(
        "def some(completions): return [float(len(c)) if ' ' not in c else None for c in completions]\n"
        "def never(completions): return [None for c in completions]\n"
    )
    content = yaml.safe_load(path.read_text())
    content["rewards"] = {name: {"function": f"{tmp_path / 'own_some.py'}:{name}"} for name in ("some", "never")}
    check = check_rewards(load_recipe(write_recipe(path, content)), 10, Silent())
    some, never = check.rewards["some"], check.rewards["never"]
    assert (some.scored, never.scored) == (8, 0)  # of the answers w, w lid, w lid lid, ... four have one word
    assert np.isfinite([some.mean, some.deviation, some.least, some.most]).all()
    assert np.isnan(never.mean)
    assert never.preferred is None
    assert np.isnan(check.correlations["some"]["never"])
    said = remarks(check, ["some", "never"])
    assert "some applies to 8 of 20 answers." in said
    assert "never applies to 0 of these answers: rows lack what it reads." in said


@pytest.mark.parametrize(
    ("name", "settings", "heads", "doubtful"),
    [
        ("toxic", {"function": "a:b"}, (), True),
        ("meanError", {"function": "a:b"}, (), True),
        ("word_error_rate", {"function": "a:b"}, (), True),
        ("toxic", {"function": "a:b", "direction": "maximize"}, (), False),
        ("neg_loss", {"function": "a:b"}, (), False),
        ("toxicity_detection", {"function": "a:b"}, (), False),
        ("harmless", {"function": "a:b"}, (), False),
        ("polite", {"model": "m"}, ("toxic", "insult"), True),
        ("polite", {"model": "m"}, ("LABEL_0", "toxic"), False),
        ("polite", {"model": "m", "format": "toxic"}, ("neutral", "toxic"), True),
        ("toxicity", {"model": "m", "format": "neutral"}, ("neutral", "toxic"), False),
        ("toxicity", {"model": "m", "format": "1-0"}, ("neutral", "toxic"), True),
    ],
)
def test_a_reward_that_sounds_as_if_lower_were_better_and_does_not_say_so_is_told(
    name: str, settings: dict[str, Any], heads: tuple[str, ...], doubtful: bool
) -> None:
    told = doubtful_direction(name, RewardSection(**settings), heads)
    assert (told is not None) == doubtful
    assert told is None or told.startswith(f"Higher counts as better for {name}")
