"""The results and samples files: what is written comes back, and nothing else is read."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rsoup.errors import ResultsError
from rsoup.evaluation.results import (
    Adapter,
    Base,
    Generation,
    Point,
    PointSamples,
    Prompts,
    Results,
    Samples,
    read_results,
    read_samples,
    summarise,
    write_results,
)


def example() -> tuple[Results, Samples]:
    """Return results of the base and one expert on three prompts."""
    points = {
        "base": PointSamples(
            completions=("a", "b <i>", "c\nd"),
            scores={"positive": np.array([0.1, 0.2, 0.6]), "faithful": np.array([1.0, 2.0, 3.0])},
            tokens=np.array([1, 2, 3], dtype=np.int32),
            ended_by_eos=np.array([True, False, True]),
        ),
        "positive": PointSamples(
            completions=("x", "", "z"),
            scores={"positive": np.array([0.9, 0.7, 0.8]), "faithful": np.array([0.0, 1.0, -1.0])},
            tokens=np.array([4, 0, 5], dtype=np.int32),
            ended_by_eos=np.array([True, True, True]),
        ),
    }
    results = Results(
        recipe=None,
        task="reviews",
        seed=0,
        base_model=Base(name="tiny", sha256=None),
        generation=Generation(max_new_tokens=24, temperature=0.0, dtype="float32"),
        prompts=Prompts(count=3, sha256="ab", split="test"),
        rewards=("positive", "faithful"),
        adapters={"positive": Adapter(path="adapters/positive", sha256="cd", kind="expert")},
        method="factors",
        points=(
            Point(
                id="base", kind="base", weights={}, lam=None, scores=points["base"].summary(), extras={"tokens": 2.0}
            ),
            Point(
                id="positive", kind="expert", weights={"positive": 1.0}, lam=0.0, scores=points["positive"].summary()
            ),
        ),
    )
    columns = {
        "topic": ["tea", None, "tin"],
        "stars": [1, 2, None],
        "price": [1, 2.5, None],
        "mixed": ["1", 2, [3]],
        "prompt": [{"a": 1}, None, {"b": [True]}],
        "nothing": [None, None, None],
    }
    return results, Samples(("p0", "p1", "p2"), ("one", "two", "three"), points, columns)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    results, samples = example()
    write_results(tmp_path / "results.json", results, samples)
    return tmp_path / "results.json"


def edit(path: Path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def edit_samples(path: Path, change) -> None:
    file = path.parent / "samples.parquet"
    pq.write_table(change(pq.read_table(file)), file)


def test_what_is_written_comes_back(path):
    results, samples = example()
    read = read_results(path)
    assert read == results
    assert read_results(path.parent) == results  # the folder stands for its file
    path.parent.rename(path.parent.with_name("eval"))
    assert read_results(path.parent.parent) == results  # and so does the folder of the run
    path.parent.with_name("eval").rename(path.parent)
    back = read_samples(path, read)
    assert (back.prompt_ids, back.prompts) == (samples.prompt_ids, samples.prompts)
    for name, point in samples.points.items():
        assert back.points[name].completions == point.completions
        assert back.points[name].scores["faithful"].tolist() == point.scores["faithful"].tolist()
        assert back.points[name].tokens.tolist() == point.tokens.tolist()
        assert back.points[name].ended_by_eos.tolist() == point.ended_by_eos.tolist()


def test_columns_of_the_data_come_back_beside_everything_else(path):
    """A column has one type, else its values are texts; its name cannot be taken for one of the file's own."""
    assert read_samples(path, read_results(path)).columns == {
        "topic": ["tea", None, "tin"],
        "stars": [1, 2, None],
        "price": [1.0, 2.5, None],
        "mixed": ["1", "2", "[3]"],
        "prompt": ['{"a": 1}', None, '{"b": [true]}'],
        "nothing": [None, None, None],
    }
    file = pq.read_table(path.parent / "samples.parquet")
    assert file.column("prompt").to_pylist() == ["one", "two", "three"] * 2
    assert file.column("column:topic").to_pylist() == ["tea", None, "tin"] * 2


def test_a_file_without_columns_is_read(path):
    edit_samples(path, lambda file: file.drop([name for name in file.column_names if name.startswith("column:")]))
    assert read_samples(path, read_results(path)).columns == {}


def test_the_file_says_lambda_and_schema(path):
    content = json.loads(path.read_text())
    assert content["schema"] == 1
    assert content["points"][1]["lambda"] == 0.0
    assert content["points"][0]["scores"]["positive"] == {
        "mean": pytest.approx(0.3),
        "stderr": pytest.approx(0.1527525),
        "n": 3,
    }


def test_samples_have_one_row_for_each_point_and_prompt(path):
    table = pq.read_table(path.parent / "samples.parquet")
    assert table.num_rows == 6
    assert table.column_names[:9] == [
        "point", "prompt_id", "prompt", "sample", "completion", "score:positive", "score:faithful", "tokens",
        "ended_by_eos",
    ]  # fmt: skip


def test_rows_in_another_order_are_put_right(path):
    results, samples = example()
    edit_samples(path, lambda table: table.take([5, 2, 1, 0, 4, 3]))
    back = read_samples(path, results)
    order = [samples.prompt_ids.index(name) for name in back.prompt_ids]
    assert back.points["positive"].completions == tuple(samples.points["positive"].completions[row] for row in order)


def test_one_score_has_no_standard_error():
    score = summarise(np.array([0.5]))
    assert (score.mean, score.stderr, score.n) == (0.5, None, 1)


def test_standard_error_by_hand():
    assert summarise(np.array([1.0, 2.0, 3.0])).stderr == pytest.approx(1 / math.sqrt(3))


def point(content: dict, number: int = 1) -> dict:
    return content["points"][number]


REFUSED = {
    "another schema": (lambda c: c.update(schema=2), "schema 2"),
    "no schema": (lambda c: c.pop("schema"), "no schema number"),
    "missing reward": (
        lambda c: point(c)["scores"].pop("faithful"),
        "point 'positive': the reward 'faithful' is missing",
    ),
    "unknown reward": (lambda c: point(c)["scores"].update(x=point(c)["scores"]["faithful"]), "the reward 'x'"),
    "text for a number": (lambda c: point(c)["scores"]["faithful"].update(mean="0.1"), "scores.faithful.mean"),
    "true for a number": (lambda c: point(c)["scores"]["faithful"].update(mean=True), "scores.faithful.mean"),
    "NaN": (lambda c: point(c)["scores"]["faithful"].update(mean=math.nan), "scores.faithful.mean"),
    "infinity": (lambda c: point(c)["scores"]["faithful"].update(stderr=math.inf), "scores.faithful.stderr"),
    "negative error": (lambda c: point(c)["scores"]["faithful"].update(stderr=-1.0), "scores.faithful.stderr"),
    "no scores behind it": (lambda c: point(c)["scores"]["faithful"].update(n=0), "scores.faithful.n"),
    "unknown key": (lambda c: c.update(weather="fine"), "weather"),
    "missing key": (lambda c: c.pop("seed"), "seed"),
    "unknown kind": (lambda c: point(c).update(kind="stew"), "kind"),
    "twice the same id": (lambda c: point(c).update(id="base"), "points: 'base' is there twice"),
    "weight of no adapter": (lambda c: point(c).update(weights={"other": 1.0}), "the weight 'other'"),
    "soup of nothing": (lambda c: point(c).update(weights={}), "kind 'expert' has no weights"),
    "no points": (lambda c: c.update(points=[]), "points"),
    "samples elsewhere": (lambda c: c.update(samples="../secret.parquet"), "samples: '../secret.parquet'"),
    "points of another type": (lambda c: c.update(points=["base"]), "point 0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_results_that_do_not_hold_together_are_refused(path, case):
    change, words = REFUSED[case]
    edit(path, change)
    with pytest.raises(ResultsError) as refusal:
        read_results(path)
    assert str(path) in refusal.value.message
    assert words in refusal.value.message
    assert refusal.value.hint


def test_every_cut_of_the_results_is_refused(path):
    text = path.read_bytes().rstrip()
    for length in range(0, len(text), 37):
        path.write_bytes(text[:length])
        with pytest.raises(ResultsError, match=r"results\.json"):
            read_results(path)


@pytest.mark.parametrize("content", ["[]", "3", "null", '"text"', "\xff\xfe"])
def test_other_json_is_refused(path, content):
    path.write_text(content, encoding="latin-1")
    with pytest.raises(ResultsError):
        read_results(path)


def replaced(table: pa.Table, name: str, values: list, kind: pa.DataType) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, pa.array(values, kind))


WRONG_SAMPLES = {
    "a column is missing": (lambda t: t.drop_columns(["score:faithful"]), "'score:faithful' is missing"),
    "scores are text": (
        lambda t: replaced(t, "score:faithful", ["1"] * 6, pa.string()),
        "'score:faithful' holds string",
    ),
    "a cell is empty": (lambda t: replaced(t, "completion", [None] * 6, pa.string()), "'completion' has empty cells"),
    "a score is NaN": (lambda t: replaced(t, "score:positive", [math.nan] * 6, pa.float64()), "is nan, not a number"),
    "the means are others": (lambda t: replaced(t, "score:positive", [0.5] * 6, pa.float64()), "have the mean 0.5"),
    "a row is missing": (lambda t: t.slice(0, 5), "'positive' does not complete the same prompts"),
    "a point is missing": (lambda t: t.slice(0, 3), "'positive' does not complete the same prompts"),
    "a point is too many": (lambda t: replaced(t, "point", ["base"] * 3 + ["soup"] * 3, pa.string()), "'soup'"),
    "a prompt is there twice": (lambda t: replaced(t, "prompt_id", ["p0"] * 6, pa.string()), "same prompts"),
}


@pytest.mark.parametrize("case", WRONG_SAMPLES)
def test_samples_that_do_not_fit_the_results_are_refused(path, case):
    change, words = WRONG_SAMPLES[case]
    edit_samples(path, change)
    with pytest.raises(ResultsError) as refusal:
        read_samples(path, read_results(path))
    assert "samples.parquet" in refusal.value.message
    assert words in refusal.value.message


def test_a_changed_byte_of_a_samples_files_values_changes_nothing_that_is_read(path):
    file, results = path.parent / "samples.parquet", read_results(path)
    whole = file.read_bytes()
    names = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")  # where the description of the columns begins
    known, refused = repr(read_samples(path, results)), 0
    for at in range(4, names, 17):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        try:
            assert repr(read_samples(path, results)) == known
        except ResultsError:
            refused += 1
    assert refused > 20


def test_more_samples_than_any_file_holds_are_refused_at_once(path):
    edit(path, lambda content: content["generation"].update(samples_per_prompt=1 << 40))
    with pytest.raises(ResultsError, match="does not complete the same prompts"):
        read_samples(path, read_results(path))


def test_a_cut_samples_file_is_refused(path):
    file = path.parent / "samples.parquet"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(ResultsError, match="not a whole parquet file"):
        read_samples(path, read_results(path))


def test_missing_files_are_named(path):
    results = read_results(path)
    (path.parent / "samples.parquet").unlink()
    with pytest.raises(ResultsError, match=r"samples\.parquet: the samples of the results are missing"):
        read_samples(path, results)
    with pytest.raises(ResultsError, match="nowhere"):
        read_results(path.parent / "nowhere.json")


def test_results_that_disagree_with_their_samples_are_not_written(tmp_path):
    results, samples = example()
    wrong = samples.points["base"].scores | {"positive": np.array([0.0, 0.0, 0.0])}
    base = PointSamples(("a", "b", "c"), wrong, samples.points["base"].tokens, samples.points["base"].ended_by_eos)
    with pytest.raises(ResultsError, match="have the mean 0, the results say"):
        write_results(
            tmp_path / "results.json",
            results,
            Samples(samples.prompt_ids, samples.prompts, {**samples.points, "base": base}),
        )
    assert list(tmp_path.iterdir()) == []
