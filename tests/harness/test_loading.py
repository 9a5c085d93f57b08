"""What is found and identified as a benchmark, and what is refused before anything is written."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install '.[bench]'")

from rsoup.errors import MissingPackageError, RsoupError
from rsoup.harness.finding import find
from rsoup.harness.loading import Benchmark, load_benchmarks
from rsoup.recipe import LmEvalSection
from tiny import build_tokenizer

from .small_tasks import FACTS, FOLDER, TEXTS, WORDS

ALL = LmEvalSection()


def load(*entries: str | Path, context: int | None = 128, **settings: Any) -> dict[str, Benchmark]:
    found = load_benchmarks(
        [str(entry) for entry in entries], ALL.model_copy(update=settings), build_tokenizer(), context
    )
    return {own.name: own for own in found}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the tasks, to be changed."""
    return Path(shutil.copytree(FOLDER, tmp_path / "tasks"))


def change(path: Path, **keys: Any) -> Path:
    """Change keys of a task's file; None removes one."""
    content = yaml.safe_load(path.read_text().replace("!function ", "function:"))
    content = {key: own for key, own in {**content, **keys}.items() if own is not None}
    path.write_text(yaml.safe_dump(content, sort_keys=False).replace("function:", "!function "))
    return path


def test_a_folder_holds_all_of_its_tasks_and_a_file_is_one() -> None:
    assert load(FOLDER).keys() == {"facts", "words", "texts"}
    (facts,) = load(FACTS).values()
    assert dict(facts.ways) == {"facts.acc,none": "maximize", "facts.acc_norm,none": "maximize"}
    assert (facts.count, facts.version, facts.num_fewshot) == (24, "1.0", 0)
    assert load(FACTS, limit=5)["facts"].count == 5
    assert load(FACTS, limit=0.5)["facts"].count == 12
    assert load(FACTS, limit=99, num_fewshot=3)["facts"].num_fewshot == 3


def test_shots_of_0_in_a_tasks_definition_stay(folder: Path) -> None:
    assert load(change(folder / "facts.yaml", num_fewshot=0), num_fewshot=3)["facts"].num_fewshot == 0
    assert load(change(folder / "facts.yaml", num_fewshot=1), num_fewshot=3)["facts"].num_fewshot == 3
    assert load(folder / "facts.yaml")["facts"].num_fewshot == 1


def test_a_group_counts_by_its_own_metric_and_without_one_by_its_tasks(folder: Path) -> None:
    twin = change(Path(shutil.copy(folder / "facts.yaml", folder / "twin.yaml")), task="twin")
    group = {"group": "both", "task": ["facts", "twin"]}
    path = folder / "both.yaml"
    path.write_text(yaml.safe_dump(group))
    assert list(load(path)) == ["facts", "twin"]
    path.write_text(yaml.safe_dump({**group, "aggregate_metric_list": [{"metric": "acc_norm"}]}))
    (both,) = load(path).values()
    assert (both.name, both.main, both.count) == ("both", "both.acc_norm,none", 48)
    assert "twin.acc,none" in both.ways
    assert set(load(folder)) == {"both", "words", "texts"}
    assert twin.is_file()


def test_the_identity_is_what_decides_the_numbers(folder: Path, tmp_path: Path) -> None:
    """Where a task lies and what it is called beside does not count; its questions, code and settings do."""
    before = {name: own.sha256 for name, own in load(folder).items()}
    elsewhere = Path(shutil.copytree(folder, tmp_path / "elsewhere"))
    assert {name: own.sha256 for name, own in load(elsewhere, batch_size=3).items()} == before

    def changed(**settings: Any) -> set[str]:
        return {name for name, own in load(folder, **settings).items() if own.sha256 != before[name]}

    assert changed(limit=23) == {"facts", "words"}
    assert changed(num_fewshot=1) == {"facts", "words", "texts"}
    assert changed(gen_kwargs={"max_gen_toks": 5}) >= {"words"}
    (folder / "scoring.py").write_text((folder / "scoring.py").read_text() + "\n# otherwise\n")
    assert changed() == {"words"}
    change(folder / "facts.yaml", doc_to_text="{{question}}")
    assert changed() == {"facts", "words"}
    rows = (folder / "texts.jsonl").read_text()
    (folder / "texts.jsonl").write_text(rows.replace("the", "a", 1))
    assert changed() == {"facts", "words", "texts"}


def test_data_lie_at_the_working_folder_or_beside_the_task(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As lm-eval reads them where there are such; the tasks' own folder serves where there are none."""
    one = (folder / "texts.jsonl").read_text().splitlines()[0]
    (tmp_path / "texts.jsonl").write_text(one + "\n")
    assert load(folder / "texts.yaml")["texts"].count == 10
    monkeypatch.chdir(tmp_path)
    assert load(folder / "texts.yaml")["texts"].count == 1


@pytest.mark.parametrize(
    ("entry", "message", "hint"),
    [
        ("absent.yaml", "there is no such file or folder", "Check the path"),
        ("./absent", "there is no such file or folder", "Check the path"),
        ("facts.jsonl", "cannot be read as a task", "Mend"),
    ],
)
def test_what_is_no_task_is_refused(folder: Path, entry: str, message: str, hint: str) -> None:
    place = entry if entry.startswith(".") else str(folder / entry)
    with pytest.raises(RsoupError, match=message) as refusal:
        load(place)
    assert hint in refusal.value.hint


@pytest.mark.parametrize(
    ("changes", "message", "hint"),
    [
        (
            {"metric_list": [{"metric": "own", "aggregation": "mean"}]},
            "which way facts.own,none is better",
            "higher_is_better",
        ),
        ({"metric_list": [{"metric": "nothing", "aggregation": "mean"}]}, "no metric 'nothing'", "metric_list"),
        ({"process_results": "!function nothing.score"}, "no metric that is a number", "such a metric"),
        ({"output_type": "generates"}, "invalid output_type", "YAML"),
        ({"doc_to_text": "{{question"}, "lm-eval cannot load it", "YAML"),
        ({"dataset_kwargs": {"data_files": {"test": "absent.jsonl"}}}, "absent.jsonl", "begin at the working folder"),
        ({"dataset_path": "nobody/nothing", "dataset_kwargs": None}, "offline mode is on", "HF_HUB_OFFLINE"),
        ({"unsafe_code": True}, "runs code that the model wrote", "confirm_run_unsafe_code"),
        ({"doc_to_image": ["question"]}, "pictures", "texts"),
        ({"process_results": "!function absent.score"}, "absent", ""),
        (
            {"process_results": "!function broken.score"},
            "a trial answer cannot be scored .ZeroDivisionError",
            "functions",
        ),
    ],
)
def test_what_cannot_be_measured_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str, hint: str
) -> None:
    monkeypatch.setitem(sys.modules, "evaluate", None)  # which would look for metrics on the hub, several times
    (folder / "broken.py").write_text("def score(doc, results):\n    return 1 / 0\n")
    (folder / "nothing.py").write_text("def score(doc, results):\n    return {}\n")
    (folder / "own.py").write_text("def score(doc, results):\n    return {'own': 1.0}\n")
    if "own" in str(changes.get("metric_list")):
        changes = {**changes, "process_results": "!function own.score"}
    changes = {
        key: str(own).replace("!function ", "function:") if "!function" in str(own) else own
        for key, own in changes.items()
    }
    with pytest.raises(RsoupError, match=message) as refusal:
        load(change(folder / "facts.yaml", **changes))
    assert hint in refusal.value.hint
    assert "\n" not in refusal.value.message


def test_code_that_the_model_wrote_may_be_run_if_that_is_confirmed(folder: Path) -> None:
    change(folder / "facts.yaml", unsafe_code=True)
    assert "facts" in load(folder / "facts.yaml", confirm_run_unsafe_code=True)


def test_code_of_an_unsafe_task_has_not_run_when_it_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "scoring.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n" + (folder / "scoring.py").read_text())
    change(folder / "words.yaml", unsafe_code=True)
    with pytest.raises(RsoupError, match="runs code that the model wrote"):
        load(folder)
    assert not (tmp_path / "ran").exists()


def test_a_package_that_a_task_needs_is_named(folder: Path) -> None:
    (folder / "scoring.py").write_text("import a_package_that_is_not_there\n")
    with pytest.raises(MissingPackageError, match="a_package_that_is_not_there") as refusal:
        load(folder / "words.yaml")
    assert "pip install a_package_that_is_not_there" in refusal.value.hint


def test_tasks_that_generate_more_than_the_context_has_are_refused() -> None:
    with pytest.raises(RsoupError, match="words generates up to 6 tokens, and the base's context has 6") as refusal:
        load(WORDS, context=6)
    assert "max_gen_toks" in refusal.value.hint
    assert load(WORDS, context=6, gen_kwargs={"max_gen_toks": 4})


def test_the_same_task_twice_and_a_template_that_is_not_there_are_refused() -> None:
    with pytest.raises(RsoupError, match="texts is there twice"):
        load(TEXTS, FOLDER)
    with pytest.raises(RsoupError, match="no chat template"):
        load(FACTS, apply_chat_template=True)


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("arc_easy", "the data of arc_easy: is no folder here and not in the hub's cache", "HF_HUB_OFFLINE"),
        ("humaneval", "humaneval runs code that the model wrote", "confirm_run_unsafe_code"),
    ],
)
def test_tasks_of_lm_eval_are_found_by_name(name: str, message: str, hint: str) -> None:
    with pytest.raises(RsoupError, match=message) as refusal:
        load(name)
    assert hint in refusal.value.hint


def test_a_group_that_holds_itself_is_looked_through_once(folder: Path) -> None:
    path = folder / "round.yaml"
    path.write_text(yaml.safe_dump({"group": "round", "task": ["facts", "round"]}))
    assert [own.get("group", own["task"]) for own in find(str(path)).definitions()] == ["round", "facts"]
