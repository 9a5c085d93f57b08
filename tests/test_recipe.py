"""Recipes: typed and strict, with precedence default < recipe < --set < flag, and errors that name key and remedy."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rsoup.errors import RecipeError
from rsoup.recipe import Recipe
from rsoup.recipe_file import dump_recipe, find_recipe, load_recipe, parse_recipe
from rsoup.recipe_yaml import unquoted

MINIMAL: dict[str, Any] = {"model": {"base": "m"}, "task": {"name": "reviews"}, "rewards": ["positive", "faithful"]}


def parse(**changes: Any) -> Recipe:
    """Parse the minimal recipe with some sections replaced."""
    return parse_recipe({**MINIMAL, **changes}, "r.yaml")


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_minimal_recipe_takes_the_settings_of_the_paper() -> None:
    recipe = parse()
    assert (recipe.model.lora.r, recipe.model.lora.alpha) == (16, 16)
    assert recipe.training.learning_rate == 1.41e-5
    ppo = recipe.training.ppo
    assert (ppo.epochs, ppo.cliprange, ppo.cliprange_value, ppo.vf_coef) == (4, 0.2, 0.2, 0.1)
    assert (ppo.gamma, ppo.gae_lambda, ppo.kl_coef, ppo.kl_target, ppo.kl_horizon) == (1, 0.95, 0.2, 6, 10_000)
    assert recipe.folder == Path("runs/run")


def test_rewards_may_be_a_list_or_a_mapping() -> None:
    assert parse(rewards=["positive"]) == parse(rewards={"positive": None}) == parse(rewards={"positive": {}})


def test_settings_override_the_recipe_and_flags_override_settings(tmp_path: Path) -> None:
    path = write(tmp_path / "r.yaml", yaml.safe_dump({**MINIMAL, "seed": 1, "training": {"steps": 10}}))
    assert load_recipe(path).training.steps == 10
    settings = ["training.steps=20", "training.ppo.kl_coef=0.5", "seed=2"]
    set_ = load_recipe(path, settings)
    assert (set_.training.steps, set_.training.ppo.kl_coef, set_.seed) == (20, 0.5, 2)
    flagged = load_recipe(path, settings, {"training.steps": 30, "seed": None})
    assert (flagged.training.steps, flagged.training.ppo.kl_coef, flagged.seed) == (30, 0.5, 2)


def test_flags_alone_make_a_recipe() -> None:
    recipe = load_recipe(None, ["training.steps=2"], {"model.base": "m", "task.name": "reviews", "rewards.brief": {}})
    assert (list(recipe.rewards), recipe.training.steps, recipe.model.base) == (["brief"], 2, "m")


def test_a_setting_reaches_into_a_list_of_rewards(tmp_path: Path) -> None:
    path = write(tmp_path / "r.yaml", yaml.safe_dump(MINIMAL))
    recipe = load_recipe(path, ["rewards.faithful.batch_size=4", "rewards.short.use=brief"])
    assert list(recipe.rewards) == ["positive", "faithful", "short"]
    assert recipe.rewards["faithful"].batch_size == 4


def test_a_setting_is_read_as_yaml(tmp_path: Path) -> None:
    path = write(tmp_path / "r.yaml", yaml.safe_dump(MINIMAL))
    recipe = load_recipe(path, ["training.learning_rate=1e-3", "training.ppo.kl_target=null", "morl=[{positive: 1}]"])
    assert (recipe.training.learning_rate, recipe.training.ppo.kl_target) == (1e-3, None)
    assert recipe.morl == [{"positive": 1.0}]


@pytest.mark.parametrize("number", ["1e-5", "1E-5", "1.0e-5", ".1e-4", "0.00001", "+1e-5"])
def test_numbers_are_read_as_people_write_them(tmp_path: Path, number: str) -> None:
    path = write(tmp_path / "r.yaml", yaml.safe_dump(MINIMAL) + f"training: {{learning_rate: {number}}}\n")
    assert load_recipe(path).training.learning_rate == 1e-5


@pytest.mark.parametrize(
    ("changes", "message", "hint"),
    [
        ({"trainning": {}}, "r.yaml: unknown key trainning.", "Did you mean training?"),
        ({"training": {"learning_rte": 1.0}}, "r.yaml: unknown key training.learning_rte.", "learning_rate?"),
        ({"training": {"ppo": {"kl_coeff": 1.0}}}, "unknown key training.ppo.kl_coeff.", "Did you mean kl_coef?"),
        ({"model": {"base": "m", "lora": {"rank": 8}}}, "unknown key model.lora.rank.", "Known: alpha"),
        ({"rewards": {"own": {"modle": "x/y"}}}, "unknown key rewards.own.modle.", "Did you mean model?"),
        ({"training": {"steps": "20"}}, "training.steps is '20'", "Write training.steps without quotes."),
        ({"training": {"steps": "many"}}, "training.steps is 'many'", "Correct the recipe"),
        ({"training": {"steps": 2.5}}, "training.steps is 2.5", "Correct the recipe"),
        ({"training": {"steps": 0}}, "training.steps is 0", "Correct the recipe"),
        ({"training": {"steps": True}}, "training.steps is True", "Correct the recipe"),
        ({"training": {"learning_rate": 0}}, "training.learning_rate is 0", "Correct the recipe"),
        ({"training": {"learning_rate": float("nan")}}, "training.learning_rate is nan", "Correct the recipe"),
        ({"training": {"learning_rate": float("inf")}}, "training.learning_rate is inf", "Correct the recipe"),
        ({"training": {"algo": "pppo"}}, "training.algo is 'pppo'", "Correct the recipe"),
        ({"training": 3}, "training is 3", "Correct the recipe"),
        ({"model": {}}, "r.yaml: model.base is missing.", "--set model.base=..."),
        ({"rewards": []}, "rewards", "Correct the recipe"),
        ({"rewards": ["positive", "positive"]}, "rewards: the same reward is listed twice", "Correct the recipe"),
        ({"rewards": {"../up": {}}}, "../up", "Correct the recipe"),
        ({"rewards": {"own": {"use": "brief", "model": "a/b"}}}, "give only one of use, model, function and judge", ""),
        ({"evaluation": {"fronts": {"x": {"of": []}}}}, "evaluation.fronts.x.of", "Correct the recipe"),
        ({"evaluation": {"fronts": {"soups": {"of": ["base"]}}}}, "cannot be called soups", "Correct the recipe"),
        ({"evaluation": {"fronts": {"x": {"of": ["positive"], "lambdas": 3}}}}, "of names one", "Name another one"),
        (
            {"evaluation": {"fronts": {"x": {"of": ["base", "positive"], "at": [{"base": 0.5}]}}}},
            "weights sum to 0.5",
            "The rest may go to base",
        ),
        (
            {"evaluation": {"fronts": {"x": {"of": ["base", "positive"], "at": [{"brief": 1.0}]}}}},
            "'brief', which of does not name",
            "Name it in of too",
        ),
        (
            {"evaluation": {"fronts": {"x": {"of": ["base", "positive"], "lambdas": 3, "preferences": 3}}}},
            "lambdas and preferences both",
            "Give one of them",
        ),
        (
            {"evaluation": {"fronts": {"x": {"of": ["base", "positive"], "preferences": 3}}}},
            "the base was trained on no reward",
            "Leave base out",
        ),
        ({"evaluation": {"fronts": {"x": {"of": ["positive"], "after": 4}}}}, "are not kept", "training.save_every: 4"),
        ({"morl": [{"positive": -1.0}]}, "morl.0.positive is -1.0", "Correct the recipe"),
        ({"morl": [{"positive": 0.0}]}, "the weights of the rewards are all zero", "Correct the recipe"),
        ({"morl": [{"postive": 1.0}]}, "the weights name 'postive', which is not a reward", ""),
        ({"morl": [{"positive": 1.0}, {"positive": 1.0, "faithful": 0.0}]}, "twice", "Correct the recipe"),
        ({"rewards": ["init"]}, "a reward cannot be called init", "Correct the recipe"),
        ({"rewards": {"morl-x": {"use": "brief"}}}, "a reward cannot be called morl-x", "Correct the recipe"),
        (
            {"rewards": {"own": {"model": "a/b", "template": "{psot}{completion}"}}},
            "unknown field {psot}",
            "Known: bos",
        ),
        ({"rewards": {"own": {"model": "a/b", "template": "{post}"}}}, "has no {completion}", "Correct the recipe"),
        ({"rewards": {"brief": {"format": "1"}}}, "format is for a classifier", "Leave format out."),
        ({"model": {"base": "m", "start": "a", "lora": {"r": 2}}}, "lora is that of the adapter start", ""),
        ({"name": "a b"}, "name is 'a b'", "Correct the recipe"),
        ({"seed": -1}, "seed is -1", "Correct the recipe"),
        ({"generation": {"min_new_tokens": 9, "max_new_tokens": 8}}, "generation: min_new_tokens (9) exceeds", ""),
        ({"training": {"prompts_per_step": 3, "ppo": {"mini_batches": 2}}}, "training: prompts_per_step (3)", ""),
        ({"evaluation": {"lambdas": 1}}, "evaluation.lambdas is 1", "Correct the recipe"),
        ({"evaluation": {"method": "svdd"}}, "evaluation.method is 'svdd'", "Correct the recipe"),
    ],
)
def test_what_is_wrong_is_named_with_its_key(changes: dict[str, Any], message: str, hint: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse(**changes)
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert "\n" not in caught.value.message + caught.value.hint


def test_a_misspelt_section_is_named_rather_than_the_missing_one() -> None:
    content = {("modle" if key == "model" else key): value for key, value in MINIMAL.items()}
    with pytest.raises(RecipeError) as caught:
        parse_recipe(content, "r.yaml")
    assert caught.value.message == "r.yaml: unknown key modle."
    assert caught.value.hint == "Did you mean model?"


def test_a_weight_on_an_unknown_reward_names_the_nearest() -> None:
    with pytest.raises(RecipeError) as caught:
        parse(morl=[{"postive": 1.0}])
    assert caught.value.hint == "Did you mean positive?"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: {base: m\ntask: x\n", "line 2: not valid YAML"),
        ("seed: 1\nseed: 2\n", "line 2: not valid YAML: the key 'seed' is given twice"),
        ("- a\n- b\n", "the top level has to be a mapping"),
        ("", "the top level has to be a mapping"),
        ("seed: !!python/object/apply:os.getcwd []\n", "line 1: not valid YAML"),
        ("task:\n  template: {{post}}\n", "line 2: not valid YAML"),
    ],
)
def test_text_that_is_no_recipe_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path / "bad.yaml", text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert message in caught.value.message
    assert str(path) in caught.value.message


@pytest.mark.parametrize(
    "line",
    [
        "rubric: How polite? 1: rude, 9: kind",
        "rubric: @home, how polite",
        "rubric: `code` is polite",
        "rubric: %polite",
        "rubric: *very* polite",
        "rubric: !polite",
        "rubric: > how polite",
        'rubric: "polite" or not',
        "rubric: {post}: how polite",
        "a: {rubric: How polite is it?, model: m}",
        "a: {rubric: polite: yes or no, model: m}",
        "rubric: how kind\n  1: rude",
        "rubric: How #1 is it\n  in the end",
    ],
)
def test_a_text_that_lacks_quotes_is_named(tmp_path: Path, line: str) -> None:
    path = write(tmp_path / "bad.yaml", f"name: fine\n{line}\nseed: 1\n")
    with pytest.raises(RecipeError, match="not valid YAML") as caught:
        load_recipe(path)
    assert caught.value.hint == 'Quote the text (rubric: "..."), or write it on lines of its own below rubric: |'


@pytest.mark.parametrize("line", ["rubric: fine", 'rubric: "a: b" # c', "rubric: |", "r: {a: b, c: 'd?'}", "n: -3"])
def test_what_needs_no_quotes_is_not_blamed(line: str) -> None:
    assert unquoted(line) is None


def test_a_line_that_is_indented_too_far_is_not_taken_for_a_text(tmp_path: Path) -> None:
    path = write(tmp_path / "bad.yaml", "training:\n  steps: 3\n   learning_rate: 1\n")
    with pytest.raises(RecipeError, match="line 3: not valid YAML") as caught:
        load_recipe(path)
    assert caught.value.hint.startswith("Indent the line")


def test_a_text_that_became_something_else_is_to_be_quoted() -> None:
    with pytest.raises(RecipeError, match="template") as caught:
        parse(task={"data": "x.jsonl", "template": {"post": None}})
    assert 'Quote the text (template: "...")' in caught.value.hint
    with pytest.raises(RecipeError, match=r"unknown key task\.kind words") as caught:
        parse(task={"data": "x.jsonl", "kind words": None})
    assert "a comma ends it" in caught.value.hint


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="not UTF-8"):
        load_recipe(path)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("training.steps", "is not section.key=value"),
        ("=3", "is not section.key=value"),
        ("seed.deep=3", "seed is not a section"),
        ("training.steps=[1", "not valid YAML"),
        ("training.stesp=3", "unknown key training.stesp"),
        ("training.steps=three", "training.steps is 'three'"),
    ],
)
def test_a_bad_setting_is_refused(tmp_path: Path, setting: str, message: str) -> None:
    path = write(tmp_path / "r.yaml", yaml.safe_dump({**MINIMAL, "seed": 1}))
    with pytest.raises(RecipeError, match=message):
        load_recipe(path, [setting])


def test_settings_leave_the_given_content_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "r.yaml", yaml.safe_dump(MINIMAL))
    before = path.read_text()
    load_recipe(path, ["training.steps=3"])
    assert path.read_text() == before


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "seed": st.integers(0, 2**40),
            "name": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,20}", fullmatch=True),
            "training": st.fixed_dictionaries(
                {}, optional={"steps": st.integers(1, 10**6), "learning_rate": st.floats(1e-30, 1e30)}
            ),
            "morl": st.lists(st.fixed_dictionaries({"positive": st.floats(1e-30, 1e30)}), max_size=3, unique_by=str),
        },
    )
)
def test_what_is_written_is_read_back(changes: dict[str, Any]) -> None:
    recipe = parse(**copy.deepcopy(changes))
    assert parse_recipe(yaml.safe_load(dump_recipe(recipe)), "again") == recipe


def test_an_unknown_recipe_gets_the_nearest_bundled_one() -> None:
    with pytest.raises(RecipeError) as caught:
        find_recipe("recipes/quikstart.yaml")
    assert caught.value.message == "recipes/quikstart.yaml: there is no such recipe."
    assert caught.value.hint == "Did you mean quickstart?"


def test_the_schema_for_editors_explains_every_key() -> None:
    def undocumented(schema: dict[str, Any], where: str) -> list[str]:
        return [f"{where}.{key}" for key, value in schema.get("properties", {}).items() if "description" not in value]

    schema = Recipe.model_json_schema()
    sections = {"ModelSection", "TaskSection", "RewardSection", "TrainingSection", "PPOSection", "LoraSection"}
    assert sections <= set(schema["$defs"])
    missing = [key for name, part in schema["$defs"].items() for key in undocumented(part, name)]
    assert set(missing) <= {"ModelSection.lora", "TrainingSection.ppo"}


def test_the_evaluation_writes_as_much_as_the_training_unless_it_says_otherwise() -> None:
    assert parse(generation={"max_new_tokens": 48}).evaluation.max_new_tokens == 48
    assert parse(generation={"max_new_tokens": 48}, evaluation={"max_new_tokens": 9}).evaluation.max_new_tokens == 9
    assert parse(evaluation={"prompts": 3}).evaluation.max_new_tokens == 32


def test_what_the_command_line_gave_is_looked_for_there(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(MINIMAL))
    with pytest.raises(RecipeError, match=r"^the flags: evaluation\.lambdas is 1") as refused:
        load_recipe(path, (), {"evaluation.lambdas": 1})
    assert refused.value.hint == "Give another value."
    with pytest.raises(RecipeError, match=r"^--set evaluation\.lambdas=1: evaluation\.lambdas is 1"):
        load_recipe(path, ["evaluation.lambdas=1"])
    path.write_text(yaml.safe_dump({**MINIMAL, "evaluation": {"lambdas": 1}}))
    with pytest.raises(RecipeError, match=r"r\.yaml: evaluation\.lambdas is 1"):
        load_recipe(path, (), {"evaluation.prompts": 3})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"models": {"a": "x/y"}, "morl": [{"brief": 1.0}]}, "models are mixed as they are"),
        ({"models": {"base": "x/y"}}, "a model cannot be called base"),
        ({"models": {"soup-1": "x/y"}}, "a model cannot be called soup-1"),
    ],
)
def test_whole_models_leave_nothing_to_train_and_have_names_of_their_own(changed: dict[str, Any], message: str) -> None:
    content = {"model": {"base": "m/n"}, "task": {"data": "x.jsonl"}, "rewards": ["brief"]}
    assert parse_recipe({**content, "models": {"a": "x/y"}}, "own").models == {"a": "x/y"}
    with pytest.raises(RecipeError, match=message):
        parse_recipe({**content, **changed}, "own")


# Several seeds


def several(**more: Any) -> Recipe:
    content = {"name": "t", "model": {"base": "m"}, "task": {"data": "d.jsonl"}, "rewards": ["brief"], **more}
    return parse_recipe(content, "r.yaml")


def test_each_seed_is_a_recipe_of_its_own_folder() -> None:
    recipe = several(seeds=[3, 5])
    assert recipe.seed == 3
    assert [(own.seed, own.seeds, str(own.folder)) for own in recipe.by_seed()] == [
        (3, [], "runs/t/seed-3"),
        (5, [], "runs/t/seed-5"),
    ]
    alone = several(seed=4)
    assert alone.by_seed() == [alone]
    assert parse_recipe(yaml.safe_load(dump_recipe(recipe)), "again") == recipe


@pytest.mark.parametrize(
    ("more", "message"),
    [({"seeds": [1, 1]}, "lists a seed twice"), ({"seed": 4, "seeds": [1, 2]}, "seed is 4, and seeds are")],
)
def test_seeds_that_contradict_are_refused(more: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        several(**more)


def test_a_seed_on_the_command_line_replaces_those_of_the_recipe(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(dump_recipe(several(seeds=[0, 1])))
    assert load_recipe(path, flags={"seed": 1}).by_seed()[0].folder == Path("runs/t")
    assert [own.seed for own in load_recipe(path, flags={"seeds": [7, 8]}).by_seed()] == [7, 8]


@pytest.mark.parametrize(
    "value",
    [
        "2023-99-99",
        "!!int x",
        "!!int ''",
        "!!float _",
        "!!bool x",
        "!!timestamp x",
        "!!binary é",
        "[" * 2000,
        "&a [*a]",
    ],
)
def test_a_value_that_yaml_cannot_read_is_refused(tmp_path: Path, value: str) -> None:
    path = write(tmp_path / "r.yaml", yaml.safe_dump(MINIMAL) + f"seed: {value}\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert "r.yaml" in caught.value.message
    assert caught.value.hint
