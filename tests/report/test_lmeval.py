"""Results of lm-evaluation-harness, as it writes them, as points of a report."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rsoup.errors import ResultsError
from rsoup.report import Options
from rsoup.report.analysis import analyse
from rsoup.report.inputs import read_inputs
from rsoup.report.measured import Measured

BASE = "org/base"


def content(em: float, ppl: float, **changes: Any) -> dict[str, Any]:
    """Return what lm-eval 0.4.13 writes of a model, in short."""
    return {
        "results": {
            "gsm8k": {
                "alias": "gsm8k",
                "sample_len": 1319,
                "exact_match,strict-match": em,
                "exact_match_stderr,strict-match": 0.01,
                "exact_match,flexible-extract": em + 0.1,
                "exact_match_stderr,flexible-extract": 0.02,
            },
            "wikitext": {"alias": "wikitext", "word_perplexity,none": ppl, "word_perplexity_stderr,none": "N/A"},
        },
        "group_subtasks": {"gsm8k": [], "wikitext": []},
        "versions": {"gsm8k": 3.0, "wikitext": 2.0},
        "n-shot": {"gsm8k": 5, "wikitext": 0},
        "higher_is_better": {"gsm8k": {"exact_match": True}, "wikitext": {"word_perplexity": False}},
        "n-samples": {"gsm8k": {"original": 1319, "effective": 1319}},
        "config": {"model": "hf", "model_args": f"pretrained={BASE},dtype=float32"},
        "model_name": BASE,
        **changes,
    }


def write(folder: Path, model: str, date: str = "2026-11-25T10-00-00.123456", **own: Any) -> Path:
    path = folder / model.replace("/", "__") / f"results_{date}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content(**{"em": 0.5, "ppl": 20.0, "model_name": model, **own})))
    return path


@pytest.fixture
def evals(tmp_path) -> Path:
    """Three models in folders of their names: one is better at both tasks than another, one at each than the third."""
    for model, em, ppl in ((BASE, 0.5, 20.0), ("org/terse", 0.6, 18.0), ("org/wordy", 0.7, 25.0)):
        write(tmp_path / "evals", model, em=em, ppl=ppl, config={"model_args": {"pretrained": model}})
    return tmp_path / "evals"


def scores(measured: Measured) -> dict[str, list[float]]:
    return {model.id: row for model, row in zip(measured.models, measured.scores.tolist(), strict=True)}


def test_a_folder_that_lm_eval_wrote_is_a_set_of_models_in_the_directions_it_tells(evals):
    measured = read_inputs([evals], {}, {})
    assert measured.rewards == ("gsm8k", "wikitext")
    assert scores(measured) == {"base": [0.5, 20.0], "terse": [0.6, 18.0], "wordy": [0.7, 25.0]}
    assert measured.minimized == {"wikitext"}
    assert measured.stderr is not None
    assert measured.stderr[:, 0].tolist() == [0.01] * 3
    report = analyse(measured, Options(draws=100, prefer=({"gsm8k": 1.0},)))
    assert report.front == ["terse", "wordy"]
    assert {point.kind for point in report.points} == {"model"}
    assert report.point("base").scores["wikitext"].stderr is None
    assert report.choices[0].nearest == "wordy"
    assert report.choices[0].words.startswith("Best measured model")
    told = "gsm8k counts by exact_match,strict-match, not by exact_match,flexible-extract"
    assert any(told in note for note in report.notes)


def test_objectives_name_metrics_in_full_or_as_short_as_is_clear(evals):
    measured = read_inputs(
        [evals], {"em": "gsm8k.exact_match,flexible-extract", "ppl": "wikitext", "p": "wikitext.word_perplexity"}, {}
    )
    assert scores(measured)["base"] == [0.6, 20.0, 20.0]
    assert measured.minimized == {"ppl", "p"}
    opposite = read_inputs([evals], {"fluent": "-wikitext", "em": "gsm8k.exact_match,strict-match"}, {})
    assert opposite.minimized == frozenset()
    assert scores(opposite)["base"] == [-20.0, 0.5]


@pytest.mark.parametrize("expression", ["gsm8k", "gsm8k.exact_match"])
def test_a_metric_after_several_filters_is_asked_for_in_full(evals, expression):
    with pytest.raises(ResultsError, match=r"may be gsm8k\.exact_match,strict-match, gsm8k\.exact_match,flex"):
        read_inputs([evals], {"em": expression}, {})


def test_files_without_directions_follow_lm_evals_own_and_say_what_is_guessed(tmp_path):
    """The shortest file: no model's name, no directions, no settings."""
    results = {"gsm8k": {"exact_match,strict-match": 0.5}, "wikitext": {"bits_per_byte,none": 0.9}}
    for name in ("a", "b"):
        (tmp_path / f"{name}.json").write_text(json.dumps({"results": results, "config": {"model": "hf"}}))
    for given in ([tmp_path], [tmp_path / "a.json", tmp_path / "b.json"]):
        measured = read_inputs(given, {}, {})
        assert [model.id for model in measured.models] == ["a", "b"]
        assert measured.minimized == {"wikitext"}
        assert measured.stderr is None
        told = "The files do not say which way these are better, so higher counts: gsm8k; --minimize NAME says"
        assert any(note.startswith(told) for note in measured.notes)
    assert "so higher counts" not in " ".join(read_inputs([tmp_path], {}, {}, ["gsm8k"]).notes)


def test_a_group_counts_for_its_tasks_and_tasks_that_some_models_lack_are_left_out(tmp_path):
    group = {"mmlu": {"alias": "mmlu", "acc,none": 0.4, "acc_stderr,none": 0.01}}
    parts = {"mmlu_a": {"acc,none": 0.3}, "mmlu_b": {"acc,none": 0.5}, "odd": {"acc,none": 0.5}}
    own = {"groups": group, "group_subtasks": {"mmlu": ["mmlu_stem"], "mmlu_stem": ["mmlu_a", "mmlu_b"]}}
    write(tmp_path, "m1", results={**group, **parts}, **own)
    del parts["odd"]
    write(tmp_path, "m2", results=parts, **own)
    measured = read_inputs([tmp_path], {}, {})
    assert measured.rewards == ("mmlu",)
    assert "Left out, as not every model has them: odd." in measured.notes


def test_tasks_measured_one_after_another_unite_and_the_later_measurement_counts(tmp_path):
    write(tmp_path, "m", "2026-01-01T00-00-00", em=0.1)
    rest = {"hellaswag": {"acc,none": 0.6}}
    write(tmp_path, "m", "2026-01-02T00-00-00", results={**rest, "gsm8k": {"exact_match,strict-match": 0.2}})
    measured = read_inputs([tmp_path], {}, {})
    assert measured.rewards == ("gsm8k", "wikitext", "hellaswag")
    assert measured.scores.tolist() == [[0.2, 20.0, 0.6]]
    assert any("gsm8k of m is that of results_2026-01-02" in note for note in measured.notes)
    assert len(measured.sources) == 2


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "shots": ({"n-shot": {"gsm8k": 0}}, "the number of shots of gsm8k is 0, that of .* is 5"),
    "version": ({"versions": {"gsm8k": 2.0}}, "the version of gsm8k is 2.0"),
    "limit": ({"n-samples": {"gsm8k": {"effective": 10}}}, "the number of samples of gsm8k is 10"),
    "direction": ({"higher_is_better": {"wikitext": {"word_perplexity": True}}}, "do not agree which way wikitext"),
    "nothing": ({"results": {"gsm8k": {"alias": "gsm8k"}}}, "holds no metric"),
    "nan": ({"em": float("nan")}, "gsm8k.exact_match,strict-match is nan, no score"),
    "filter": ({"results": {"gsm8k": {"exact_match,none": 0.5}}}, "has no gsm8k.exact_match,strict-match, which"),
    "task": ({"results": {"arc": {"acc,none": 0.5}}}, "shares no task with all other models"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_models_that_were_not_measured_alike_are_refused(tmp_path, case):
    change, words = CHANGES[case]
    write(tmp_path, "a")
    write(tmp_path, "b", **change)
    with pytest.raises(ResultsError, match=words):
        read_inputs([tmp_path], {}, {})


def test_a_broken_file_in_a_folder_is_not_passed_over(evals):
    (evals / "org__base" / "results_2026-12-01.json").write_text('{"results": {')
    with pytest.raises(ResultsError, match=r"results_2026-12-01\.json: is no results file of lm-eval"):
        read_inputs([evals], {}, {})


def test_other_inputs_do_not_stand_beside_results_of_lm_eval(evals, tmp_path):
    (tmp_path / "log.txt").write_text("results[ 0.0 ] = [{'a': 1, 'n': 'm'}]")
    with pytest.raises(ResultsError, match=r"is a result of lm-eval, and .*log\.txt is none"):
        read_inputs([evals, tmp_path / "log.txt"], {}, {})
    with pytest.raises(ResultsError, match="--where chooses rows of a CSV, and there are results of lm-eval"):
        read_inputs([evals], {}, {"kind": "soup"})
    with pytest.raises(ResultsError, match="one CSV says what the models of lm-eval are"):
        read_inputs([evals, tmp_path / "a.csv", tmp_path / "b.csv"], {}, {})


def adapters(folder: Path) -> list[Path]:
    """Write the provenance of two experts, a soup of them and a baseline, as rsoup does."""
    about: dict[str, dict[str, Any]] = {
        "good": {"kind": "expert", "name": "good"},
        "kind": {"kind": "expert", "name": "kind"},
        "morl-0.50-0.50": {"kind": "morl", "name": "morl-0.50-0.50"},
    }
    parents = [{"name": name, "path": str(folder / name), "weight": 0.5} for name in ("good", "kind")]
    about["soup"] = {"kind": "soup", "name": "soup", "parents": parents}
    for name, told in about.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "rsoup.json").write_text(json.dumps({"schema": 1, **told}))
    return [folder / name for name in about]


def test_adapters_of_rsoup_say_what_they_are_and_their_mixes_are_judged(tmp_path):
    write(tmp_path / "evals", BASE)
    for em, folder in zip((0.6, 0.2, 0.3, 0.5), adapters(tmp_path / "run"), strict=True):
        write(tmp_path / "evals", str(folder), em=em, config={"model_args": f"pretrained={BASE},peft={folder}"})
    measured = read_inputs([tmp_path / "evals"], {"em": "gsm8k.exact_match,strict-match"}, {})
    kinds = {model.id: model.kind for model in measured.models}
    assert kinds == {"base": "base", "good": "expert", "kind": "expert", "morl-0.50-0.50": "morl", "soup": "soup"}
    assert {model.id: model.lam for model in measured.models if model.lam is not None} == {
        "good": 0.0, "soup": 0.5, "kind": 1.0,
    }  # fmt: skip
    report = analyse(measured, Options(draws=100))
    assert report.lmc["em"].minimum is not None
    assert report.lmc["em"].minimum.gap == pytest.approx(0.5 - (0.6 + 0.2) / 2)
    assert measured.adapters["kind"] == str(tmp_path / "run" / "kind")


def test_a_csv_beside_them_says_what_models_are(evals, tmp_path):
    hints = tmp_path / "models.csv"
    hints.write_text("id,kind,weight:terse,weight:wordy\nbase,soup,0.5,0.5\nterse,expert,1,0\nwordy,expert,0,1\n")
    measured = read_inputs([evals, hints], {}, {})
    assert [model.kind for model in measured.models] == ["soup", "expert", "expert"]
    report = analyse(measured, Options(draws=100))
    assert report.lmc["wikitext"].verdict == "holds"  # 20 against (18 + 25) / 2, where lower is better
    assert report.lmc["gsm8k"].verdict == "fails"  # 0.5 against 0.65
    hints.write_text("id,kind\nbse,base\n")
    with pytest.raises(ResultsError, match="row 2: there is no model 'bse'") as refusal:
        read_inputs([evals, hints], {}, {})
    assert "base" in refusal.value.hint
    hints.write_text("kind,lambda\nbase,\n")
    with pytest.raises(ResultsError, match="says what each model is"):
        read_inputs([evals, hints], {}, {})


ODD: tuple[Any, ...] = (None, True, -1, 1e300, float("nan"), "", "N/A", [], ["a"], [[1]], {}, {"a": 1})


def places(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the place of everything in nested dictionaries."""
    for key, own in value.items() if isinstance(value, dict) else ():
        yield (*path, key)
        yield from places(own, (*path, key))


def test_a_file_with_one_value_changed_is_read_or_refused_in_words(tmp_path):
    groups = {"all": {"acc,none": 0.5, "acc_stderr,none": 0.1}}
    whole = content(0.5, 20.0, groups=groups, group_subtasks={"all": ["gsm8k"], "gsm8k": []}, date=1.0)
    write(tmp_path, "other", groups=groups)
    path = write(tmp_path, BASE)
    for place in places(whole):
        for odd in ODD:
            changed = json.loads(json.dumps(whole))
            inner = changed
            for key in place[:-1]:
                inner = inner[key]
            inner[place[-1]] = odd
            path.write_text(json.dumps(changed))
            with suppress(ResultsError):
                measured = read_inputs([tmp_path], {}, {})
                assert np.isfinite(measured.scores).all()


@pytest.mark.parametrize(
    "odd", ['{"kind": "soup", "parents": [{"name": "a", "weight": "x"}]}', "[]", "{", '{"kind": 3}']
)
def test_a_provenance_that_says_nothing_leaves_a_model_a_model(tmp_path, odd):
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "rsoup.json").write_text(odd)
    write(tmp_path / "evals", "adapter", config={"model_args": f"pretrained={BASE},peft={folder}"})
    assert [model.kind for model in read_inputs([tmp_path / "evals"], {}, {}).models] == ["model"]


@pytest.mark.parametrize("error", [float("inf"), 10**400, -0.1])
def test_a_standard_error_that_is_none_is_refused(tmp_path, error):
    results = {"gsm8k": {"exact_match,none": 0.5, "exact_match_stderr,none": error}}
    for name in ("a", "b"):
        write(tmp_path, name, results=results)
    with pytest.raises(ResultsError, match="the standard error of"):
        read_inputs([tmp_path], {}, {})
