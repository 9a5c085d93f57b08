"""Broken input, read by what reads it: refused in two lines, or taken for what an independent reader says it is."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import random
import shutil
import signal
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from safetensors import SafetensorError
from safetensors.numpy import load_file

from breaking.mutating import (
    HOSTILE,
    as_json,
    mutate_bytes,
    mutate_json,
    mutate_lines,
    mutate_parquet,
    mutate_safetensors,
    mutate_table,
    mutate_text,
    mutate_yaml,
)
from breaking.works import Stock
from rsoup import mixing
from rsoup.errors import RsoupError
from rsoup.mixing import checkpoints
from rsoup.recipe import Recipe
from tiny import POSTS, recipe_content

PATIENCE = 20
"""Seconds of the processor that an input of a few kilobytes may take."""


class Fault(AssertionError):
    """Something that must not happen: a traceback, half a file, a number that is not so, no end."""


@dataclass
class Found:
    """What became of the inputs of a target, and one example of each kind of fault."""

    accepted: int = 0
    refused: int = 0
    faults: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, problem: BaseException, where: str) -> None:
        """Note a fault under its kind."""
        frames = [own for own in traceback.extract_tb(problem.__traceback__) if "/rsoup/" in own.filename]
        at = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
        own = str(problem)[:90] if isinstance(problem, Fault) else ""
        kind = f"{type(problem).__name__} {at} {own}".strip()
        self.counts[kind] = self.counts.get(kind, 0) + 1
        told = "".join(traceback.format_exception(problem))
        self.faults.setdefault(kind, f"{where}\n{told[-3000:]}")


Attempt = Callable[[random.Random], bool]
"""Make an input of a seed and have it read; tell whether it was accepted. What it raises is a fault."""


def fuzz(name: str, attempt: Attempt, count: int, seed: int = 0) -> Found:
    """Try so many inputs."""
    found = Found()
    for number in range(count):
        rng = random.Random(f"{name}{seed}/{number}")
        try:
            with _in_time(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), warnings.catch_warnings():
                accepted = attempt(rng)
        except Exception as problem:
            found.add(problem, f"{name}, input {number} of seed {seed}")
        else:
            found.accepted += accepted
            found.refused += not accepted
    return found


@contextmanager
def _in_time() -> Iterator[None]:
    def late(_number: int, _frame: FrameType | None) -> None:
        raise Fault(f"took more than {PATIENCE} s")

    before = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, PATIENCE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def refused(read: Callable[[], Any]) -> bool:
    """Tell whether reading is refused, in two lines, or by the system, whose words the command line makes two of."""
    try:
        read()
    except RsoupError as problem:
        for line in (problem.message, problem.hint):
            if not line.strip() or not line.isprintable():
                raise Fault(f"no line to print: {line[:200]!r}") from problem
        return True
    except OSError as problem:
        if not (problem.filename and problem.strerror):
            raise
        return True
    return False


# recipes


def _keys(section: Any, depth: int = 3) -> set[str]:
    names = set(section.model_fields)
    for own in section.model_fields.values():
        inner = getattr(own.annotation, "model_fields", None)
        if inner is not None and depth:
            names |= _keys(own.annotation, depth - 1)
    return names


WORDS = [
    *(
        "positive",
        "brief",
        "length",
        "regex",
        "math",
        "choice",
        "json",
        "grpo",
        "rloo",
        "4bit",
        "8bit",
        "spread",
        "vllm",
    ),
    *(
        "server",
        "running",
        "minimize",
        "svd",
        "cat",
        "ties",
        "0-1",
        "1-0",
        "0x2",
        "{post}",
        "{completion}",
        "post",
        "id",
    ),
    *(
        "after_think",
        "gym:",
        "test",
        7,
        64,
        1e-3,
        -0.5,
        ["post"],
        {"a": 1},
        {"positive": 1},
        {"use": "regex", "pattern": "("},
    ),
]
"""Values that mean something somewhere in a recipe."""


def recipes(stock: Stock, folder: Path) -> Attempt:
    """Fuzz recipes: read, resolved, and written and read again."""
    from rsoup.experiment import trainings_of
    from rsoup.recipe_file import dump_recipe, load_recipe, parse_recipe
    from rsoup.resolve import resolve
    from rsoup.stages.graph import check_fronts
    from rsoup.training.together import check_together
    from rsoup.training.trl_settings import check_trl

    path = folder / "recipe.yaml"
    content = full_recipe(folder, stock.model)
    keys = sorted(_keys(Recipe))

    def attempt(rng: random.Random) -> bool:
        path.write_bytes(mutate_yaml(content, rng, keys, [*HOSTILE, *WORDS]))

        def read() -> None:
            recipe = load_recipe(path)
            again = parse_recipe(yaml.safe_load(dump_recipe(recipe)), "again")
            if again != recipe:
                raise Fault(f"a recipe is another one when it is written and read: {again} {recipe}")
            check_trl(recipe.training, recipe.generation)
            check_fronts(recipe)
            check_together(recipe)
            trainings_of(recipe)
            for own in recipe.by_seed():
                resolve(own).check()

        return not refused(read)

    return attempt


def full_recipe(folder: Path, model: Path) -> dict[str, Any]:
    """Return the tiny recipe with all that it leaves to the defaults."""
    from rsoup.recipe_file import parse_recipe

    content: dict[str, Any] = parse_recipe(recipe_content(folder, model), "tiny").model_dump(mode="json")
    return content


# rows of data

ROWS: dict[str, list[dict[str, Any]]] = {
    "posts": [{"id": f"p{i}", "post": post, "stars": i % 5, "answer": "4"} for i, post in enumerate(POSTS)],
    "pairs": [{"prompt": post, "completion": "good box", "extra": {"n": i}} for i, post in enumerate(POSTS)],
    "chosen": [{"prompt": post, "chosen": "good", "rejected": "bad"} for post in POSTS],
    "talks": [
        {"messages": [{"role": "user", "content": post}, {"role": "assistant", "content": "fine"}]} for post in POSTS
    ],
    "sharegpt": [
        {"conversations": [{"from": "human", "value": post}, {"from": "gpt", "value": "x"}]} for post in POSTS
    ],
    "verl": [
        {"prompt": [{"role": "user", "content": post}], "reward_model": {"ground_truth": "4", "style": "rule"}}
        for post in POSTS
    ],
    "alpaca": [{"instruction": "sound", "input": post, "output": "good"} for post in POSTS],
}
ROW_KEYS = ("x", "id", "post", "prompt", "messages", "role", "content", "completion", "chosen", "\x1b[0m", "")


def rows(stock: Stock, folder: Path) -> Attempt:
    """Fuzz rows of data in each form; the texts of accepted plain rows are those that an independent reader finds."""
    from rsoup.recipe_file import parse_recipe
    from rsoup.resolve import resolve

    def attempt(rng: random.Random) -> bool:
        shape = rng.choice(sorted(ROWS))
        plain = shape in ("posts", "pairs", "chosen", "alpaca")
        forms = [".jsonl", ".json", ".parquet", ".jsonl.gz", *([".csv", ".tsv", ".csv"] if plain else [])]
        form = rng.choice(forms)
        path = folder / f"data{form}"
        path.write_bytes(_written(ROWS[shape], form, rng))
        content = recipe_content(folder, stock.model)
        content["task"] = {"data": str(path), "max_prompt_tokens": 128}
        if rng.random() < 0.5 and plain:
            column = {"posts": "post", "alpaca": "input"}.get(shape, "prompt")
            content["task"] |= {"column": column, "template": "summary : {post} :"}
        texts: list[str] = []

        def read() -> None:
            resolved = resolve(parse_recipe(content, "fuzzed"))
            found = [*resolved.training_examples.rows, *resolved.held_out_examples.rows]
            for example in found:
                if not example.tokens or not example.prompt:
                    raise Fault("a prompt without tokens")
            texts[:] = [example.post for example in found]

        if refused(read):
            return False
        if "column" in content["task"]:
            known = _independently(path, content["task"]["column"])
            if known is not None and not set(texts) <= known:
                raise Fault(f"texts that are in no row: {sorted(set(texts) - known)[:2]!r:.300}")
        return True

    return attempt


def _written(content: list[dict[str, Any]], form: str, rng: random.Random) -> bytes:
    if form == ".jsonl":
        return mutate_lines(content, rng, ROW_KEYS)
    if form == ".jsonl.gz":
        packed = gzip.compress(mutate_lines(content, rng, ROW_KEYS), mtime=0)
        return mutate_bytes(packed, rng) if rng.random() < 0.7 else packed
    if form == ".json":
        wrapped: Any = content if rng.random() < 0.7 else {"version": 1, "data": content}
        changed = mutate_json(wrapped, rng, ROW_KEYS)
        return mutate_bytes(as_json(wrapped), rng) if rng.random() < 0.3 else as_json(changed)
    if form == ".parquet":
        return mutate_parquet(pa.Table.from_pylist(content), rng)
    flat = [{name: value for name, value in row.items() if not isinstance(value, (dict, list))} for row in content]
    return mutate_table(flat, rng, "\t" if form == ".tsv" else ",")


def _independently(path: Path, column: str) -> set[str] | None:
    """Return the texts of a column as Python or pyarrow read them; None where they do not."""
    try:
        if path.suffix == ".parquet":
            found = pq.read_table(path).to_pylist()
        elif path.suffix in (".csv", ".tsv"):
            text = path.read_text(encoding="utf-8-sig", newline="")
            found = list(
                csv.DictReader(io.StringIO(text, newline=""), delimiter="\t" if path.suffix == ".tsv" else ",")
            )
        elif path.suffix == ".json":
            content = json.loads(path.read_text(encoding="utf-8-sig"))
            found = (
                content if isinstance(content, list) else next(own for own in content.values() if isinstance(own, list))
            )
        else:
            raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            found = [json.loads(line) for line in raw.decode("utf-8-sig").split("\n") if line.strip()]
    except Exception:
        return None
    texts = {
        row.get(column) for row in found if isinstance(row, dict) and isinstance(row.get(column), (str, int, float))
    }
    return {str(text) for text in texts} | {str(text).strip() for text in texts}


# results


def results(stock: Stock, folder: Path) -> Attempt:
    """Fuzz results and their samples; the means of a report are those of the file."""
    from report.synthetic import write_line
    from rsoup.report.analysis import analyse
    from rsoup.report.inputs import read_inputs
    from rsoup.report.options import Options
    from rsoup.report.rendering import render_page

    path = write_line(folder, prompts=6, lambdas=3, measures=True)
    samples = path.parent / "samples.parquet"
    originals = path.read_bytes(), samples.read_bytes()
    table = pq.read_table(samples)

    def attempt(rng: random.Random) -> bool:
        path.write_bytes(originals[0])
        samples.write_bytes(originals[1])
        if rng.random() < 0.6:
            path.write_bytes(mutate_text(originals[0], rng))
        else:
            samples.write_bytes(mutate_parquet(table, rng) if rng.random() < 0.6 else mutate_bytes(originals[1], rng))
        found: list[Any] = []

        def read() -> None:
            measured = read_inputs([path], {}, {})
            found.append(measured)
            report = analyse(measured, Options(draws=20))
            render_page(report, measured.texts)
            json.dumps(report.model_dump(mode="json", by_alias=True), allow_nan=False)

        if refused(read):
            return False
        told = {point["id"]: point["scores"] for point in json.loads(path.read_bytes().decode("utf-8-sig"))["points"]}
        for row, model in enumerate(found[0].models):
            for place, name in enumerate(found[0].rewards):
                if name not in told[model.id]:
                    continue
                if not math.isclose(found[0].scores[row, place], told[model.id][name]["mean"], abs_tol=1e-9):
                    raise Fault(
                        f"{model.id} {name} is {found[0].scores[row, place]}, in the file {told[model.id][name]}"
                    )
        return True

    return attempt


def tables(stock: Stock, folder: Path) -> Attempt:
    """Fuzz tables of points, results of lm-eval, and printed lines."""
    from report.test_lmeval import content as lm_eval
    from rsoup.report.analysis import analyse
    from rsoup.report.inputs import read_inputs
    from rsoup.report.options import Options
    from rsoup.report.rendering import render_page

    points = [
        {"id": f"m{n}", "kind": "soup", "lambda": n / 4, "score:a": 0.2 + n / 10, "score:b": 0.8 - n / 7, "seed": 0}
        for n in range(5)
    ]
    mixes = [
        {"name": f"m{n}", "weight:x": n / 4, "weight:y": 1 - n / 4, "a (min)": n / 3, "b": 2 - n, "b_stderr": 0.1}
        for n in range(5)
    ]
    printed = (Path(__file__).parents[1] / "report/data/printed.txt").read_bytes()

    def attempt(rng: random.Random) -> bool:
        kind = rng.choice(["csv", "csv", "tsv", "json", "txt"])
        objectives: dict[str, str] = {}
        if kind in ("csv", "tsv"):
            paths = [folder / f"points.{kind}"]
            paths[0].write_bytes(mutate_table(rng.choice([points, mixes]), rng, "\t" if kind == "tsv" else ","))
        elif kind == "json":
            paths = [folder / f"results_{n}.json" for n in range(3)]
            for n, path in enumerate(paths):
                path.write_bytes(as_json(lm_eval(0.4 + n / 10, 20 - n * n, model_name=f"m{n}")))
            paths[0].write_bytes(mutate_text(paths[0].read_bytes(), rng))
            objectives = {"em": "gsm8k.exact_match,strict-match", "ppl": "wikitext.word_perplexity,none"}
            if rng.random() < 0.3:
                objectives = {}
        else:
            paths = [folder / "printed.txt"]
            paths[0].write_bytes(mutate_bytes(printed, rng))
            objectives = {"r1": "grs.LABEL_0", "r2": "bfsd.FAITHFUL-bfsd.HALLUCINATED"}

        def read() -> None:
            measured = read_inputs(paths, objectives, {})
            if not np.isfinite(measured.scores).all():
                raise Fault("a score that is no number")
            report = analyse(measured, Options(draws=20))
            render_page(report, measured.texts)
            json.dumps(report.model_dump(mode="json", by_alias=True), allow_nan=False)

        return not refused(read)

    return attempt


# folders of models and adapters


@dataclass(frozen=True)
class Folders:
    """Inputs of a mix, of which one file is broken at a time, and where the output goes."""

    inputs: Path
    output: Path
    files: Mapping[Path, bytes]

    def breaking(self, rng: random.Random) -> Path:
        """Break one file, whole again the next time."""
        for path, content in self.files.items():
            if not path.is_file() or path.read_bytes() != content:
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(content)
        path = rng.choice(sorted(self.files))
        content = self.files[path]
        if path.suffix == ".safetensors":
            content = mutate_safetensors(content, rng)
        elif path.suffix == ".json":
            content = mutate_text(content, rng)
        else:
            content = mutate_bytes(content, rng)
        path.write_bytes(content)
        if rng.random() < 0.03:
            path.unlink()
        return path

    def ended(self, made: bool) -> None:
        """Check that the output is whole, or not there, and remove it."""
        there = [path.name for path in self.output.parent.iterdir()]
        if there != ([self.output.name] if made else []):
            raise Fault(f"left behind: {there}")
        if made:
            _check_whole(self.output)
            shutil.rmtree(self.output)


def _check_whole(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.suffix == ".safetensors":
            load_file(path)
        elif path.name in ("rsoup.json", "adapter_config.json", "model.safetensors.index.json"):
            json.loads(path.read_text(encoding="utf-8"))


def _folders(folder: Path, sources: Sequence[Path], names: Callable[[str], bool] = lambda _: True) -> Folders:
    inputs, output = folder / "in", folder / "out" / "made"
    output.parent.mkdir(parents=True)
    for source in sources:
        shutil.copytree(source, inputs / source.name)
    files = [path for path in inputs.rglob("*") if path.is_file() and names(path.name)]
    return Folders(inputs, output, {path: path.read_bytes() for path in files})


def _small_models(folder: Path) -> list[Path]:
    from mixing.checkpoints.models import make_model

    whole = make_model(folder / "a", 0, dtype="F32")
    return [whole, make_model(folder / "b", 1, shards=2, dtype="BF16")]


def _tensors(folder: Path) -> dict[str, np.ndarray]:
    """Return a model's tensors as float64, of the files that transformers would read."""
    single = folder / "model.safetensors"
    if single.exists():
        files = [single]
    else:
        index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
        files = [folder / name for name in sorted(set(index.values()))]
    return {name: own.astype(np.float64) for path in files for name, own in load_file(path).items()}


def models(stock: Stock, folder: Path) -> Attempt:
    """Fuzz whole models to mix; what is accepted is the mean of what safetensors reads."""
    own = _folders(folder, _small_models(folder / "sources"))
    sources = [own.inputs / name for name in ("a", "b")]

    def attempt(rng: random.Random) -> bool:
        own.breaking(rng)
        order = rng.sample(sources, 2)
        options = {"method": rng.choice(["linear", "linear", "slerp"])}

        def mix() -> None:
            checkpoints.write_model(checkpoints.mix_models(order, [0.25, 0.75], **options), own.output)

        made = not refused(mix)
        if made and options["method"] == "linear":
            _compare_mean(order, own.output)
        own.ended(made)
        return made

    return attempt


def _compare_mean(sources: Sequence[Path], output: Path) -> None:
    try:
        first, second = (_tensors(source) for source in sources)
    except (SafetensorError, KeyError, TypeError, ValueError) as problem:
        raise Fault(f"mixed what safetensors does not read: {problem!r:.200}") from problem
    found = _tensors(output)
    for name, value in found.items():
        if name in first and name in second and first[name].shape == second[name].shape == value.shape:
            expected = 0.25 * first[name] + 0.75 * second[name]
            error = np.abs(value - expected).max(initial=0) / max(1e-30, np.abs(expected).max(initial=0))
            if not error < 0.01:
                raise Fault(f"{name} is off by {error}")


def merges(stock: Stock, folder: Path) -> Attempt:
    """Fuzz bases to merge into, and the adapters, their tokenizer among them."""
    from mixing.making import make_adapter
    from mixing.test_merging import make_base

    sources = [make_adapter(folder / "sources" / name, seed) for seed, name in enumerate(("x", "y"))]
    for source in sources:
        (source / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"a": 0}}, "added_tokens": []}))
        (source / "tokenizer_config.json").write_text(json.dumps({"name_or_path": "here", "eos_token": "a"}))
        (source / "chat_template.jinja").write_text("{{ messages }}")
    base = make_base(folder / "sources" / "base", shards=2, tie_word_embeddings=None)
    for name in ("tokenizer_config.json", "generation_config.json"):
        (base / name).write_text(json.dumps({"from": name}))
    own = _folders(folder, [*sources, base])
    adapters = [own.inputs / name for name in ("x", "y")]

    def attempt(rng: random.Random) -> bool:
        own.breaking(rng)
        method = rng.choice(["factors", "cat", "svd"])

        def merge() -> None:
            soup = mixing.mix(adapters, [0.5, 0.5], method=method)
            if rng.random() < 0.5:
                mixing.merge(soup, own.inputs / "base", own.output)
            else:
                mixing.write(soup, own.output)

        made = not refused(merge)
        own.ended(made)
        return made

    return attempt


def extractions(stock: Stock, folder: Path) -> Attempt:
    """Fuzz a model and its base to extract an adapter from; at full rank that is the difference."""
    own = _folders(folder, _small_models(folder / "sources"))

    def attempt(rng: random.Random) -> bool:
        own.breaking(rng)
        model, base = own.inputs / "a", own.inputs / "b"

        def extract() -> None:
            checkpoints.extract(model, base, own.output, rank=rng.choice([1, 8]))

        made = not refused(extract)
        if made:
            mixing.mix([own.output], [1.0])
        own.ended(made)
        return made

    return attempt


def measured_models(stock: Stock, folder: Path) -> Attempt:
    """Fuzz models to evaluate, their configuration and tokenizer too."""
    from rsoup.evaluation.sweep import evaluate
    from rsoup.progress import Silent
    from rsoup.recipe_file import parse_recipe
    from rsoup.resolve import resolve

    own = _folders(folder, [stock.model, stock.other])
    first, second = (own.inputs / source.name for source in (stock.model, stock.other))
    content = recipe_content(folder, first)
    content |= {"morl": [], "rewards": ["brief"]}
    content["evaluation"] = {"prompts": 2, "lambdas": 3, "max_new_tokens": 4, "measures": False}

    def attempt(rng: random.Random) -> bool:
        own.breaking(rng)
        _forget()

        def measure() -> None:
            evaluate(resolve(parse_recipe(content, "fuzzed")), [f"a={first}", f"b={second}"], own.output, Silent())

        made = not refused(measure)
        if made:
            json.loads((own.output / "results.json").read_text())
        shutil.rmtree(own.output, ignore_errors=True)
        return made

    return attempt


def bases(stock: Stock, folder: Path) -> Attempt:
    """Fuzz the model that is trained, its configuration and tokenizer too, up to the start of a training."""
    from rsoup.models.load import load_language_model
    from rsoup.recipe_file import parse_recipe
    from rsoup.resolve import resolve
    from rsoup.training.policy import Policy, fresh_config

    own = _folders(folder, [stock.model])
    model = own.inputs / stock.model.name
    content = recipe_content(folder, model)

    def attempt(rng: random.Random) -> bool:
        own.breaking(rng)
        _forget()

        def load() -> None:
            resolved = resolve(parse_recipe(content, "fuzzed"))
            resolved.check()
            language = load_language_model(str(model), revision=None, dtype="float32")
            Policy(language, fresh_config(resolved.recipe.model.lora, language))

        return not refused(load)

    return attempt


def _forget() -> None:
    """Empty what is remembered of folders for the life of a process: here they change within it."""
    from rsoup import files
    from rsoup.models import load

    for remembered in (files.weights_sha256, load.model_sha256):
        remembered.cache_clear()


TARGETS: dict[str, Callable[[Stock, Path], Attempt]] = {
    target.__name__: target
    for target in (recipes, rows, results, tables, models, merges, extractions, measured_models, bases)
}


@cache
def attempt_of(name: str, stock: Stock, folder: Path) -> Attempt:
    """Return what tries an input of a target, made once."""
    (folder / name).mkdir(parents=True)
    return TARGETS[name](stock, folder / name)
