"""Training as a command sees it: one start, never repeated, never mixed up, continued as if nothing had happened."""

from __future__ import annotations

import json
import shutil
import statistics
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from rsoup.errors import AdapterError, DataError, RecipeError, RewardError, RsoupError
from rsoup.files import sha256_file, write_text
from rsoup.progress import Silent
from rsoup.recipe import Recipe
from rsoup.recipe_file import dump_recipe, load_recipe
from rsoup.resolve import resolve
from rsoup.training.expert import train_adapter
from rsoup.training.finished import start_fingerprint
from rsoup.training.folders import adapter_folder
from tiny import build_adapter, build_tiny_model, recipe_content, tree, write_recipe

from .directly import metrics, provenance

WEIGHTS = "adapter_model.safetensors"
COUNTED = '''
from pathlib import Path

def brief(prompts, completions):
    """Score brevity until the countdown in the file beside this one is over."""
    counter = Path(__file__).with_name("countdown")
    left = int(counter.read_text())
    if left == 0:
        raise KeyboardInterrupt
    counter.write_text(str(left - 1))
    return [-float(len(completion.split())) for completion in completions]
'''


class Stopping(Silent):
    """Raises KeyboardInterrupt at an event of a run."""

    def __init__(self, event: int) -> None:
        self.left = event

    def _count(self) -> None:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1

    def start(self, stage: str, total: int, done: int = 0) -> None:
        self._count()

    def advance(self, note: str = "") -> None:
        self._count()

    def finish(self) -> None:
        self._count()


class Hearing(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def test_a_reward_without_anything_to_read_in_any_row_is_refused_before_anything_is_written(
    tmp_path: Path, tiny_model: Path
) -> None:
    content = recipe_content(tmp_path, tiny_model) | {"rewards": {"exact": None, "brief": None}, "morl": []}
    resolved = resolve(load_recipe(write_recipe(tmp_path / "r.yaml", content)))
    for refuse in (lambda: train_adapter(resolved, "exact", {"exact": 1.0}, "expert", Silent()), resolved.check):
        with pytest.raises(RewardError, match=r"The reward exact applies to none of the \d+ rows"):
            refuse()
    assert not resolved.recipe.folder.exists()
    train_adapter(resolved, "brief", {"brief": 1.0, "exact": 0.0}, "expert", Silent())  # which exact is only beside


def test_a_training_says_that_a_reward_applied_to_nothing(tmp_path: Path, tiny_model: Path) -> None:
    (tmp_path / "never.py").write_text("def never(completions): return [None for _ in completions]\n")
    content = recipe_content(tmp_path, tiny_model)
    content |= {"rewards": {"never": {"function": f"{tmp_path / 'never.py'}:never"}, "brief": None}, "morl": []}
    resolved = resolve(load_recipe(write_recipe(tmp_path / "r.yaml", content)))
    heard = Hearing()
    train_adapter(resolved, "both", {"never": 1.0, "brief": 1.0}, "morl", heard)
    warnings = [line for line in heard.said if line.startswith("warning")]
    assert warnings == ["warning: never applied to no completion of the training: it taught both nothing."]


def countdown_recipe(folder: Path, model: Path, left: int, **training: Any) -> Recipe:
    """Return a recipe whose reward interrupts the training when its countdown is over."""
    folder.mkdir(exist_ok=True)
    content = recipe_content(folder, model)
    (folder / "counted.py").write_text(COUNTED)
    (folder / "countdown").write_text(str(left))
    content["rewards"] = {"brief": {"function": f"{folder / 'counted.py'}:brief"}}
    content["training"].update(training)
    content["model"]["lora"]["dropout"] = 0.1
    content["morl"] = []
    return load_recipe(write_recipe(folder / "r.yaml", content))


def train_brief(recipe: Recipe, progress: Silent | None = None, **options: Any) -> Path:
    return train_adapter(resolve(recipe), "brief", {"brief": 1.0}, "expert", progress or Silent(), **options)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> tuple[str, list[dict[str, Any]]]:
    """The hash and the metrics of an adapter that was trained in one go."""
    folder = train_brief(countdown_recipe(tmp_path_factory.mktemp("undisturbed"), tiny_model, left=100))
    return sha256_file(folder / WEIGHTS), metrics(folder)


@pytest.mark.parametrize("checkpoint_every", [1, 2])
@pytest.mark.parametrize("step", [0, 1, 2])
def test_a_training_interrupted_while_scoring_goes_on_bit_for_bit(
    tmp_path: Path, tiny_model: Path, undisturbed: Any, step: int, checkpoint_every: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_brief(countdown_recipe(tmp_path, tiny_model, left=step, checkpoint_every=checkpoint_every))
    assert not (tmp_path / "run/adapters/brief").exists()
    folder = train_brief(countdown_recipe(tmp_path, tiny_model, left=100))
    assert (sha256_file(folder / WEIGHTS), metrics(folder)) == undisturbed
    assert [line["step"] for line in metrics(folder)] == [1, 2, 3]


@pytest.mark.parametrize("event", range(5))
def test_a_training_interrupted_between_steps_goes_on_bit_for_bit(
    tmp_path: Path, tiny_model: Path, undisturbed: Any, event: int
) -> None:
    """The events are the start, the three steps and the end."""
    with pytest.raises(KeyboardInterrupt):
        train_brief(countdown_recipe(tmp_path, tiny_model, left=100), Stopping(event))
    recipe = countdown_recipe(tmp_path, tiny_model, left=3 - max(0, event - 1) if event else 3)
    folder = train_brief(recipe)  # the countdown lets through no more steps than are missing
    assert (sha256_file(folder / WEIGHTS), metrics(folder)) == undisturbed
    assert tree(tmp_path / "run" / "checkpoints") == set()


def test_a_finished_training_is_not_repeated(tmp_path: Path, tiny_model: Path) -> None:
    folder = train_brief(countdown_recipe(tmp_path, tiny_model, left=3))
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert train_brief(countdown_recipe(tmp_path, tiny_model, left=0)) == folder
    assert train_brief(countdown_recipe(tmp_path, tiny_model, left=0), overwrite=True) == folder
    assert train_brief(countdown_recipe(tmp_path, tiny_model, left=0, checkpoint_every=3)) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_other_settings_are_refused_and_replaced_when_told_to(tmp_path: Path, tiny_model: Path) -> None:
    folder = train_brief(countdown_recipe(tmp_path, tiny_model, left=100))
    before = sha256_file(folder / WEIGHTS)
    other = countdown_recipe(tmp_path, tiny_model, left=100, learning_rate=0.02)
    with pytest.raises(AdapterError) as caught:
        train_brief(other)
    assert caught.value.message == (
        f"{folder}: is there, made with other settings, data or base model "
        "(there -> here: training.learning_rate: 0.01 -> 0.02)."
    )
    assert caught.value.hint.startswith("Give another output folder (-o), or replace it with --overwrite.")
    assert sha256_file(folder / WEIGHTS) == before
    train_brief(other, overwrite=True)
    assert sha256_file(folder / WEIGHTS) != before


def test_what_two_trainings_find_of_the_rows_is_said_once(tmp_path: Path, tiny_model: Path) -> None:
    recipe = countdown_recipe(tmp_path, tiny_model, left=100)
    with (tmp_path / "posts.jsonl").open("a") as posts:
        posts.write('{"post": ""}\n')
    hearing = Hearing()
    for name in ("brief", "again"):
        train_adapter(resolve(recipe), name, {"brief": 1.0}, "expert", hearing)
    assert [line for line in hearing.said if "left out" in line] == ["1 training rows are left out: no text (1)."]


def test_the_first_settings_that_differ_are_named_and_the_others_counted(tmp_path: Path, tiny_model: Path) -> None:
    recipe = countdown_recipe(tmp_path, tiny_model, left=100)
    folder = train_brief(recipe)
    training = recipe.training.model_copy(update={"learning_rate": 0.02, "steps": 2, "score_clip": 0.5})
    with pytest.raises(AdapterError, match=r"there -> here: seed: 0 -> 7; [^;]*; [^;]*; and 1 more\)"):
        train_brief(recipe.model_copy(update={"seed": 7, "training": training}))
    told = json.loads((folder / "rsoup.json").read_text())
    assert "rewards" not in told["settings"]  # a rubric or an address is nothing for whoever gets the adapter


def test_a_recipe_of_the_same_name_is_told_that_they_share_a_folder(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is noted of the data is in recipe.yaml, which a run leaves in its folder."""
    monkeypatch.chdir(tmp_path)
    recipe = countdown_recipe(tmp_path, tiny_model, left=100).model_copy(update={"output": None})
    train_brief(recipe)
    write_text(recipe.folder / "recipe.yaml", dump_recipe(recipe))
    shutil.copy(tmp_path / "posts.jsonl", tmp_path / "others.jsonl")
    with (tmp_path / "others.jsonl").open("a") as posts:
        posts.write('{"post": "the lid"}\n')
    task = recipe.task.model_copy(update={"data": str(tmp_path / "others.jsonl")})
    with pytest.raises(AdapterError, match=r"task\.data: .*posts\.jsonl -> .*others\.jsonl") as caught:
        train_brief(recipe.model_copy(update={"task": task}))
    assert caught.value.hint.startswith(f"Recipes called {recipe.name} share this folder: give one another name or")
    (tmp_path / "posts.jsonl").write_text((tmp_path / "others.jsonl").read_text())
    with pytest.raises(AdapterError, match="settings noted there are the same: rows, base model, code"):
        train_brief(recipe)


def test_an_unfinished_training_with_other_settings_is_refused_and_replaced_when_told_to(
    tmp_path: Path, tiny_model: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_brief(countdown_recipe(tmp_path, tiny_model, left=2))
    other = countdown_recipe(tmp_path, tiny_model, left=100, learning_rate=0.02)
    with pytest.raises(AdapterError, match="holds an unfinished training with other settings"):
        train_brief(other)
    assert len(metrics(train_brief(other, overwrite=True))) == 3


def test_another_seed_makes_another_start_and_needs_to_be_told_so(tmp_path: Path, tiny_model: Path) -> None:
    recipe = countdown_recipe(tmp_path, tiny_model, left=100)
    train_brief(recipe)
    other = recipe.model_copy(update={"seed": 1})
    with pytest.raises(AdapterError, match="brief: is there, made with other settings"):
        train_brief(other)
    with pytest.raises(AdapterError, match="init: is there, made with other settings"):
        train_adapter(resolve(other), "again", {"brief": 1.0}, "expert", Silent())
    folder = train_brief(other, overwrite=True)
    assert provenance(folder)["seed"] == 1
    assert provenance(folder)["init_sha256"] == sha256_file(tmp_path / "run/adapters/init" / WEIGHTS)


@pytest.mark.parametrize("change", ["data", "function", "model"])
def test_other_content_under_the_same_name_is_noticed(tmp_path: Path, tiny_model: Path, change: str) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    train_brief(countdown_recipe(tmp_path / "one", model, left=100))
    if change == "model":
        model = build_tiny_model(tmp_path / "other", seed=1)
    recipe = countdown_recipe(tmp_path / "one", model, left=100)
    if change == "data":
        with (tmp_path / "one/posts.jsonl").open("a") as posts:
            posts.write('{"post": "the lid"}\n')
    if change == "function":
        (tmp_path / "one/counted.py").write_text(COUNTED.replace("-float", "-2.0 * float"))
    with pytest.raises(AdapterError, match="made with other settings, data or base model"):
        train_brief(recipe)


def test_an_adapter_that_was_changed_by_hand_is_noticed(tmp_path: Path, tiny_model: Path) -> None:
    recipe = countdown_recipe(tmp_path, tiny_model, left=100)
    folder = train_brief(recipe)
    weights = bytearray((folder / WEIGHTS).read_bytes())
    weights[-1] ^= 1
    (folder / WEIGHTS).write_bytes(bytes(weights))
    with pytest.raises(AdapterError, match="was changed after training"):
        train_brief(recipe)


def test_a_damaged_checkpoint_is_named_with_what_to_do(tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_brief(countdown_recipe(tmp_path, tiny_model, left=2))
    last = sorted((tmp_path / "run/checkpoints/brief").glob("step-*"))[-1]
    whole = last.read_bytes()
    kl_coef = whole.index(b"kl_coef") + len('kl_coef\\": 0.')
    a_digit, a_weight, a_name = ({at: whole[at] ^ 1} for at in (kl_coef, len(whole) - 1, whole.index(b"optimizer/0")))
    for changes in (a_digit, a_weight, a_name, dict.fromkeys(range(len(whole) - 500, len(whole)), 0)):
        last.write_bytes(bytes(changes.get(at, byte) for at, byte in enumerate(whole)))
        with pytest.raises(AdapterError, match="is damaged") as caught:
            train_brief(countdown_recipe(tmp_path, tiny_model, left=100))
        assert str(last) in caught.value.message
        assert caught.value.hint.startswith("Delete it")
    last.unlink()
    assert len(metrics(train_brief(countdown_recipe(tmp_path, tiny_model, left=100)))) == 3


def test_a_learnable_reward_goes_up(tmp_path: Path, tiny_model: Path) -> None:
    content = recipe_content(tmp_path, tiny_model)
    (tmp_path / "own.py").write_text("def e(prompts, completions):\n    return [c.count('e') for c in completions]\n")
    content["rewards"] = {"e": {"function": f"{tmp_path / 'own.py'}:e"}}
    content["training"].update(steps=10, prompts_per_step=4, completions_per_prompt=8, learning_rate=0.02)
    content["morl"] = []
    recipe = load_recipe(write_recipe(tmp_path / "r.yaml", content))
    lines = metrics(train_adapter(resolve(recipe), "e", {"e": 1.0}, "expert", Silent()))
    scores = [line["scores"]["e"] for line in lines]
    assert statistics.fmean(scores[-3:]) > 1.2 * statistics.fmean(scores[:3])
    assert lines[-1]["kl"] > 0.1


def test_a_given_adapter_is_continued_from_where_it_is(tmp_path: Path, tiny_model: Path) -> None:
    given = build_adapter(tmp_path / "given", tiny_model, seed=1)
    content = recipe_content(tmp_path, tiny_model)
    content["model"] |= {"start": str(given)}
    del content["model"]["lora"]
    recipe = load_recipe(write_recipe(tmp_path / "r.yaml", content))
    lines = metrics(train_adapter(resolve(recipe), "brief", {"brief": 1.0}, "expert", Silent()))
    start, end = (load_file(adapter_folder(recipe, name) / WEIGHTS) for name in ("init", "brief"))
    original = load_file(given / WEIGHTS)
    assert start.keys() == original.keys() == end.keys()
    assert all((start[name] == original[name]).all() for name in original)
    assert any((end[name] != original[name]).any() for name in original)
    assert lines[0]["kl"] == 0.0
    assert lines[-1]["kl"] != 0.0


def test_a_reward_that_fails_leaves_what_was_done_and_nothing_half_written(tmp_path: Path, tiny_model: Path) -> None:
    content = recipe_content(tmp_path, tiny_model)
    (tmp_path / "own.py").write_text("def bad(prompts, completions):\n    return [float('nan')] * len(prompts)\n")
    content["rewards"] = {"bad": {"function": f"{tmp_path / 'own.py'}:bad"}}
    content["morl"] = []
    recipe = load_recipe(write_recipe(tmp_path / "r.yaml", content))
    with pytest.raises(RewardError, match="returned nan"):
        train_adapter(resolve(recipe), "bad", {"bad": 1.0}, "expert", Silent())
    assert {path.name for path in (tmp_path / "run/adapters").iterdir()} == {"init"}


def test_nothing_is_written_before_the_data_have_been_read(tmp_path: Path, tiny_model: Path) -> None:
    content = recipe_content(tmp_path, tiny_model)
    (tmp_path / "posts.jsonl").write_text('{"post": "the lid"}\n{"text": "the kettle"}\n')
    recipe = load_recipe(write_recipe(tmp_path / "r.yaml", content))
    with pytest.raises(DataError, match="too few usable rows"):
        train_adapter(resolve(recipe), "brief", {"brief": 1.0}, "expert", Silent())
    assert not (tmp_path / "run").exists()


def test_an_unknown_reward_writes_nothing(tmp_path: Path, tiny_model: Path) -> None:
    content = recipe_content(tmp_path, tiny_model)
    content["rewards"], content["morl"] = ["positve"], []
    recipe = load_recipe(write_recipe(tmp_path / "r.yaml", content))
    with pytest.raises(RecipeError, match="no reward 'positve'"):
        train_adapter(resolve(recipe), "positve", {"positve": 1.0}, "expert", Silent())
    assert not (tmp_path / "run").exists()


def test_a_training_that_diverges_stops_and_says_so(tmp_path: Path, tiny_model: Path) -> None:
    content = recipe_content(tmp_path, tiny_model)
    content["training"]["learning_rate"] = 1e30
    recipe = load_recipe(write_recipe(tmp_path / "r.yaml", content))
    with pytest.raises(RsoupError, match="diverged"):
        train_adapter(resolve(recipe), "brief", {"brief": 1.0}, "expert", Silent())
    assert not adapter_folder(recipe, "brief").exists()


def test_overwriting_keeps_the_old_adapter_until_the_new_one_is_whole(tmp_path: Path, tiny_model: Path) -> None:
    content = recipe_content(tmp_path, tiny_model)
    recipe = load_recipe(write_recipe(tmp_path / "r.yaml", content))
    folder = train_adapter(resolve(recipe), "brief", {"brief": 1.0}, "expert", Silent())
    before = tree(folder)
    content["training"]["steps"] += 1
    content["rewards"] = {"brief": {}, "broken": {"function": "absent.py:f"}}
    content["morl"] = []
    other = load_recipe(write_recipe(tmp_path / "r.yaml", content))
    with pytest.raises(RewardError):
        train_adapter(resolve(other), "brief", {"brief": 1.0}, "expert", Silent(), overwrite=True)
    assert tree(folder) == before


def test_adapters_along_the_way_are_those_of_shorter_trainings(tmp_path: Path, tiny_model: Path) -> None:
    content = recipe_content(tmp_path, tiny_model)
    content["training"]["save_every"] = 2
    recipe = load_recipe(write_recipe(tmp_path / "r.yaml", content))
    train_adapter(resolve(recipe), "brief", {"brief": 1.0}, "expert", Silent())
    kept = tmp_path / "run/trajectory/brief"
    assert [path.name for path in sorted(kept.iterdir())] == ["step-000002"]
    assert provenance(kept / "step-000002")["steps"] == 2
    content["training"].update(steps=2, save_every=None)
    content["output"] = str(tmp_path / "shorter")
    shorter = load_recipe(write_recipe(tmp_path / "r.yaml", content))
    folder = train_adapter(resolve(shorter), "brief", {"brief": 1.0}, "expert", Silent())
    assert sha256_file(kept / "step-000002" / WEIGHTS) == sha256_file(folder / WEIGHTS)


def test_a_baseline_may_weigh_scores_on_a_common_scale_and_says_so(tmp_path: Path, tiny_model: Path) -> None:
    content = recipe_content(tmp_path, tiny_model)
    hashes = set()
    for scaling in ("raw", "running", "normalize_then_sum"):
        content["training"]["score_scaling"] = scaling
        content["output"] = str(tmp_path / scaling)
        recipe = load_recipe(write_recipe(tmp_path / "r.yaml", content))
        folder = train_adapter(resolve(recipe), "mixed", {"positive": 1.0, "brief": 1.0}, "morl", Silent())
        assert provenance(folder)["score_scaling"] == scaling
        assert provenance(folder)["score_statistics"]["brief"]["count"] == 3 * 2 * 3
        hashes.add(sha256_file(folder / WEIGHTS))
    assert len(hashes) == 3


@pytest.mark.parametrize("fault", ["raise ValueError('no such word')", "return [float('nan') for _ in completions]"])
def test_a_reward_that_fails_names_and_saves_the_sample_and_loses_no_step(
    tmp_path: Path, tiny_model: Path, fault: str
) -> None:
    content = recipe_content(tmp_path, tiny_model)
    picky = tmp_path / "picky.py"
    source = "def picky(prompts, completions):\n    {}\n    return [float(len(text)) for text in completions]\n"
    picky.write_text(source.format("pass"))
    content["rewards"], content["morl"] = {"picky": {"function": f"{picky}:picky"}}, []
    content["training"]["checkpoint_every"] = 100
    recipe = load_recipe(write_recipe(tmp_path / "r.yaml", content))
    with pytest.raises(KeyboardInterrupt):
        train_adapter(resolve(recipe), "picky", {"picky": 1.0}, "expert", Stopping(2))  # after the start and one step
    assert [path.name for path in (tmp_path / "run/checkpoints/picky").glob("*.safetensors")]
    fails = source.format(f"if any('e' in text for text in completions): {fault}")
    picky.write_text(fails)
    with pytest.raises(RewardError) as caught:
        train_adapter(resolve(recipe), "picky", {"picky": 1.0}, "expert", Silent(), overwrite=True)
    saved = json.loads((tmp_path / "run/checkpoints/picky/failed_sample.json").read_text())
    assert "e" in saved["completion"]
    assert repr(saved["completion"]) in caught.value.message
    assert "failed_sample.json" in caught.value.hint
    assert not adapter_folder(recipe, "picky").exists()


def test_starting_over_leaves_no_adapters_of_the_old_way(tmp_path: Path, tiny_model: Path) -> None:
    content = recipe_content(tmp_path, tiny_model)
    for steps in (3, 1):
        content["training"] |= {"save_every": 1, "steps": steps}
        recipe = load_recipe(write_recipe(tmp_path / "r.yaml", content))
        train_adapter(resolve(recipe), "brief", {"brief": 1.0}, "expert", Silent(), overwrite=True)
    assert [path.name for path in (tmp_path / "run/trajectory/brief").iterdir()] == ["step-000001"]


def start_of(recipe: Path) -> str:
    return start_fingerprint(resolve(load_recipe(recipe)))


def test_another_configuration_of_the_same_weights_is_another_model(tmp_path: Path, tiny_model: Path) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    first = start_of(write_recipe(tmp_path / "r.yaml", recipe_content(tmp_path, model)))
    settings = json.loads((model / "config.json").read_text())
    other = Path(shutil.copytree(model, tmp_path / "other"))
    (other / "config.json").write_text(json.dumps({**settings, "rms_norm_eps": 0.1}))
    assert start_of(write_recipe(tmp_path / "o.yaml", recipe_content(tmp_path, other))) != first
