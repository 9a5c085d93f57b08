"""Evaluate the quickstart's sweep: rsoup, the original's way, and PEFT with batches and one load, side by side.

python tests/benchmarks/sweep.py [LAMBDAS [PROMPTS]]       the comparison, at 11 lambdas and 64 prompts or as given
python tests/benchmarks/sweep.py growth [quick] [NAME ...] how the time grows: lambdas, prompts, adapters, tokens, ...
python tests/benchmarks/sweep.py kinds                     the other sweeps: a simplex, random points, a trajectory, ...
python tests/benchmarks/sweep.py together [PROMPTS ...]    points one by one and in shared batches: 8, 64, 256 prompts
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from tables import show, show_growth
from torch.profiler import ProfilerActivity, profile
from transformers import AutoModelForCausalLM
from work import SIZES, write_model

from rsoup.evaluation.results import read_samples
from rsoup.evaluation.sweep import evaluate
from rsoup.models.load import keep_large_buffers, load_tokenizer, model_source, pick_device
from rsoup.progress import Silent
from rsoup.recipe import Recipe
from rsoup.recipe_file import find_recipe, load_recipe
from rsoup.resolve import resolve
from rsoup.rewards.samples import sample_of
from rsoup.rewards.scoring import make_scorers, score_all
from rsoup.tasks import resolve_task
from rsoup.tasks.loading import Example, load_examples

NAMES = ("positive", "faithful", "third", "fourth", "fifth")
SEEN = ((0.5, 0.5), (0.4, 0.6))
"""Mixes that the batches of PEFT are measured at, the first of them one by one too: a sweep repeats what these take."""


def quickstart(**evaluation: Any) -> Recipe:
    """Return the bundled recipe with other settings of the evaluation, in float32 as the other sides."""
    settings = {"dtype": "float32", **evaluation}
    return load_recipe(find_recipe("quickstart"), [f"evaluation.{key}={value}" for key, value in settings.items()])


def write_adapters(folder: Path, base: str, rank: int = 8) -> list[Path]:
    """Write random adapters of the quickstart's shape, as large as trained ones."""
    paths = []
    for seed, name in enumerate(NAMES):
        torch.manual_seed(seed)
        config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"])
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), config)
        for key, parameter in model.named_parameters():
            if "lora_B" in key:
                torch.nn.init.normal_(parameter, std=2e-3)
        model.save_pretrained(folder / name)
        paths.append(folder / name)
    return paths


def examples_of(recipe: Recipe) -> list[Example]:
    """Return the prompts of the sweep."""
    tokenizer = load_tokenizer(recipe.model.base, recipe.model.revision)
    rows = load_examples(resolve_task(recipe.task), tokenizer, "test").rows
    return list(rows[: recipe.evaluation.prompts])


@dataclass
class Spent:
    """Seconds on the clock and of the processor; the latter say more on a machine that others use too."""

    wall: float = 0.0
    cpu: float = 0.0

    def over(self, count: int) -> Spent:
        """Return the share of one of ``count``."""
        return Spent(self.wall / count, self.cpu / count)


@contextmanager
def spending(spent: Spent) -> Iterator[None]:
    """Add what a block takes."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    spent.wall += time.perf_counter() - wall
    spent.cpu += time.process_time() - cpu


def mixed_state(model: Any, names: Sequence[str], weights: Sequence[float]) -> dict[str, torch.Tensor]:
    """Return the average of the factors of loaded adapters, by hand."""
    states = [get_peft_model_state_dict(model, adapter_name=name) for name in names]
    return {key: sum(w * state[key] for w, state in zip(weights, states, strict=True)) for key in states[0]}


def load_mix(base: str, folders: Sequence[Path], weights: Sequence[float]) -> Any:
    """Load the base, both adapters and a third to hold their average, as the original does at every lambda."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = PeftModel.from_pretrained(model, folders[0], adapter_name="one")
    model.load_adapter(folders[1], adapter_name="two")
    model.load_adapter(folders[0], adapter_name="mix")
    set_peft_model_state_dict(model, mixed_state(model, ("one", "two"), weights), adapter_name="mix")
    model.set_adapter("mix")
    return model.to(pick_device()).eval()


@torch.no_grad()
def generate(model: Any, recipe: Recipe, examples: Sequence[Example], batch_size: int) -> list[str]:
    """Complete prompts with transformers, left-padded."""
    tokenizer = load_tokenizer(recipe.model.base, recipe.model.revision)
    texts = []
    for start in range(0, len(examples), batch_size):
        rows = [list(example.tokens) for example in examples[start : start + batch_size]]
        inputs = tokenizer.pad({"input_ids": rows}, padding_side="left", return_tensors="pt").to(model.device)
        output = model.generate(**inputs, max_new_tokens=recipe.evaluation.max_new_tokens, do_sample=False)
        texts += tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return [text.strip() for text in texts]


def original(recipe: Recipe, folders: Sequence[Path], examples: Sequence[Example]) -> tuple[Spent, list[str]]:
    """Load everything for a lambda and generate one prompt at a time; return what a lambda takes."""
    spent, scorers = Spent(), make_scorers(recipe.rewards)
    with spending(spent):
        model = load_mix(model_source(recipe.model.base), folders, SEEN[0])
        texts = generate(model, recipe, examples, 1)
        score_all(scorers, list(map(sample_of, examples, texts)))
    return spent, texts


def peft_batched(recipe: Recipe, folders: Sequence[Path], examples: Sequence[Example]) -> tuple[Spent, list[str]]:
    """Load once, set each mix, generate in batches of the quickstart's size; return what a lambda takes."""
    spent, scorers = Spent(), make_scorers(recipe.rewards)
    texts: list[list[str]] = []
    model = load_mix(model_source(recipe.model.base), folders, SEEN[0])
    generate(model, recipe, examples[:2], 2)  # a first call warms up
    for weights in SEEN:
        with spending(spent):
            set_peft_model_state_dict(model, mixed_state(model, ("one", "two"), weights), adapter_name="mix")
            texts.append(generate(model, recipe, examples, 64))
            score_all(scorers, list(map(sample_of, examples, texts[-1])))
    return spent.over(len(SEEN)), texts[0]


def ours(recipe: Recipe, folders: Sequence[Path], out: Path) -> tuple[Spent, int, list[str]]:
    """Run the sweep, loading included; return what it takes, its points, and the completions at lambda 0.5."""
    spent = Spent()
    with spending(spent):
        results = evaluate(resolve(recipe), folders, out, Silent())
    samples = read_samples(out / "results.json", results)
    middle = samples.points["soup-0.50-0.50"].completions if "soup-0.50-0.50" in samples.points else ()
    return spent, len(results.points), list(middle)


def compare(lambdas: int, prompts: int = 64) -> None:
    """Print the three ways side by side."""
    recipe = quickstart(measures="false", lambdas=lambdas, prompts=prompts, batch_size="auto")
    full = quickstart(lambdas=lambdas, prompts=prompts, batch_size="auto")
    examples = examples_of(recipe)
    rate = matmul_rate()
    threads = torch.get_num_threads()
    length = sum(len(example.tokens) for example in examples) / len(examples)
    print(f"{threads} threads, torch {torch.__version__}, float32 matrix products at {rate / 1e9:.0f} GFLOP/s;")
    print(f"{len(examples)} prompts of {length:.0f} tokens on average, {recipe.evaluation.max_new_tokens} new tokens,")
    print(f"greedy; {lambdas} lambdas and the base; seconds per point.")
    with tempfile.TemporaryDirectory() as folder:
        folders = write_adapters(Path(folder), model_source(recipe.model.base))[:2]
        slow, texts = original(recipe, folders, examples)
        batched, batched_texts = peft_batched(recipe, folders, examples)
        whole, points, own = ours(recipe, folders, Path(folder) / "plain")
        each = whole.over(points)
        measured = ours(full, folders, Path(folder) / "full")[0].over(points)
        ways = {
            "the original's way: load at each lambda, one prompt at a time": slow,
            "PEFT: one load, batches of 64": batched,
            "rsoup, generation and rewards, loading included": each,
            "rsoup, KL and perplexity of every completion too": measured,
        }
        heads = ["way", "s", "processor s", "against the original's way", "against PEFT", "PEFT, by the processor"]
        show(heads, [row(name, spent, slow, batched) for name, spent in ways.items()])
        if own:
            print(
                f"The same completions at lambda 0.5: {same(own, batched_texts)} as PEFT, {same(own, texts)} as alone."
            )
        work = flops(examples, recipe.evaluation.max_new_tokens)
        share = work / (each.wall if pick_device().type == "cuda" else each.cpu / threads) / rate
        print(f"A point is {work / 1e12:.2f} TFLOP; rsoup runs at {share:.0%} of the measured rate.", flush=True)
        where(full, folders, Path(folder) / "profile")


def row(name: str, each: Spent, slow: Spent, batched: Spent) -> list[str]:
    """Return what a way takes and its ratios, by the clock and by the processor."""
    ratios = slow.wall / each.wall, batched.wall / each.wall, batched.cpu / each.cpu
    return [name, f"{each.wall:.2f}", f"{each.cpu:.2f}", *(f"{ratio:.2f}" for ratio in ratios)]


def same(one: Sequence[str], other: Sequence[str]) -> str:
    """Return how many texts two lists share."""
    return f"{sum(a == b for a, b in zip(one, other, strict=True))} of {len(one)}"


def flops(examples: Sequence[Example], new_tokens: int) -> float:
    """Return the multiplications and additions in the linear layers of the quickstart's model, for one point."""
    body, head = 106_168_320, 28_311_552  # weights of the layers, and of the head
    tokens = sum(len(example.tokens) for example in examples)
    return 2.0 * (body * (tokens + len(examples) * (new_tokens - 1)) + head * len(examples) * new_tokens)


def matmul_rate() -> float:
    """Return the floating point operations per second of large matrix products in float32."""
    one, other = (torch.randn(2048, 2048, device=pick_device()) for _ in range(2))
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        float((one @ other)[0, 0])  # which waits for a GPU
        best = min(best, time.perf_counter() - began)
    return 2 * 2048**3 / best


GROUPS = {
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm"),
    "attention": ("aten::_scaled_dot_product",),
    "growing the cache, copies": ("aten::cat", "aten::copy_", "aten::index", "aten::clone"),
    "choosing tokens": ("aten::topk", "aten::argmax", "aten::where"),
}


def where(recipe: Recipe, folders: Sequence[Path], out: Path) -> None:
    """Print where the time of one point goes."""
    single = recipe.model_copy(update={"evaluation": recipe.evaluation.model_copy(update={"lambdas": 2})})
    evaluate(resolve(single), folders, out, Silent())
    one = single.model_copy(update={"evaluation": single.evaluation.model_copy(update={"lambdas": 3})})
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        evaluate(resolve(one), folders, out, Silent())
    shares: dict[str, float] = defaultdict(float)
    for event in profiled.key_averages():
        group = next((name for name, keys in GROUPS.items() if event.key.startswith(keys)), "other operations")
        shares[group] += event.self_cpu_time_total / 1e6
    spent = sorted(shares.items(), key=lambda item: -item[1])
    print("Of a point with KL and perplexity, rewards included:")
    show([name for name, _ in spent], [[f"{seconds:.2f} s" for _, seconds in spent]])


GROWTH: dict[str, tuple[str, list[tuple[object, dict[str, Any], int]]]] = {
    "lambdas": ("lambdas", [(count, {"lambdas": count}, 2) for count in (3, 5, 9)]),
    "prompts": ("prompts", [(count, {"prompts": count}, 2) for count in (8, 16, 32, 64)]),
    "adapters": ("adapters (5 random points)", [(count, {"random": 5}, count) for count in (2, 3, 5)]),
    "tokens": ("new tokens", [(count, {"max_new_tokens": count}, 2) for count in (12, 24, 48, 96, 192, 512)]),
    "samples": (
        "samples of a prompt, temperature 1",
        [(count, {"samples": count, "temperature": 1.0}, 2) for count in (1, 2, 4)],
    ),
}  # fmt: skip
"""What is varied: a title, and for each value the settings and how many adapters there are."""
RANKS = (4, 8, 16, 32, 64)


def growth(names: Sequence[str], *, quick: bool) -> None:
    """Print how the time of a point grows, with KL and perplexity; the model is loaded in each run."""
    print(
        "Seconds per point, loading included; 16 prompts, 24 new tokens, 3 lambdas and the base unless said otherwise."
    )
    with tempfile.TemporaryDirectory() as name:
        root, base = Path(name), model_source("smollm2-135m-instruct")
        folders = write_adapters(root, base)
        for key in names or (*GROWTH, "rank", "model"):
            found: dict[object, float] = {}
            if key == "rank":
                for rank in RANKS[:2] if quick else RANKS:
                    found[rank] = point_of({}, write_adapters(root / str(rank), base, rank)[:2], root / f"rank-{rank}")
                show_growth("rank", "seconds", found)
            elif key == "model":
                for size in list(SIZES)[:2] if quick else SIZES:
                    model = str(write_model(root, size))
                    own = write_adapters(root / f"of-{size}", model)[:2]
                    found[size] = point_of({}, own, root / f"model-{size}", model)
                show_growth("size of the model", "seconds", found)
            else:
                title, runs = GROWTH[key]
                for value, settings, count in runs[:2] if quick else runs:
                    found[value] = point_of(settings, folders[:count], root / f"{key}-{value}")
                show_growth(title, "seconds", found)


def point_of(settings: dict[str, Any], folders: Sequence[Path], out: Path, base: str | None = None) -> float:
    """Return what a point of a small sweep takes: the processor's seconds if one thread computes."""
    recipe = quickstart(**{"lambdas": 3, "prompts": 16, **settings})
    if base is not None:
        recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"base": base})})
    spent, points, _ = ours(recipe, folders, out)
    each = spent.over(points)
    return each.cpu if torch.get_num_threads() == 1 else each.wall


def kinds() -> None:
    """Print what each of the other kinds of sweep takes on the quickstart's model, and the points it measured."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folders = write_adapters(folder, model_source("smollm2-135m-instruct"))
        baseline = folder / "morl-0.50-0.50"
        shutil.copytree(folders[2], baseline)
        told = {"schema": 1, "kind": "morl", "name": baseline.name, "weights": {"positive": 0.5, "faithful": 0.5}}
        (baseline / "rsoup.json").write_text(json.dumps(told))
        for step, source in zip((10, 20, 30), folders[2:], strict=True):
            shutil.copytree(source, folder / "along" / f"checkpoint-{step}")
        runs: dict[str, tuple[dict[str, Any], list[Path], Path | None]] = {
            "three adapters on a simplex": ({"lambdas": 4}, folders[:3], None),
            "five adapters at random points": ({"random": 5}, folders, None),
            "a trajectory": ({"lambdas": 3}, folders[:2], folder / "along"),
            "a MORL run as an ingredient": ({"lambdas": 3, "mix_morl": "true"}, [*folders[:2], baseline], None),
            "refine 3 after 3 lambdas": ({"lambdas": 3, "refine": 3}, folders[:2], None),
        }
        rows: list[list[object]] = []
        for title, (settings, sources, trajectory) in runs.items():
            recipe, spent = quickstart(**{"prompts": 16, "max_new_tokens": 12, **settings}), Spent()
            with spending(spent):
                points = evaluate(resolve(recipe), sources, folder / title, Silent(), trajectory=trajectory).points
            rows.append([title, len(points), f"{spent.wall / len(points):.2f}", f"{spent.cpu / len(points):.2f}"])
        show(["sweep", "points", "s per point", "processor s"], rows)


def together(counts: Sequence[int]) -> None:
    """Print the points a second of 11 lambdas, folded one by one and sharing batches, and whether they say the same."""
    with tempfile.TemporaryDirectory() as name:
        folders = write_adapters(Path(name), model_source("smollm2-135m-instruct"))[:2]
        quick = {"measures": "false", "lambdas": 2, "prompts": 2, "max_new_tokens": 2}
        ours(quickstart(**quick), folders, Path(name) / "first")  # a first call warms up
        rows: list[list[object]] = []
        for count in counts:
            rates, found = [], []
            for way in ("false", "true"):
                settings = {"measures": "false", "lambdas": 11, "prompts": count, "batch_size": "auto"}
                recipe, out = quickstart(**settings, together=way), Path(name) / f"{count}-{way}"
                results = evaluate(resolve(recipe), folders, out, Silent())
                timing = json.loads((out / "timing.json").read_text())["points"]
                rates.append(len(timing) / sum(point["seconds"] for point in timing.values()))
                found.append(
                    [point.completions for point in read_samples(out / "results.json", results).points.values()]
                )
            rows.append([count, *(f"{rate:.3f}" for rate in rates), f"{rates[1] / rates[0]:.2f}", found[0] == found[1]])
        show(["prompts", "points/s one by one", "together", "times", "the same completions"], rows)


if __name__ == "__main__":
    keep_large_buffers()
    if sys.argv[1:2] == ["growth"]:
        growth([word for word in sys.argv[2:] if word != "quick"], quick="quick" in sys.argv)
    elif sys.argv[1:] == ["kinds"]:
        kinds()
    elif sys.argv[1:2] == ["together"]:
        together([int(word) for word in sys.argv[2:]] or (8, 64, 256))
    else:
        compare(*map(int, sys.argv[1:3] or ("11",)))
