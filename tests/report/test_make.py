"""A whole report: what it says about invented results, what it writes, what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mixing.making import make_adapter, update_of
from rsoup import mixing
from rsoup.errors import ResultsError
from rsoup.evaluation.results import read_results, read_samples
from rsoup.report import Options, Report, make_report

from .synthetic import write_line, write_triangle


@pytest.fixture(scope="module")
def line(tmp_path_factory) -> tuple[Report, Path, Path]:
    folder = tmp_path_factory.mktemp("line")
    path = write_line(folder)
    options = Options.from_flags(prefer=["positive=0.6,faithful=0.4"], at_least=["faithful=0.4"], knee=True)
    return make_report([path], folder / "report", options), folder / "report", path


def test_every_promised_file_is_there(line):
    _, folder, _ = line
    stems = [f"{stem}.{suffix}" for stem in ("front", "lambda") for suffix in ("pdf", "png", "svg")]
    assert sorted(path.name for path in folder.iterdir()) == sorted([*stems, "index.html", "pareto.json"])


def test_the_file_is_the_report(line):
    report, folder, _ = line
    content = json.loads((folder / "pareto.json").read_text())
    assert {"points", "front", "hypervolume", "lmc", "preferences"} <= content.keys()
    assert content == report.model_dump(mode="json", by_alias=True)
    assert content["points"][1]["lambda"] == 0.0
    assert content["front"] == [point["id"] for point in content["points"] if point["on_front"]]
    assert content["hypervolume"]["soup"]["reference_point"] == pytest.approx({"positive": 0.284, "faithful": 0.179})


def test_means_are_those_of_the_results(line):
    report, _, path = line
    for point in read_results(path).points:
        for name, score in point.scores.items():
            own = report.point(point.id).scores[name]
            assert (own.mean, own.stderr, own.n) == (pytest.approx(score.mean), pytest.approx(score.stderr), score.n)
            assert own.interval[0] < own.mean < own.interval[1]


def test_gaps_are_paired_by_prompt(line):
    report, _, path = line
    samples = read_samples(path, read_results(path))
    score = {name: own.scores["faithful"] for name, own in samples.points.items()}
    single = score["soup-0.60-0.40"] - (0.6 * score["positive"] + 0.4 * score["faithful"])
    gap = next(gap for gap in report.lmc["faithful"].gaps if gap.id == "soup-0.60-0.40")
    assert gap.gap == pytest.approx(single.mean())
    assert gap.stderr == pytest.approx(single.std(ddof=1) / np.sqrt(64))


def test_verdicts_weigh_the_error(line):
    report, _, _ = line
    # 0.0488 below the line with a standard error of about as much is no proof
    minimum = report.lmc["faithful"].minimum
    assert (minimum.id, minimum.gap) == ("soup-0.80-0.20", pytest.approx(0.200 - (0.8 * 0.179 + 0.2 * 0.528)))
    assert report.hypotheses["lmc"].verdict == "holds within error"
    assert report.hypotheses["coverage"].verdict == "holds"


def test_with_little_noise_the_same_gap_is_a_violation(tmp_path):
    path = write_line(tmp_path, spread=0.02)
    report = make_report([path], tmp_path / "report", Options(draws=200))
    assert report.lmc["faithful"].minimum.exceeds_stderr
    assert report.hypotheses["lmc"].verdict == "fails"


def test_membership_of_the_front_is_a_probability(line):
    report, _, _ = line
    assert all(0 <= point.front_probability <= 1 for point in report.points)
    assert report.point("base").front_probability < 0.05
    assert report.point("positive").front_probability > 0.9


def test_choices_come_with_the_command_that_makes_them(line):
    report, _, _ = line
    by_rule = {choice.rule: choice for choice in report.choices}
    assert by_rule["lambda = mu"].command == (
        "rsoup mix runs/quickstart/adapters/positive runs/quickstart/adapters/faithful -w 0.6 -w 0.4 "
        "--method factors -o soup-0.60-0.40"
    )
    assert by_rule["lambda = mu"].lam == 0.4
    assert by_rule["at least"].nearest == "soup-0.40-0.60"  # the most positive of those above 0.4
    assert by_rule["at least"].probability > 0.5
    assert by_rule["validation"].regret.value >= 0


def test_a_preference_between_measured_soups_keeps_its_weights(tmp_path):
    options = Options(prefer=({"positive": 0.53, "faithful": 0.47},), draws=200)
    choice = make_report([write_line(tmp_path)], tmp_path / "report", options).choices[1]
    assert choice.weights == {"positive": 0.53, "faithful": 0.47}
    assert choice.lam == 0.47
    assert choice.nearest == "soup-0.60-0.40"
    assert "nearest measured soup" in choice.words
    assert "-w 0.53 -w 0.47" in choice.command


def test_regret_is_judged_on_prompts_not_used_to_choose(line):
    report, _, path = line
    samples = read_samples(path, read_results(path))
    value = {name: 0.6 * own.scores["positive"] + 0.4 * own.scores["faithful"] for name, own in samples.points.items()}
    order = np.random.default_rng(0).permutation(64)
    judged = {name: own[order[32:]].mean() for name, own in value.items() if name not in ("base", "morl-0.50-0.50")}
    choice = next(choice for choice in report.choices if choice.rule == "lambda = mu")
    assert choice.regret.value == pytest.approx(max(judged.values()) - judged["soup-0.60-0.40"])


def test_the_preferences_name_the_best_point(line):
    report, _, _ = line
    for preference in report.preferences:
        value = {
            point.id: sum(preference.mu[name] * score.mean for name, score in point.scores.items())
            for point in report.points
            if point.kind in ("soup", "expert")
        }
        assert value[preference.id] == max(value.values())


def test_three_rewards_have_their_own_pictures(tmp_path):
    report = make_report([write_triangle(tmp_path, prompts=10)], tmp_path / "report", Options(draws=100))
    names = {path.name for path in (tmp_path / "report").iterdir()}
    assert {"front.svg", "radar.svg", "ternary.svg"} <= names
    assert "lambda.svg" not in names
    assert set(report.lmc) == {"positive", "faithful", "brief"}
    assert len(report.lmc["brief"].gaps) == 15


def test_seeds_are_a_level_of_the_bootstrap(tmp_path):
    paths = [write_line(tmp_path / str(seed), seed=seed, spread=0.01) for seed in range(3)]
    pooled = make_report(paths, tmp_path / "pooled", Options(draws=200))
    alone = make_report(paths[:1], tmp_path / "alone", Options(draws=200))
    assert pooled.bootstrap.seeds == 3
    # the seeds differ by far more than the prompts here
    assert pooled.point("positive").scores["faithful"].stderr > 3 * alone.point("positive").scores["faithful"].stderr
    assert any("3 seeds" in note for note in pooled.notes)
    assert any("not the training seed" in note for note in alone.notes)


def test_a_single_reward_has_a_report_too(tmp_path):
    path = tmp_path / "points.csv"
    path.write_text("kind,lambda,positive\nbase,,0.2\nsoup,0.0,0.5\nsoup,0.5,0.8\nsoup,1.0,0.6\n")
    report = make_report([path], tmp_path / "report", Options())
    assert report.hypervolume["soup"].value == pytest.approx(0.8 - 0.2)
    written = {file.name for file in (tmp_path / "report").iterdir()}
    assert written == {"index.html", "pareto.json", "lambda.png", "lambda.svg", "lambda.pdf"}


def test_the_same_input_gives_the_same_files(tmp_path):
    path = write_line(tmp_path, prompts=8)
    for name in ("one", "two"):
        make_report([path], tmp_path / name, Options(draws=100))
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes(), file.name


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"prefer": ["positive=0.6,faithful=0.3"]}, "sum to 0.9"),
        ({"prefer": ["positive=1.6,faithful=-0.6"]}, "one is negative"),
        ({"prefer": ["positve=1"]}, "'positve' is no reward"),
        ({"at_least": ["faithful=0.9"]}, "reaches faithful >= 0.9; the nearest point, faithful, has faithful 0.528"),
        ({"at_least": ["positive=0.8,faithful=0.5"]}, "soup-0.40-0.60, has positive 0.505, faithful"),
        ({"at_least": ["faithful=0.528000001"]}, "no soup reaches faithful >= 0.528000001; "),
        ({"reference": ["positive=0"]}, "says nothing of 'faithful'"),
        ({"reference": ["positive=x"]}, "'x' is not a number"),
        ({"reference": ["positive"]}, "is not NAME=VALUE"),
        ({"reference": ["positive=1,positive=2"]}, "given twice"),
        ({"bootstrap": 3}, "too few draws"),
        ({"where": ["kind=soup", "kind=base"]}, "--where: 'kind' is given twice"),
    ],
)
def test_a_refused_wish_writes_nothing(tmp_path, flags, words):
    path = write_line(tmp_path, prompts=4)
    with pytest.raises(ResultsError) as refusal:
        make_report([path], tmp_path / "report", Options.from_flags(**flags))
    assert words in refusal.value.message
    assert not (tmp_path / "report").exists()


def test_a_report_of_other_points_leaves_no_picture_of_the_one_before(tmp_path):
    make_report([write_triangle(tmp_path / "3", prompts=4)], tmp_path / "report", Options(draws=100))
    (tmp_path / "report/notes.txt").write_text("mine")
    make_report([write_line(tmp_path / "2", prompts=4)], tmp_path / "report", Options(draws=100))
    stems = {path.stem for path in (tmp_path / "report").iterdir()}
    assert stems == {"front", "lambda", "index", "pareto", "notes"}


def test_a_report_is_not_put_among_the_files_of_a_model(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    with pytest.raises(ResultsError, match=r"is the folder of a model or an adapter \(config.json\)"):
        make_report([write_line(tmp_path / "2", prompts=4)], tmp_path / "model", Options(draws=100))
    assert [file.name for file in (tmp_path / "model").iterdir()] == ["config.json"]


def test_a_page_that_is_no_report_is_not_written_over(tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site/index.html").write_text("mine")
    with pytest.raises(ResultsError, match="is there, and no report's"):
        make_report([write_line(tmp_path, prompts=4)], tmp_path / "site", Options(draws=100))
    assert [path.read_text() for path in (tmp_path / "site").iterdir()] == ["mine"]


def test_a_report_that_cannot_be_written_leaves_nothing_half(tmp_path):
    (tmp_path / "report/index.html").mkdir(parents=True)
    (tmp_path / "report/pareto.json").write_text("{}")
    with pytest.raises(ResultsError, match="cannot be written"):
        make_report([write_line(tmp_path, prompts=4)], tmp_path / "report", Options(draws=100))
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == ["index.html", "pareto.json"]


def test_a_picture_that_cannot_be_written_does_not_lock_the_folder(tmp_path):
    path = write_line(tmp_path, prompts=4)
    (tmp_path / "report/lambda.png").mkdir(parents=True)
    with pytest.raises(ResultsError, match="cannot be written"):
        make_report([path], tmp_path / "report", Options(draws=100))
    assert [path.name for path in (tmp_path / "report").iterdir()] == ["lambda.png"]
    (tmp_path / "report/lambda.png").rmdir()
    make_report([path], tmp_path / "report", Options(draws=100))
    assert not list((tmp_path / "report").glob(".*"))


def test_the_chosen_models_are_written_beside_the_report(tmp_path):
    for seed, name in enumerate("ab"):
        make_adapter(tmp_path / "eval" / name, seed)
    path = write_line(tmp_path, prompts=4)
    content = json.loads(path.read_text())
    for name, adapter in zip(("positive", "faithful"), "ab", strict=True):
        content["adapters"][name]["path"] = adapter
    path.write_text(json.dumps(content))
    options = Options(draws=100, prefer=({"positive": 0.3, "faithful": 0.7},), knee=True)
    report = make_report([path], tmp_path / "report", options, tmp_path / "models")
    assert {folder.name for folder in (tmp_path / "models").iterdir()} == {choice.folder for choice in report.choices}
    for choice in report.choices:
        ends = [mixing.read(tmp_path / "eval" / adapter) for adapter in "ab"]
        exact = mixing.mix(ends, [choice.weights["positive"], choice.weights["faithful"]]).adapter
        made = mixing.read(tmp_path / "models" / choice.folder)
        for module in exact.layers:
            np.testing.assert_array_equal(update_of(made, module), update_of(exact, module))


def test_an_export_that_is_refused_writes_no_report_either(tmp_path):
    with pytest.raises(ResultsError, match="--export: nothing is chosen"):
        make_report([write_line(tmp_path, prompts=4)], tmp_path / "report", Options(draws=100), tmp_path / "models")
    assert not (tmp_path / "report").exists()
    assert not (tmp_path / "models").exists()


def test_a_byte_order_mark_before_the_results_is_nothing(tmp_path):
    path = write_line(tmp_path, prompts=4)
    path.write_text(path.read_text(), encoding="utf-8-sig")
    assert make_report([path], tmp_path / "report", Options(draws=100)).rewards == ["positive", "faithful"]


def test_a_report_needs_no_torch():
    missing = ("torch", "transformers", "peft", "datasets", "accelerate", "trl", "tokenizers", "filelock", "gguf")
    code = f"import sys; sys.modules.update(dict.fromkeys({missing})); import rsoup.report, rsoup.mixing"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_many_points_stay_quick(tmp_path):
    path = write_triangle(tmp_path, prompts=50, steps=20)
    start = time.process_time()
    report = make_report([path], tmp_path / "report", Options(draws=500, knee=True))
    assert time.process_time() - start < 15  # 3 s on a quick machine, 6 on a slow one
    assert len(report.points) == 232
