"""The pictures: everything lies on the paper, labels keep clear, names of any kind are written."""

from __future__ import annotations

import warnings
import xml.etree.ElementTree as ET
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text

from rsoup.report import Options, Report, make_report
from rsoup.report.analysis import analyse
from rsoup.report.inputs import read_inputs
from rsoup.report.pictures import along, front, polygons, style
from rsoup.report.pictures.lettering import ELLIPSIS, printable, shortened, wrapped

from .synthetic import write_line, write_triangle

KINDS = ("base", "morl", "ensemble", "mod", "checkpoint")
LONG = "OpenAssistant/oasst-rm-2.1-pythia-1.4b-epoch-2.5/harmlessness"
NAMES = {
    "short": ("positive", "faithful"),
    "long": ("reward_model_deberta_v3_large_helpfulness_v2_normalized", LONG),
    "300 signs": ("first reward about help " * 13, "X" * 300),
    "scripts": ("礼貌的模型", "צדק <b>x</b> 👍"),
    "control": ("a\x01b\x7f", "c\u202ed 👩‍👩‍👧‍👦 $x^$"),
}


@pytest.fixture
def drawn(monkeypatch) -> dict[str, Figure]:
    """Return the figures drawn from now on, by name; any warning fails."""
    figures: dict[str, Figure] = {}
    drawing = style.drawing

    @contextmanager
    def kept(stem, width, height):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with drawing(stem, width, height) as figure:
                figures[stem.name] = figure
                yield figure

    for module in (along, front, polygons):
        monkeypatch.setattr(module, "drawing", kept)
    return figures


def line_report(folder: Path, names=("positive", "faithful"), kinds=KINDS, points=11, stderr=True, scale=1.0) -> Report:
    rows = [
        ("expert" if lam in (0, 1) else "soup", f"{lam:g}", 0.8 - 0.5 * lam + 0.2 * lam * (1 - lam), 0.2 + 0.4 * lam)
        for lam in np.linspace(0, 1, points).round(4)
    ]
    rows += [(kind, "", 0.4 + 0.05 * place, 0.25 + 0.02 * place) for place, kind in enumerate(kinds)]
    header = ["kind", "lambda", *(f"score:{name}" for name in names), *(f"stderr:{name}" for name in names if stderr)]
    lines = ["\t".join(header)]
    for kind, lam, *scores in rows:
        cells = [0.5 + scale * score for score in scores] + [0.02 * scale] * (2 if stderr else 0)
        lines.append("\t".join([kind, lam, *map(repr, map(float, cells))]))
    path = folder / "points.csv"
    path.write_text("\n".join(lines))
    return make_report([path], folder / "report", Options(knee=True))


def many_points(folder: Path, names: list[str]) -> Path:
    """Write experts and the mixes of each two of them."""
    generator = np.random.default_rng(0)
    experts = [np.eye(len(names))[row] for row in range(len(names))]
    mixes = [*experts, *(0.5 * (first + second) for first in experts for second in experts if first is not second)]
    mixes = list({tuple(mix): mix for mix in mixes}.values())
    lines = ["\t".join(["kind", *(f"weight:{name}" for name in names), *(f"score:{name}" for name in names)])]
    for mix in mixes:
        scores = 0.3 + 0.4 * mix + 0.2 * (1 - (mix**2).sum()) + generator.normal(0, 0.01, len(names))
        lines.append("\t".join(["expert" if mix.max() == 1 else "soup", *map(str, mix), *map(str, scores)]))
    path = folder / "points.csv"
    path.write_text("\n".join(lines))
    return path


def entries(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def annotations(figure: Figure) -> list[Annotation]:
    return [text for panel in figure.axes for text in panel.texts if isinstance(text, Annotation)]


def extent(artist) -> np.ndarray:
    return np.array(artist.get_window_extent().extents)


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    return float(np.prod(np.maximum(sides, 0)))


def written(figure: Figure) -> list[Text]:
    """Return every text of the panels that is drawn."""
    texts: list[Text] = []
    for panel in (panel for panel in figure.axes if panel.axison):
        for axis in (panel.xaxis, panel.yaxis):
            low, high = sorted(axis.get_view_interval())
            texts += [axis.label, axis.get_offset_text()]
            texts += [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    texts += [text for panel in figure.axes for text in (panel.title, *panel.texts)]
    return [text for text in texts if text.get_visible() and text.get_text().strip()]


def assert_tidy(figure: Figure) -> None:
    """Everything lies on the paper, and no title, name or legend covers another."""
    figure.draw_without_rendering()
    paper = np.array(figure.bbox.extents)
    boxes = [(text.get_text(), extent(text)) for text in written(figure)] + [("legend", extent(figure.legends[0]))]
    for word, box in boxes:
        assert (box[:2] >= paper[:2] - 1).all(), word
        assert (box[2:] <= paper[2:] + 1).all(), word
    for place, (word, box) in enumerate(boxes):
        for other, other_box in boxes[:place]:
            assert overlap(box, other_box) <= 4, (word, other)  # dots, at 300 an inch


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES.keys())
def test_everything_lies_on_the_paper(tmp_path, drawn, names):
    line_report(tmp_path, names=names)
    assert set(drawn) == {"front", "lambda"}
    for figure in drawn.values():
        assert_tidy(figure)
        for panel in figure.axes:
            assert panel.get_position().height * figure.get_figheight() > 1.8  # inches: not squashed
    for suffix in ("front.svg", "lambda.svg"):
        ET.parse(tmp_path / "report" / suffix)


@pytest.mark.parametrize("scale", [1e-5, 1e-9, 1e4])
def test_ticks_of_any_range_keep_clear_of_titles(tmp_path, drawn, scale):
    line_report(tmp_path, names=NAMES["long"], scale=scale)
    for figure in drawn.values():
        assert_tidy(figure)


@pytest.mark.parametrize("names", [("helpful", "harmless", "brief"), (LONG, LONG[::-1], "礼貌的模型" * 12)])
def test_triangles_and_radars_hold_their_names(tmp_path, drawn, names):
    make_report([many_points(tmp_path, list(names))], tmp_path / "report", Options(knee=True))
    assert set(drawn) == {"front", "radar", "ternary"}
    for figure in drawn.values():
        assert_tidy(figure)


def test_a_triangle_leaves_no_empty_band(tmp_path, drawn):
    make_report([write_triangle(tmp_path, prompts=4)], tmp_path / "report", Options(draws=100))
    figure = drawn["ternary"]
    figure.draw_without_rendering()
    top = max(extent(text)[3] for text in written(figure))
    assert (figure.bbox.y1 - top) / figure.dpi < 0.15  # inches


@pytest.mark.parametrize("rewards", [5, 8, 10])
def test_no_two_polygons_look_alike(tmp_path, drawn, rewards):
    path = many_points(tmp_path, [f"reward number {number}" for number in range(rewards)])
    report = analyse(read_inputs([path], {}, {}), Options(knee=True))
    polygons.draw_radar(report, tmp_path / "radar")
    lines = drawn["radar"].axes[0].lines
    assert len(lines) == len({(line.get_color(), line.get_linestyle(), line.get_marker()) for line in lines}) <= 12
    assert any(report.choices[0].nearest.startswith(line.get_label().partition(ELLIPSIS)[0]) for line in lines)
    assert_tidy(drawn["radar"])


@pytest.mark.parametrize(("prompts", "lambdas"), [(12, 6), (64, 6), (200, 11)])
def test_labels_keep_off_marks_and_each_other(tmp_path, drawn, prompts, lambdas):
    path = write_line(tmp_path, prompts=prompts, lambdas=lambdas)
    options = Options.from_flags(
        prefer=["positive=0.6,faithful=0.4"], at_least=["faithful=0.4"], knee=True, bootstrap=200
    )
    report = make_report([path], tmp_path / "report", options)
    figure = drawn["front"]
    figure.draw_without_rendering()
    panel = figure.axes[0]
    boxes = [extent(text) for text in annotations(figure)]
    radius = 2.2 * figure.dpi / 72
    for place, box in enumerate(boxes):
        for point in report.points:
            centre = panel.transData.transform([point.scores[name].mean for name in report.rewards])
            assert overlap(box, np.array([*(centre - radius), *(centre + radius)])) == 0
        assert all(overlap(box, other) == 0 for other in boxes[:place])
    texts = {text.get_text() for text in annotations(figure)}
    assert {"positive", "faithful"} <= texts


@pytest.mark.parametrize("seed", range(3))
def test_a_lambda_stands_nearest_to_its_own_point(tmp_path, drawn, seed):
    report = make_report(
        [write_line(tmp_path, lambdas=11, seed=seed)], tmp_path / "report", Options(draws=200, knee=True)
    )
    figure = drawn["front"]
    figure.draw_without_rendering()
    ids = [point.id for point in report.points]
    means = [[point.scores[name].mean for name in report.rewards] for point in report.points]
    places = figure.axes[0].transData.transform(means)
    owners = {f"{point.lam:g}": point.id for point in report.points if point.kind == "soup"}
    numbers = [text for text in annotations(figure) if text.get_text() in owners]
    assert len(numbers) >= 3
    for text in numbers:
        box = extent(text)
        away = np.hypot(*np.maximum(0, np.maximum(box[:2] - places, places - box[2:])).T)
        assert away[ids.index(owners[text.get_text()])] <= away.min() + 4, text.get_text()  # dots, at 300 an inch


def test_the_polygons_of_choices_go_before_those_of_experts(tmp_path):
    rewards = [f"r{number}" for number in range(14)]
    rows = [[float(row == column) for column in range(14)] for row in range(14)]
    rows.append([0.5, 0.5, *[0.0] * 12])
    header = ",".join(["kind", *(f"weight:{name}" for name in rewards), *(f"score:{name}" for name in rewards)])
    lines = [",".join(["soup", *map(str, row), *map(str, row)]) for row in rows]
    (tmp_path / "points.csv").write_text("\n".join([header, *lines]))
    report = analyse(read_inputs([tmp_path / "points.csv"], {}, {}), Options(at_least={"r12": 0.9}))
    shown = [report.points[row].id for row in polygons._telling(report)]
    assert len(shown) == polygons.POLYGONS
    assert {"r12", report.points[-1].id} <= set(shown)


def test_names_of_the_ends_are_not_struck_through(tmp_path, drawn):
    report = make_report([write_line(tmp_path)], tmp_path / "report", Options(draws=200))
    figure = drawn["front"]
    figure.draw_without_rendering()
    panel = figure.axes[0]
    names = [extent(text) for text in annotations(figure) if text.get_text() in report.rewards]
    assert len(names) == 2
    for collection in panel.collections:
        for start, end in collection.get_segments():
            places = panel.transData.transform(np.linspace(start, end, 500))
            for box in names:
                assert not ((places > box[:2]) & (places < box[2:])).all(axis=1).any()


def test_rings_say_which_rule_chose(tmp_path, drawn):
    options = Options.from_flags(
        prefer=["positive=0.6,faithful=0.4", "positive=0.2,faithful=0.8"], at_least=["faithful=0.5"], bootstrap=200
    )
    make_report([write_line(tmp_path)], tmp_path / "report", options)
    rules = [rule for text in annotations(drawn["front"]) for rule in text.get_text().splitlines()]
    assert {"mu 0.6/0.4", "mu 0.2/0.8", "at least"} <= set(rules)


def test_a_ring_of_many_rules_counts_the_rest(tmp_path, drawn):
    options = Options.from_flags(prefer=[f"positive={part},faithful={1 - part}" for part in (1, 1, 1)], bootstrap=200)
    make_report([write_line(tmp_path, spread=0.01)], tmp_path / "report", options)
    assert "validation 1/0\nmu 1/0\nand 4 more" in {text.get_text() for text in annotations(drawn["front"])}


def test_the_legend_says_what_is_there(tmp_path, drawn):
    make_report([write_line(tmp_path, prompts=8)], tmp_path / "report", Options(draws=100, knee=True))
    assert {"95 % interval", "lambda", "dominated", "chosen, with the rule"} <= set(entries(drawn["front"]))
    assert {"95 % interval", "experts", "soups"} <= set(entries(drawn["lambda"]))


def test_errors_without_single_scores_are_bars_of_one_standard_error(tmp_path, drawn):
    report = line_report(tmp_path)
    assert "± standard error" in entries(drawn["front"])
    assert "± standard error" in entries(drawn["lambda"])
    score = report.points[0].scores["positive"]
    segments = [segment for bars in drawn["front"].axes[0].collections for segment in bars.get_segments()]
    assert any(
        np.allclose(segment[:, 0], [score.mean - score.stderr, score.mean + score.stderr]) for segment in segments
    )


def test_the_legend_says_nothing_of_what_is_not_there(tmp_path, drawn):
    line_report(tmp_path, kinds=(), stderr=False)
    assert entries(drawn["front"]) == ["soup", "expert", "chosen, with the rule", "lambda"]
    assert entries(drawn["lambda"]) == ["soups", "experts", "line between the experts"]


def test_lambda_is_written_at_some_of_many_points(tmp_path, drawn):
    line_report(tmp_path, points=41)
    numbers = [text.get_text() for text in annotations(drawn["front"]) if text.get_text()[0] == "0"]
    assert 5 <= len(numbers) <= 9
    assert set(numbers) <= {f"{tenth / 10:g}" for tenth in range(1, 10)}


def test_experts_are_diamonds_along_lambda(tmp_path, drawn):
    line_report(tmp_path)
    marked = {line.get_marker(): list(line.get_xdata()) for line in drawn["lambda"].axes[0].lines}
    assert marked["D"] == [0.0, 1.0]
    assert 0.0 not in marked["o"]


@pytest.mark.parametrize("colour", [*(look.bar for look in style.LOOKS.values()), style.CHOSEN])
def test_thin_lines_have_contrast(colour):
    assert contrast(colour) >= 3


@pytest.mark.parametrize("colour", [style.INK, style.CHOSEN_INK])
def test_text_has_contrast(colour):
    assert contrast(colour) >= 4.5


def contrast(colour: str) -> float:
    """Return the contrast to white of WCAG 2."""
    parts = np.array(to_rgb(colour))
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return 1.05 / (linear @ [0.2126, 0.7152, 0.0722] + 0.05)


def test_names_are_cut_in_the_middle_and_wrapped_where_words_end(tmp_path):
    with style.drawing(tmp_path / "empty", 2, 2) as figure:
        assert shortened(figure, "positive", 100, 8) == "positive"
        short = shortened(figure, LONG, 60, 8)
        assert short.startswith("Open")
        assert ELLIPSIS in short
        assert short.endswith("ess")
        assert wrapped(figure, "reward_model_helpfulness", 70, 8) == "reward_model_\nhelpfulness"
        assert wrapped(figure, "X" * 300, 50, 8).count("\n") == 1
        assert shortened(figure, LONG, 0, 8) == ELLIPSIS


def test_what_no_svg_can_hold_is_replaced():
    assert printable("a\x01b\ud800 \n c\u202ed") == "a\ufffdb\ufffd c\ufffdd"
    assert printable("礼貌 👩‍👩‍👧") == "礼貌 👩‍👩‍👧"


def test_only_the_warning_of_missing_signs_is_kept_back(tmp_path):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with style.drawing(tmp_path / "empty", 2, 2) as figure:
            figure.text(0.5, 0.5, "礼")
            warnings.warn("something other", UserWarning, stacklevel=1)
    assert [str(warning.message) for warning in seen] == ["something other"]
