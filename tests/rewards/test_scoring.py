"""Rewards: the registry, functions of one's own, and what is said of a reward that fails."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rewards.texts import score_texts
from rsoup.errors import MissingPackageError, RecipeError, RewardError
from rsoup.installing import pip_line
from rsoup.recipe import RewardSection
from rsoup.rewards import REWARDS, parse_reward, registry_entry, reward_identity
from rsoup.rewards.functions import Function, load_function
from rsoup.rewards.samples import plain_samples
from rsoup.rewards.scoring import make_scorer, score_all, weighted_score

PROMPTS, COMPLETIONS = ["the kettle", "the lid"], ["good kettle", "a lid that broke"]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in the working folder with functions that can be rewards."""
    path = tmp_path / "own_rewards.py"
    path.write_text(
        "WORD = 'lid'\n"
        "def count(prompts, completions):\n"
        "    return [c.split().count(WORD) for c in completions]\n"
        "def same(prompts, completions):\n"
        "    return [float(p == c) for p, c in zip(prompts, completions)]\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.delitem(sys.modules, "own_rewards", raising=False)
    return path


@pytest.mark.parametrize(
    "name", [name for name, entry in REWARDS.items() if entry.judge is None and not entry.reads_rows]
)
def test_every_light_entry_of_the_registry_scores_text(name: str) -> None:
    scorer = make_scorer(name, RewardSection(pattern="lid" if name == "regex" else None))
    scores = score_texts(name, scorer, PROMPTS, ["", COMPLETIONS[1]])
    assert scores.shape == (2,)
    assert np.isfinite(scores).all()


def test_what_a_reward_prints_does_not_mix_with_results(module: Path, capfd: pytest.CaptureFixture[str]) -> None:
    module.write_text(
        "print('imported')\n"
        "def loud(prompts, completions):\n"
        "    print('called')\n"
        "    return [1.0 for c in completions]\n"
    )
    assert score_texts("loud", load_function("own_rewards:loud"), PROMPTS, COMPLETIONS).tolist() == [1, 1]
    out, err = capfd.readouterr()
    assert (out, err.split()) == ("", ["imported", "called"])


def test_positive_prefers_praise() -> None:
    scorer = make_scorer("positive", RewardSection())
    praise, neutral, blame = score_texts(
        "positive", scorer, [""] * 3, ["I love it, great!", "a kettle", "awful, I hate it"]
    )
    assert praise > 0.5 > neutral == 0 > -0.5 > blame


def test_faithful_is_the_cosine_of_post_and_completion() -> None:
    scorer = make_scorer("faithful", RewardSection())
    post = "The battery of this phone lasts two days."
    same, near, far = score_texts(
        "faithful", scorer, [post] * 3, [post, "A phone with a long battery life.", "I bake bread."]
    )
    assert same == pytest.approx(1, abs=1e-5)
    assert same > near > far


def test_faithful_does_not_depend_on_the_batch() -> None:
    posts = [f"the kettle number {'very ' * index}{index}" for index in range(7)]
    scorers = [make_scorer("faithful", RewardSection(batch_size=size)) for size in (1, 3, 32)]
    one, three, all_at_once = (score_texts("faithful", scorer, posts, list(reversed(posts))) for scorer in scorers)
    np.testing.assert_allclose(one, three, atol=1e-5)
    np.testing.assert_allclose(one, all_at_once, atol=1e-5)


def test_brief_counts_words() -> None:
    assert score_texts(
        "brief", make_scorer("brief", RewardSection()), [""] * 3, ["", "one", "two  words"]
    ).tolist() == [
        0,
        -1,
        -2,
    ]


def scored(name: str, *completions: str, **settings: Any) -> list[float]:
    section = RewardSection(**settings)
    return score_texts(name, make_scorer(name, section), [""] * len(completions), completions).tolist()


def test_length_is_the_distance_from_the_target() -> None:
    assert scored("length", "", "one two", "one two three", target=2) == [-2, 0, -1]
    assert scored("length", "word " * 20) == [0]


def test_varied_counts_repeated_triples_of_words() -> None:
    """a b a b a b has the triples aba, bab, aba, bab: two of four repeat."""
    assert scored("varied", "", "one two", "a b c d e", "A b a b a B", "no no no no") == [0, 0, 0, -0.5, -0.5]


def test_regex_tells_whether_the_pattern_is_found() -> None:
    assert scored("regex", "order 66", "order", pattern=r"\d+") == [1, 0]
    with pytest.raises(RewardError, match="has no pattern"):
        scored("regex", "x")
    with pytest.raises(ValueError, match="not a regular expression"):
        RewardSection(pattern="(")


def test_readable_is_the_reading_ease_of_flesch() -> None:
    """Six words of one syllable in one sentence: 206.835 - 1.015 * 6 - 84.6; then two sentences of three."""
    short, two, hard = scored(
        "readable", "The cat sat on the mat.", "The cat sat. He was fat!", "Intolerable bureaucratic complications"
    )
    assert short == pytest.approx(116.145)
    assert two == pytest.approx(206.835 - 1.015 * 3 - 84.6)
    assert hard < 0
    assert scored("readable", "", "...", "?!") == [0, 0, 0]


def test_a_key_that_a_reward_does_not_read_is_refused() -> None:
    for settings in ({"target": 3}, {"pattern": "a"}, {"format": "1"}, {"trust_remote_code": True}):
        with pytest.raises(RecipeError, match=r"rewards\.brief: "):
            make_scorer("brief", RewardSection(**settings))


def test_another_name_for_an_entry_is_that_entry() -> None:
    scorer = make_scorer("short", RewardSection(use="brief"))
    assert score_texts("short", scorer, [""], ["three words here"]).tolist() == [-3]


def test_an_unknown_entry_gets_the_nearest_name() -> None:
    with pytest.raises(RecipeError) as caught:
        registry_entry("positve")
    assert "no reward 'positve'" in caught.value.message
    assert caught.value.hint.startswith("Did you mean positive?")


def test_a_missing_package_gets_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vaderSentiment.vaderSentiment", None)
    with pytest.raises(MissingPackageError) as caught:
        make_scorer("positive", RewardSection())
    assert caught.value.hint == f"Install it: {pip_line('quickstart')}"


def test_a_function_comes_from_a_file_or_a_module(module: Path) -> None:
    for where in ("own_rewards:count", f"{module}:count", "own_rewards.py:count"):
        assert score_texts("count", load_function(where), PROMPTS, COMPLETIONS).tolist() == [0, 1]


def test_a_function_reads_the_post_and_the_completion(module: Path) -> None:
    scorer = make_scorer("same", RewardSection(function=f"{module}:same"))
    assert score_texts("same", scorer, ["a", "b"], ["a", "c"]).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("count", "is not a function"),
        ("own_rewards:absent", "has no function absent"),
        ("own_rewards:WORD", "is no function, but of the type"),
        ("absent_module:count", "cannot be imported"),
        ("absent.py:count", "there is no file absent.py"),
        ("broken.py:count", "importing it raised ZeroDivisionError"),
        ("syntax.py:count", "importing it raised SyntaxError"),
    ],
)
def test_a_function_that_cannot_be_had_is_named(module: Path, where: str, message: str) -> None:
    (module.parent / "broken.py").write_text("1 / 0\n")
    (module.parent / "syntax.py").write_text("def count(:\n")
    with pytest.raises(RewardError, match=message):
        load_function(where)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ([1.0], r"returned an array of shape \(1,\) for 2 completions"),
        (3.0, r"returned an array of shape \(\) for 2 completions"),
        ([[1.0], [2.0]], r"returned an array of shape \(2, 1\)"),
        ([1.0, math.nan], "returned nan for the completion 'a lid that broke' of the prompt 'the lid'"),
        ([math.inf, 1.0], "returned inf for the completion 'good kettle'"),
        (["good", "bad"], "returned something that is not numbers"),
        ([1.0, "0.5"], "returned something that is not numbers: '0.5' is a str"),
        ([1.0, 1j], "not numbers: 1j is a complex"),
        ({0: 1.0, 1: 2.0}, "not numbers: a dict"),
        (None, "not numbers: None in the place of a list"),
    ],
)
def test_a_reward_that_returns_no_finite_number_per_completion_is_refused(returned: Any, message: str) -> None:
    with pytest.raises(RewardError, match=message):
        score_texts("own", Function(lambda prompts, completions: returned), PROMPTS, COMPLETIONS)


def test_an_exception_of_a_reward_is_told_with_its_type() -> None:
    def broken(prompts: Any, completions: Any) -> list[float]:
        raise KeyError("lid")

    with pytest.raises(RewardError) as caught:
        score_texts("own", Function(broken), PROMPTS, COMPLETIONS)
    assert caught.value.message == "The reward own raised KeyError: 'lid'."
    assert "rsoup rewards" in caught.value.hint


def test_a_batch_of_which_no_completion_fails_alone_is_told_as_a_whole() -> None:
    with pytest.raises(RewardError, match=r"of shape \(1,\) for 8 completions"):
        score_all({"own": Function(lambda completions: [0.0])}, plain_samples(["a"] * 8, list("abcdefgh")))


def test_every_reward_scores_every_completion() -> None:
    scorers = {
        "brief": make_scorer("brief", RewardSection()),
        "zero": Function(lambda prompts, completions: [0.0, 0.0]),
    }
    scores = score_all(scorers, plain_samples(PROMPTS, COMPLETIONS))
    assert {name: values.tolist() for name, values in scores.items()} == {"brief": [-2, -4], "zero": [0, 0]}


def test_the_weighted_score_is_divided_by_the_sum_of_weights() -> None:
    scores = {"a": np.array([1.0, 0.0]), "b": np.array([0.0, 4.0]), "unused": np.array([9.0, 9.0])}
    assert weighted_score(scores, {"a": 1.0, "b": 3.0}).tolist() == [0.25, 3.0]
    assert weighted_score(scores, {"a": 0.5}).tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("text", "name", "section"),
    [
        ("positive", "positive", {}),
        ("pkg.module:score", "score", {"function": "pkg.module:score"}),
        ("some/path.py:score", "score", {"function": "some/path.py:score"}),
        ("Tristan/gpt2_reward", "gpt2_reward", {"model": "Tristan/gpt2_reward"}),
        ("./models/judge/", "judge", {"model": "./models/judge/"}),
    ],
)
def test_a_reward_on_the_command_line_tells_its_own_name(text: str, name: str, section: dict[str, str]) -> None:
    found_name, found = parse_reward(text)
    assert (found_name, found.model_dump(exclude_unset=True)) == (name, section)


def test_a_registry_name_is_the_registrys_though_a_folder_is_called_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "positive").mkdir()
    monkeypatch.chdir(tmp_path)
    assert parse_reward("positive")[1].model is None
    assert parse_reward("./positive")[1].model == "./positive"


@pytest.mark.parametrize("path", ["./nope/judge", "/abs/judge", "a/b/c"])
def test_a_model_folder_that_is_not_there_is_known_before_anything_is_hashed(path: str) -> None:
    with pytest.raises(RewardError, match="there is no such model folder"):
        reward_identity("judge", RewardSection(model=path))


def test_a_reward_that_cannot_name_a_folder_is_refused() -> None:
    with pytest.raises(RecipeError, match="cannot name a reward"):
        parse_reward("module:_private")


def test_the_identity_of_a_reward_follows_what_decides_its_scores(module: Path) -> None:
    function = RewardSection(function=f"{module}:count")
    before = reward_identity("count", function)
    module.write_text(module.read_text().replace("lid", "kettle"))
    assert reward_identity("count", function) != before
    assert reward_identity("brief", RewardSection()) == reward_identity("short", RewardSection(use="brief"))
    assert reward_identity("brief", RewardSection(batch_size=2)) == reward_identity("brief", RewardSection())
    assert reward_identity("brief", RewardSection()) != reward_identity("positive", RewardSection())


def test_a_module_counts_by_its_content_before_and_after_it_is_imported(module: Path) -> None:
    section = RewardSection(function="own_rewards:count")
    before = reward_identity("count", section)
    load_function("own_rewards:count")
    assert reward_identity("count", section) == before
    module.write_text(module.read_text().replace("lid", "kettle"))
    assert reward_identity("count", section) != before
