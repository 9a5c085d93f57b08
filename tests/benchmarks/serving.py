"""Serve requests that each have a mix of their own: the throughput of several ways, and what a storm of them leaves.

python tests/benchmarks/serving.py [MODEL]          16 and 64 requests of 24 tokens, every way in one go
python tests/benchmarks/serving.py storm [COUNT]    a server process under COUNT (1000) requests, 32 at a time
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "benchmarks")]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from peft import PeftModel  # noqa: E402
from sweep import Spent, spending, write_adapters  # noqa: E402
from tables import show  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

from rsoup import mixing  # noqa: E402
from rsoup.evaluation.applying import applied  # noqa: E402
from rsoup.models.load import keep_large_buffers, load_language_model, model_source  # noqa: E402
from rsoup.models.rowwise import Mix  # noqa: E402
from rsoup.models.sampling import sample  # noqa: E402
from rsoup.serving.engine import Engine  # noqa: E402
from rsoup.serving.jobs import Event, Job, Piece, Request  # noqa: E402
from rsoup.serving.served import Served  # noqa: E402
from serving.storm import storm  # noqa: E402
from tiny import build_adapter, build_tiny_model  # noqa: E402

TOKENS, PROMPT = 24, 40
"""New tokens of an answer, tokens of a prompt."""
EXPERTS = 2


def requests_of(count: int, vocabulary: int) -> list[Request]:
    """Return requests of random prompts, each with its own weights of two experts."""
    rng = np.random.default_rng(0)
    prompts = rng.integers(10, vocabulary, size=(count, PROMPT))
    shares = np.linspace(0, 1, count)
    return [
        Request(tuple(prompt), Mix((1 - share, share)), TOKENS)
        for prompt, share in zip(prompts.tolist(), shares.tolist(), strict=True)
    ]


def in_one_batch(served: Served, requests: Sequence[Request]) -> list[str]:
    """Answer with the engine: the rows of one batch have weights of their own."""
    engine = Engine(served, rows=len(requests), cache_tokens=1 << 20, queue=len(requests), on_problem=print)
    texts = [""] * len(requests)

    def deliverer(row: int) -> Callable[[Event], None]:
        def deliver(event: Event) -> None:
            assert isinstance(event, Piece)
            texts[row] += event.text

        return deliver

    for row, request in enumerate(requests):
        engine.submit(Job(request, deliverer(row)))
    with served.experts:
        while engine.wait(0):
            engine.step()
    return texts


@torch.no_grad()
def one_at_a_time(served: Served, requests: Sequence[Request]) -> list[str]:
    """Fold one mix after the other into the base, and answer its request."""
    model, texts = served.model, []
    for request in requests:
        with applied(model, served.mixed(request.mix)):
            texts += _generated(served, [request])
    return texts


@torch.no_grad()
def all_of_one_mix(served: Served, requests: Sequence[Request]) -> list[str]:
    """Answer all requests with the first one's mix, folded: a bound, not an answer."""
    with applied(served.model, served.mixed(requests[0].mix)):
        return _generated(served, requests)


def _generated(served: Served, requests: Sequence[Request]) -> list[str]:
    ids, mask = served.model.pad([request.prompt for request in requests])
    done = sample(served.model, ids, mask, max_new_tokens=TOKENS, temperature=0.0)
    return list(served.model.tokenizer.batch_decode(done.ids[:, 0], skip_special_tokens=True))


class Peft:
    """PEFT with as many materialised adapters as there are requests, named row by row (``adapter_names``)."""

    def __init__(self, served: Served, requests: Sequence[Request], folder: Path) -> None:
        base = AutoModelForCausalLM.from_pretrained(served.model.path, dtype=torch.float32)
        self.tokenizer, self.names = served.model.tokenizer, [f"mix{row}" for row in range(len(requests))]
        for name, request in zip(self.names, requests, strict=True):
            soup = mixing.mix(list(served.adapters.values()), request.mix.weights, method=served.method)
            mixing.write(soup, folder / name)
        model = PeftModel.from_pretrained(base, folder / self.names[0], adapter_name=self.names[0])
        for name in self.names[1:]:
            model.load_adapter(folder / name, adapter_name=name)
        self.model = model.to(served.model.device).eval()

    @torch.no_grad()
    def answer(self, requests: Sequence[Request]) -> list[str]:
        """Generate all answers at once."""
        ids = torch.tensor([request.prompt for request in requests], device=self.model.device)
        output = self.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            adapter_names=self.names,
            max_new_tokens=TOKENS,
            min_new_tokens=TOKENS,
            do_sample=False,
            pad_token_id=0,
        )
        return list(self.tokenizer.batch_decode(output[:, PROMPT:], skip_special_tokens=True))


def compare(name: str) -> None:
    """Print what every way takes for 16 and for 64 requests, and how many of its answers are those of the engine."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        paths = write_adapters(folder, model_source(name))[:EXPERTS]
        model = load_language_model(name, revision=None, dtype="float32")
        model.model.generation_config.eos_token_id = None  # every answer has all its tokens
        model.tokenizer.eos_token = None
        adapters = {path.name: mixing.read(path) for path in paths}
        served = Served(model, adapters, "factors")
        for count in (16, 64):
            requests = requests_of(count, model.head.weight.shape[0])
            peft = Peft(served, requests, folder / str(count))
            ways: dict[str, Callable[[], list[str]]] = {
                "rsoup, one batch": lambda r=requests: in_one_batch(served, r),  # type: ignore[misc]
                "a batch of one folded mix": lambda r=requests: all_of_one_mix(served, r),  # type: ignore[misc]
                "one mix at a time": lambda r=requests: one_at_a_time(served, r),  # type: ignore[misc]
                "PEFT adapter_names": lambda p=peft, r=requests: p.answer(r),  # type: ignore[misc]
            }
            in_one_batch(served, requests[:2]), peft  # a first call warms up
            tell(count, ways)


def tell(count: int, ways: dict[str, Callable[[], list[str]]]) -> None:
    """Run every way twice, in turns, and print the better time of each."""
    best: dict[str, Spent] = {}
    texts: dict[str, list[str]] = {}
    for _ in range(2):
        for name, way in ways.items():
            spent = Spent()
            with spending(spent):
                texts[name] = way()
            if name not in best or spent.wall < best[name].wall:
                best[name] = spent
    first = next(iter(ways))
    rows = []
    for name, spent in best.items():
        same = sum(one.strip() == other.strip() for one, other in zip(texts[first], texts[name], strict=True))
        figures = f"{spent.wall:.2f} s", f"{spent.cpu:.2f}", f"{count * TOKENS / spent.wall:.0f}"
        rows.append([name, *figures, f"{spent.wall / best[first].wall:.2f}", f"{same} of {count}"])
    show([f"{count} requests", "time", "processor s", "tokens/s", "time beside", "the same answers"], rows)


@contextmanager
def server(folder: Path) -> Iterator[tuple[str, int, list[str]]]:
    """Yield the URL of a server process on a tiny model, its number, and the names of its adapters."""
    model = build_tiny_model(folder / "tiny", 0)
    names = ["one", "two", "three"]
    paths = [build_adapter(folder / name, model, seed) for seed, name in enumerate(names)]
    command: list[Any] = [sys.executable, "-m", "rsoup", "serve", "--model", model, "--adapters", *paths]
    command += ["--allow-different-starts", "--port", "0", "--batch", "16", "--cache-tokens", "4096", "--queue", "24"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip(), process.pid, names
    finally:
        process.terminate()
        print(f"exit code after SIGTERM: {process.wait(30)}")


def resident(pid: int) -> float:
    """Return the memory of a process in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found
    return int(found[1]) / 1024


def metric(url: str, name: str) -> float:
    """Return a figure of a server."""
    import httpx2

    found = re.search(rf"^rsoup_{name} (\S+)$", httpx2.get(f"{url[:-3]}/metrics").text, re.MULTILINE)
    assert found
    return float(found[1])


def weather(count: int) -> None:
    """Print how a server stands a storm: latencies, what went wrong, places still taken, memory."""
    with tempfile.TemporaryDirectory() as folder, server(Path(folder)) as (url, pid, names):
        asyncio.run(storm(url, "none", names, count=count // 10, at_once=32, seed=1))  # buffers reach their size
        before = resident(pid)
        began = time.monotonic()
        outcome = asyncio.run(storm(url, "none", names, count=count, at_once=32))
        took = time.monotonic() - began
        time.sleep(2)
        left = {name: metric(url, name) for name in ("answers_running", "requests_waiting", "cache_tokens")}
        show(
            ["requests", "time", "answers", "429", "p50", "p99", "wrong", "left at the end", "memory before, after"],
            [
                [
                    count,
                    f"{took:.1f} s",
                    outcome.kinds,
                    outcome.busy,
                    f"{outcome.quantile(0.5):.2f} s",
                    f"{outcome.quantile(0.99):.2f} s",
                    outcome.wrong or "nothing",
                    left,
                    f"{before:.0f} MB, {resident(pid):.0f} MB",
                ]
            ],
        )


if __name__ == "__main__":
    keep_large_buffers()
    if sys.argv[1:2] == ["storm"]:
        weather(int((sys.argv[2:] or ["1000"])[0]))
    else:
        compare((sys.argv[1:] or ["smollm2-135m-instruct"])[0])
