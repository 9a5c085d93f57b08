"""Evaluate the quickstart's sweep: rsoup, the original's way, and PEFT with batches and one load, side by side.

python tests/benchmarks/sweep.py [LAMBDAS [PROMPTS]]    the comparison, at 11 lambdas and 64 prompts or as given
python tests/benchmarks/sweep.py growth                 how the time grows with lambdas, prompts, adapters and lengths
python tests/benchmarks/sweep.py kinds                  the other sweeps: a simplex, random points, a trajectory, ...
python tests/benchmarks/sweep.py together [PROMPTS ...] points one by one and in shared batches, for 8, 64, 256 prompts
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
from torch.profiler import ProfilerActivity, profile
from transformers import AutoModelForCausalLM

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


def write_adapters(folder: Path, base: str) -> list[Path]:
    """Write random adapters of the quickstart's shape, as large as trained ones."""
    paths = []
    for seed, name in enumerate(NAMES):
        torch.manual_seed(seed)
        config = LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"])
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
    examples = examples_of(recipe)
    rate = matmul_rate()
    threads = torch.get_num_threads()
    print(f"{threads} threads, torch {torch.__version__}, float32 matrix products at {rate / 1e9:.0f} GFLOP/s")
    print(
        f"{len(examples)} prompts of {sum(len(e.tokens) for e in examples) / len(examples):.0f} tokens on average, ",
        end="",
    )
    print(f"{recipe.evaluation.max_new_tokens} new tokens, greedy; {lambdas} lambdas and the base")
    with tempfile.TemporaryDirectory() as folder:
        folders = write_adapters(Path(folder), model_source(recipe.model.base))[:2]
        slow, texts = original(recipe, folders, examples)
        show("the original's way", slow, slow)
        batched, batched_texts = peft_batched(recipe, folders, examples)
        show("PEFT, batches, one load", batched, slow)
        whole, points, own = ours(recipe, folders, Path(folder) / "plain")
        each = whole.over(points)
        show("rsoup, generation and rewards", each, slow, batched)
        if own:
            print(f"  same completions at lambda 0.5: {same(own, batched_texts)} as PEFT, {same(own, texts)} as alone")
        full = quickstart(lambdas=lambdas, prompts=prompts, batch_size="auto")
        show("rsoup, KL and perplexity too", ours(full, folders, Path(folder) / "full")[0].over(points), slow, batched)
        work = flops(examples, recipe.evaluation.max_new_tokens)
        share = work / (each.wall if pick_device().type == "cuda" else each.cpu / threads) / rate
        print(
            f"arithmetic of a point: {work / 1e12:.2f} TFLOP; rsoup runs at {share:.0%} of the measured rate",
            flush=True,
        )
        where(recipe, folders, Path(folder) / "profile")


def show(name: str, each: Spent, slow: Spent, batched: Spent | None = None) -> None:
    """Print what a way takes and its ratios, by the clock and by the processor."""
    print(f"{name:30} {each.wall:7.1f} s per lambda ({each.cpu:.1f} s of processor time)", end="")
    print(f", {slow.wall / each.wall:.1f} ({slow.cpu / each.cpu:.1f}) times the original's way", end="")
    print(f", {batched.wall / each.wall:.2f} ({batched.cpu / each.cpu:.2f}) times PEFT" if batched else "", flush=True)


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
    print("where the time of one point goes, model loading and rewards included:")
    for name, spent in sorted(shares.items(), key=lambda item: -item[1]):
        print(f"  {name:28} {spent:6.2f} s")


def growth() -> None:
    """Print how the time grows; the model is loaded in each run."""
    with tempfile.TemporaryDirectory() as folder:
        folders = write_adapters(Path(folder), model_source("smollm2-135m-instruct"))
        rows = {
            "lambdas": [({"lambdas": count}, 2) for count in (3, 5, 9)],
            "prompts": [({"prompts": count}, 2) for count in (8, 16, 32, 64)],
            "adapters (5 random points)": [({"random": 5}, count) for count in (2, 3, 5)],
            "new tokens": [({"max_new_tokens": count}, 2) for count in (12, 24, 48, 96)],
            "samples": [({"samples": count, "temperature": 1.0}, 2) for count in (1, 2, 4)],
        }
        for title, runs in rows.items():
            print(title)
            for number, (settings, count) in enumerate(runs):
                recipe = quickstart(**{"lambdas": 3, "prompts": 16, **settings})
                spent, points, _ = ours(recipe, folders[:count], Path(folder) / f"{title}-{number}")
                each = spent.over(points)
                print(f"  {settings}, {count} adapters, {points} points: {spent.wall:.1f} s, ", end="")
                print(f"{each.wall:.2f} s per point ({each.cpu:.2f} s of processor time)", flush=True)


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
        for title, (settings, sources, trajectory) in runs.items():
            recipe, spent = quickstart(**{"prompts": 16, "max_new_tokens": 12, **settings}), Spent()
            with spending(spent):
                points = evaluate(resolve(recipe), sources, folder / title, Silent(), trajectory=trajectory).points
            print(f"{title}: {len(points)} points, {spent.wall / len(points):.2f} s per point", flush=True)
            print(f"  {', '.join(point.id for point in points)}")


def together(counts: Sequence[int]) -> None:
    """Print the points a second of 11 lambdas, folded one by one and sharing batches, and whether they say the same."""
    with tempfile.TemporaryDirectory() as name:
        folders = write_adapters(Path(name), model_source("smollm2-135m-instruct"))[:2]
        quick = {"measures": "false", "lambdas": 2, "prompts": 2, "max_new_tokens": 2}
        ours(quickstart(**quick), folders, Path(name) / "first")  # a first call warms up
        for count in counts:
            found = []
            for way in ("false", "true"):
                settings = {"measures": "false", "lambdas": 11, "prompts": count, "batch_size": "auto"}
                recipe, out = quickstart(**settings, together=way), Path(name) / f"{count}-{way}"
                results = evaluate(resolve(recipe), folders, out, Silent())
                timing = json.loads((out / "timing.json").read_text())["points"]
                rate = len(timing) / sum(point["seconds"] for point in timing.values())
                found.append(
                    [point.completions for point in read_samples(out / "results.json", results).points.values()]
                )
                how = "together" if way == "true" else "one by one"
                print(f"{results.prompts.count} prompts, {len(timing)} points {how}: {rate:.3f} points/s", flush=True)
            print(f"  the same completions: {found[0] == found[1]}", flush=True)


if __name__ == "__main__":
    keep_large_buffers()
    if sys.argv[1:] == ["growth"]:
        growth()
    elif sys.argv[1:] == ["kinds"]:
        kinds()
    elif sys.argv[1:2] == ["together"]:
        together([int(word) for word in sys.argv[2:]] or (8, 64, 256))
    else:
        compare(*map(int, sys.argv[1:3] or ("11",)))
