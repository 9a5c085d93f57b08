"""Points that share batches give what points one after the other give, and keep it the same way."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from models.test_rowwise import KINDS, build
from rsoup import mixing
from rsoup.errors import RecipeError
from rsoup.evaluation.applying import applied
from rsoup.evaluation.cache import Kept
from rsoup.evaluation.plan import plan_sweep
from rsoup.evaluation.results import RESULTS, Results
from rsoup.evaluation.sharing import Rows, crowd_of
from rsoup.models.load import load_language_model
from rsoup.recipe import EvaluationSection
from tiny import build_adapter, build_tiny_model, build_tokenizer

from .sweeping import Recording, completions, files, sweep

pytestmark = pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`")


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    """A random GPT-2 with two experts of its Conv1D layers and its embeddings."""
    folder = tmp_path_factory.mktemp("gpt2")
    build(folder / "base", "gpt2")
    build_tokenizer().save_pretrained(folder / "base")
    settings: dict[str, Any] = {"target_modules": KINDS["gpt2"][1], "fan_in_fan_out": True}
    return folder / "base", [
        build_adapter(folder / name, folder / "base", seed, **settings) for seed, name in enumerate("ab")
    ]


def both_ways(
    content: dict[str, Any], sources: Sequence[Path], out: Path, **evaluation: Any
) -> tuple[Recording, Recording]:
    """Evaluate one by one and together, to folders ``folded`` and ``shared``; return what was told."""
    told = Recording(), Recording()
    sweep(content, sources, out / "folded", told[0], together=False, **evaluation)
    sweep(content, sources, out / "shared", told[1], together=True, **evaluation)
    return told


def shared_batches(told: Recording) -> bool:
    """Tell whether rows of several points were in a batch: their prompts are then done in turns."""
    changes = sum(one != other for one, other in zip(told.completed, told.completed[1:], strict=False))
    return changes >= len(set(told.completed))


@pytest.mark.parametrize(
    "evaluation",
    [
        {"method": "factors"},
        {"method": "cat", "with_base": True},
        {"method": "factors", "with_base": True, "temperature": 1.0, "samples": 2},
        {"method": "cat", "extrapolate": 0.5, "batch_size": 64},
    ],
    ids=["factors", "cat-base", "sampled", "beyond"],
)
def test_the_files_are_the_same_to_the_byte(
    content: dict[str, Any], experts: list[Path], tmp_path: Path, evaluation: dict[str, Any]
) -> None:
    """The promise of the float32 sweep, whichever way is taken."""
    folded, shared = both_ways(content, experts[:2], tmp_path, measures=False, lambdas=5, **evaluation)
    assert files(tmp_path / "shared") == files(tmp_path / "folded")
    assert sorted(shared.completed) == sorted(folded.completed)
    assert shared_batches(shared)
    assert not shared_batches(folded)


@pytest.mark.parametrize("method", ["factors", "cat"])
def test_so_they_are_with_conv1d_and_embeddings(
    content: dict[str, Any], gpt2: tuple[Path, list[Path]], tmp_path: Path, method: str
) -> None:
    base, sources = gpt2
    content["model"]["base"] = str(base)
    _, told = both_ways(content, sources, tmp_path, measures=False, method=method, with_base=True)
    assert shared_batches(told)
    assert files(tmp_path / "shared") == files(tmp_path / "folded")


@pytest.mark.parametrize("samples", [1, 2])
def test_measures_are_the_same_to_five_digits(
    content: dict[str, Any], tiny_model: Path, tmp_path: Path, samples: int
) -> None:
    """Also where an expert changes the output layer, which KL is read from."""
    targets = ["q_proj", "lm_head"]
    sources = [
        build_adapter(tmp_path / name, tiny_model, seed, target_modules=targets) for seed, name in enumerate("ab")
    ]
    _, told = both_ways(content, sources, tmp_path, temperature=1.0, samples=samples, batch_size=8)
    assert shared_batches(told)
    folded, shared = (json.loads((tmp_path / name / RESULTS).read_text()) for name in ("folded", "shared"))
    for one, other in zip(folded["points"], shared["points"], strict=True):
        for measure in ("kl", "base_perplexity"):
            assert other["extras"].pop(measure) == pytest.approx(one["extras"].pop(measure), rel=1e-5, abs=1e-5)
    assert shared == folded
    rows = [
        row
        for path in (tmp_path / "shared").glob("points/*")
        for own in Kept(path).completions().values()
        for row in own
    ]
    assert sum(row.kl or 0 for row in rows) > 1


def test_a_baseline_of_another_rank_is_measured_by_itself(
    content: dict[str, Any], experts: list[Path], tiny_model: Path, tmp_path: Path
) -> None:
    baseline = build_adapter(tmp_path / "morl-0.50-0.50", tiny_model, 7, r=3)
    note = {"schema": 1, "kind": "morl", "name": baseline.name, "weights": {"brief": 1.0}}
    (baseline / "rsoup.json").write_text(json.dumps(note))
    _, told = both_ways(content, [*experts[:2], baseline], tmp_path, measures=False, batch_size=64)
    assert shared_batches(told)
    assert told.completed[-4:] == 4 * [baseline.name]
    assert files(tmp_path / "shared") == files(tmp_path / "folded")


@pytest.mark.parametrize("prompts", [1, 7, 11])
def test_an_interrupted_sweep_goes_on_and_leaves_the_same_files(
    content: dict[str, Any], experts: list[Path], tmp_path: Path, prompts: int
) -> None:
    """Whole groups of points are kept: here of two, four prompts each."""
    sweep(content, experts[:2], tmp_path / "folded", measures=False, together=False, lambdas=5)
    settings: dict[str, Any] = {"measures": False, "together": True, "lambdas": 5}
    with pytest.raises(KeyboardInterrupt):
        sweep(content, experts[:2], tmp_path / "eval", Recording(interrupt_after=prompts), **settings)
    assert not (tmp_path / "eval" / RESULTS).exists()
    more = Recording()
    sweep(content, experts[:2], tmp_path / "eval", more, **settings)
    assert len(more.completed) == 24 - 8 * ((prompts - 1) // 8)
    assert files(tmp_path / "eval") == files(tmp_path / "folded")


def test_more_prompts_and_lambdas_complete_only_the_new_ones(
    content: dict[str, Any], experts: list[Path], tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"measures": False, "together": True}
    sweep(content, experts[:2], tmp_path / "folded", measures=False, together=False, prompts=7, lambdas=5)
    sweep(content, experts[:2], tmp_path / "eval", prompts=4, lambdas=3, **settings)
    more = Recording()
    sweep(content, experts[:2], tmp_path / "eval", more, prompts=7, lambdas=5, **settings)
    assert len(more.completed) == 4 * 3 + 2 * 7
    assert files(tmp_path / "eval") == files(tmp_path / "folded")


def test_two_sweeps_at_once_share_their_work(content: dict[str, Any], experts: list[Path], tmp_path: Path) -> None:
    settings: dict[str, Any] = {"measures": False, "lambdas": 6}
    sweep(content, experts[:2], tmp_path / "folded", together=False, **settings)
    both = [Recording(), Recording()]
    with ThreadPoolExecutor(2) as pool:
        ends = [
            pool.submit(sweep, content, experts[:2], tmp_path / "eval", own, together=True, **settings) for own in both
        ]
    assert all(end.result() for end in ends)
    assert sorted(both[0].completed + both[1].completed) == sorted(4 * _ids(ends[0].result()[0]))
    assert files(tmp_path / "eval") == files(tmp_path / "folded")


def _ids(results: Results) -> list[str]:
    return [point.id for point in results.points]


def test_left_to_choose_it_says_what_it_chose(content: dict[str, Any], experts: list[Path], tmp_path: Path) -> None:
    settings: dict[str, Any] = {"measures": False, "lambdas": 6, "batch_size": 16}
    sweep(content, experts[:2], tmp_path / "folded", together=False, **settings)
    told = Recording()
    sweep(content, experts[:2], tmp_path / "eval", told, **settings)
    assert (
        len([text for text in told.said if text.startswith(("Points share batches", "Points are measured one"))]) == 1
    )
    assert len(told.completed) == 4 * 7
    assert files(tmp_path / "eval") == files(tmp_path / "folded")


@pytest.mark.parametrize(
    "evaluation", [{"lambdas": 6, "batch_size": 16}, {"measures": False}, {"lambdas": 6, "batch_size": 7}]
)
def test_left_to_choose_it_keeps_to_one_by_one(
    content: dict[str, Any], experts: list[Path], tmp_path: Path, evaluation: dict[str, Any]
) -> None:
    """With float32 measures, whose last digits would move; with few points; where two points do not fit in a batch."""
    told = Recording()
    sweep(content, experts[:2], tmp_path / "eval", told, **evaluation)
    assert not shared_batches(told)
    assert not any(text.startswith("Points") for text in told.said)


@pytest.mark.parametrize("change", ["saved", "narrow"])
def test_what_rows_cannot_have_is_folded_and_told(
    content: dict[str, Any], experts: list[Path], tiny_model: Path, tmp_path: Path, change: str
) -> None:
    if change == "saved":
        own = {"modules_to_save": ["lm_head"]}
        sources = [build_adapter(tmp_path / name, tiny_model, seed, **own) for seed, name in enumerate("ab")]
    else:
        sources = [
            mixing.write(mixing.mix([folder], [1.0], dtype="BF16"), tmp_path / folder.name) for folder in experts[:2]
        ]
    folded, told = both_ways(content, sources, tmp_path, measures=False)
    assert not shared_batches(told)
    assert len([text for text in told.said if text.startswith("Points cannot share batches: ")]) == 1
    assert not any(text.startswith("Points") for text in folded.said)
    assert files(tmp_path / "shared") == files(tmp_path / "folded")


def test_points_that_are_one_model_are_measured_once(
    content: dict[str, Any], experts: list[Path], tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(experts[0], tmp_path / "copy"))
    _, told = both_ways(content, [experts[0], copy], tmp_path, measures=False, batch_size=64)
    assert len(told.completed) == 3 * 4
    assert files(tmp_path / "shared") == files(tmp_path / "folded")


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_where_every_token_is_a_close_call_the_files_are_the_same(
    content: dict[str, Any], tmp_path: Path, temperature: float
) -> None:
    """A model with two words for everything, whose logits differ in the last digits only."""
    folder = build_tiny_model(tmp_path / "torn", seed=3, hidden_size=64, tie_word_embeddings=False)
    model = AutoModelForCausalLM.from_pretrained(folder)
    weight = model.lm_head.weight.data
    half = len(weight) // 2
    noise = torch.randn(half, weight.shape[1], generator=torch.Generator().manual_seed(0))
    weight[half : 2 * half] = weight[:half] * (1 + 3e-7 * noise)
    model.save_pretrained(folder)
    content["model"]["base"] = str(folder)
    sources = [build_adapter(tmp_path / name, folder, seed) for seed, name in enumerate("ab")]
    settings: dict[str, Any] = {"measures": False, "temperature": temperature, "max_new_tokens": 16, "prompts": 8}
    _, told = both_ways(content, sources, tmp_path, lambdas=5, batch_size=64, **settings)
    assert shared_batches(told)
    assert files(tmp_path / "shared") == files(tmp_path / "folded")


def test_a_close_call_is_settled_by_the_folded_point(tmp_path: Path, experts: list[Path], tiny_model: Path) -> None:
    """Bit for bit what a sweep of that point computes, while the experts' hooks are in."""
    model = load_language_model(str(tiny_model), revision=None, dtype="float32")
    plan = plan_sweep(experts[:2], EvaluationSection(lambdas=3))
    crowd = crowd_of(model, plan)
    rows = crowd.subject(plan.points)
    assert isinstance(rows, Rows)
    ids, mask = model.pad([[5, 6, 7]])
    for row, point in enumerate(plan.points):
        with rows.change, rows.alone(row):
            found = crowd._logits(ids, mask)
        with applied(model, crowd.mixed(point)):
            assert torch.equal(found, crowd._logits(ids, mask))
    assert crowd.error(plan.points, [[5, 6], [7, 8, 9], [4], [5]]) < 2e-6


def test_the_error_shows_a_row_that_is_another_point(experts: list[Path], tiny_model: Path) -> None:
    model = load_language_model(str(tiny_model), revision=None, dtype="float32")
    plan = plan_sweep(experts[:2], EvaluationSection(lambdas=3))
    crowd = crowd_of(model, plan)
    wrong = type(crowd)(crowd.model, crowd.names[::-1], crowd.experts, crowd.mixed)
    assert wrong.error(plan.points[:2], [[5, 6], [7, 8, 9]]) > 1e-3


def test_what_can_never_share_is_refused_where_it_is_asked_for(
    content: dict[str, Any], tiny_model: Path, tmp_path: Path
) -> None:
    models = [build_tiny_model(tmp_path / name, seed) for seed, name in enumerate("ab", 1)]
    with pytest.raises(RecipeError, match=r"evaluation\.together: .* whole models"):
        sweep(content, models, tmp_path / "eval", together=True)
    with pytest.raises(RecipeError, match="together: vllm gives all rows"):
        sweep(content, models, tmp_path / "eval", together=True, engine="vllm")
    assert not (tmp_path / "eval").exists()


def test_in_narrower_types_points_share_batches_too(
    content: dict[str, Any], experts: list[Path], tmp_path: Path
) -> None:
    told = Recording()
    _, samples = sweep(content, experts[:2], tmp_path / "eval", told, dtype="bfloat16", together=True, lambdas=5)
    assert shared_batches(told)
    _, folded = sweep(content, experts[:2], tmp_path / "folded", dtype="bfloat16", together=False, lambdas=5)
    pairs = [
        (one, other)
        for name, texts in completions(samples).items()
        for one, other in zip(texts, completions(folded)[name], strict=True)
    ]
    assert sum(one == other for one, other in pairs) > len(pairs) / 2
