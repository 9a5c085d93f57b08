"""Does vLLM say what rsoup says? Run in an environment of its own: make vllm-check (Linux; a CPU will do).

Two random adapters on the quickstart's model; the same greedy completions are made (1) by ``rsoup eval`` with both of
its engines, at every lambda, and (2) by ``rsoup serve --engine vllm``, which makes each mix when its name is first
asked for, beside the materialised mix on transformers. Prints how many agree, and fails if the served mixes do not
differ, if a name that is none is served, or if fewer than ``--least`` of the completions agree: vLLM rounds in another
order.

Then (3) PPO trains with completions that vLLM samples: prints how far its log-probabilities are from those of our own
pass, in float32 and in bfloat16, and fails if they are more than rounding apart. And factors are changed from one
sampling to the next: vLLM's log-probabilities have to be those of the present ones, not of those before.

``--only`` eval, serve or ppo does one of the three.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from rsoup import mixing
from rsoup.evaluation.rows import applied_in_passing
from rsoup.models import packing
from rsoup.models.bundled import bundled_folder
from rsoup.models.load import load_language_model, model_source
from rsoup.recipe import GenerationSection, LoraSection, VllmSection
from rsoup.recipe_file import dump_recipe, parse_recipe
from rsoup.training.policy import Policy, fresh_config
from rsoup.training.vllm_sampling import Place, VllmSampler, mismatch

BASE, TOKENS, PORT = "smollm2-135m-instruct", 12, 8753
SPREAD = 0.02
"""Of the random numbers in B: enough to change what is said."""
CHANGE = 0.06
"""Of the random numbers in B that are changed from one sampling to the next: more than bfloat16 rounds."""
LAMBDAS = (0.0, 0.25, 0.5, 0.75, 1.0)
ROUNDING = {"float32": 1e-3, "bfloat16": 0.1}
"""The mean distance of log-probabilities that is taken for rounding."""
SUBJECTS = ("The kettle boils fast", "My phone broke", "A book about bread", "The chair is too low", "Rain on the roof")


def make_adapters(folder: Path) -> list[Path]:
    """Write two random adapters of one base."""
    model = AutoModelForCausalLM.from_pretrained(bundled_folder(BASE), dtype=torch.float32)
    made = []
    for seed, name in enumerate(("one", "two")):
        torch.manual_seed(seed)
        peft = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj", "o_proj"]))
        for key, parameter in peft.named_parameters():
            if "lora_B" in key:
                torch.nn.init.normal_(parameter, std=SPREAD)
        peft.save_pretrained(folder / name)
        model = peft.unload()
        made.append(folder / name)
    return made


def write_run(folder: Path, adapters: Sequence[Path]) -> Path:
    """Write the folder of a run that holds the adapters."""
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps({"id": n, "post": post}) + "\n" for n, post in enumerate(SUBJECTS * 2)))
    recipe = parse_recipe(
        {
            "name": "check",
            "output": str(folder / "run"),
            "model": {"base": BASE, "dtype": "float32"},
            "task": {"data": str(rows), "eval_data": str(rows), "template": "Once more: {post}, and"},
            "rewards": {"one": {"use": "brief"}, "two": {"use": "varied"}},
            "evaluation": {"lambdas": len(LAMBDAS), "max_new_tokens": TOKENS, "measures": False, "dtype": "float32"},
        },
        "check",
    )
    (folder / "run" / "adapters").mkdir(parents=True)
    (folder / "run" / "recipe.yaml").write_text(dump_recipe(recipe))
    for path in adapters:
        path.rename(folder / "run" / "adapters" / path.name)
    return folder / "run"


def evaluated(run: Path, engine: str) -> dict[str, tuple[str, ...]]:
    """Return the completions of every point that ``rsoup eval`` makes with an engine."""
    from rsoup.evaluation.results import RESULTS, read_results, read_samples

    out = run.parent / engine
    adapters = [str(run / "adapters" / name) for name in ("one", "two")]
    words = ["eval", str(run / "recipe.yaml"), "--engine", engine, "-o", str(out), "--allow-different-starts"]
    ended = subprocess.run(
        [sys.executable, "-m", "rsoup", *words, "--adapters", *adapters], capture_output=True, text=True, check=False
    )
    if ended.returncode:
        raise SystemExit(ended.stderr)
    strange = [line for line in ended.stderr.splitlines() if "INFO" in line or "WARNING" in line]
    print(f"eval --engine {engine}: {len(strange)} lines of the engine among ours")
    results = read_results(out / "eval" / RESULTS)
    samples = read_samples(out / "eval" / RESULTS, results)
    return {name: own.completions for name, own in samples.points.items()}


@contextmanager
def served(run: Path, more: str) -> Iterator[str]:
    """Serve the run with vLLM within the block; yield the URL."""
    words = ["serve", str(run), "--engine", "vllm", "--port", str(PORT), "--dtype", "float32", "--vllm-args", more]
    command = [sys.executable, "-m", "rsoup", *words, "--allow-different-starts"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    url = f"http://127.0.0.1:{PORT}"
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{url}/v1/models", timeout=2)
                break
            except OSError:
                if process.poll() is not None:
                    raise SystemExit("vLLM's server ended before it answered.") from None
                time.sleep(1)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


def trained(run: Path, dtype: str) -> list[dict[str, Any]]:
    """Return the metrics of a PPO training whose completions vLLM samples, or end the check."""
    out = run.parent / f"trained-{dtype}"
    settings = {
        "training.sampling": "vllm",
        "training.steps": 4,
        "training.learning_rate": 1e-3,
        "training.prompts_per_step": 4,
        "training.ppo.epochs": 2,
        "model.dtype": dtype,
        "generation.max_new_tokens": TOKENS,
    }
    words = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    command = [sys.executable, "-m", "rsoup", "train", str(run / "recipe.yaml"), "--reward", "one", "-o", str(out)]
    ended = subprocess.run([*command, *words], capture_output=True, text=True, check=False)
    if ended.returncode:
        raise SystemExit(ended.stderr)
    lines = (out / "adapters/one/metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@torch.no_grad()
def hand_over(dtype: str) -> None:
    """Print the mean distance of vLLM's log-probabilities from those of the present and of earlier factors, as JSON."""
    model = load_language_model(BASE, revision=None, dtype=dtype)
    policy = Policy(model, fresh_config(LoraSection(r=8, alpha=16), model))
    ids, mask = model.pad([model.tokenizer(f"Once more: {post}, and")["input_ids"] for post in SUBJECTS])
    generation = GenerationSection(max_new_tokens=TOKENS, temperature=0.7)
    sampler = VllmSampler(Place(model_source(BASE), None), VllmSection(), generation, longest=ids.shape[1], seed=0)
    random = torch.Generator().manual_seed(0)
    present, before = [], []
    earlier = {name: tensor.clone() for name, tensor in policy.factors().items()}
    for _ in range(3):
        for name, parameter in policy.peft.named_parameters():
            if "lora_B" in name:
                parameter.copy_(CHANGE * torch.randn(parameter.shape, generator=random))
        own = {name: tensor.clone() for name, tensor in policy.factors().items()}
        uniforms = torch.rand(len(ids), 4, TOKENS, generator=random)
        completions, theirs = sampler(policy, ids, mask, uniforms, None)
        for factors, gaps in ((own, present), (earlier, before)):
            policy.load_factors(factors, "factors")
            ours = policy.think(ids, mask, completions.ids, generation.temperature).logprobs
            gaps.append(mismatch(ours, theirs, completions.mask)["gap"])
        policy.load_factors(own, "factors")
        earlier = own
    print(json.dumps({"present": present, "before": before}))


def handed_over(dtype: str) -> dict[str, list[float]]:
    """Return what ``hand_over`` finds in a process of its own, or end the check."""
    command = [sys.executable, __file__, "hand-over", dtype]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise SystemExit(ended.stderr)
    found: dict[str, list[float]] = json.loads(ended.stdout.strip().splitlines()[-1])
    return found


def ask(url: str, model: str, prompt: str) -> str:
    """Return the greedy completion of a prompt by a model of the server."""
    body = {"model": model, "prompt": prompt, "max_tokens": TOKENS, "temperature": 0}
    request = urllib.request.Request(
        f"{url}/v1/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    answer: dict[str, Any] = json.load(urllib.request.urlopen(request, timeout=300))
    return str(answer["choices"][0]["text"])


@torch.no_grad()
def alone(weights: Mapping[str, float], run: Path, prompts: Sequence[str], base_weight: float) -> list[str]:
    """Return the greedy completions of a materialised mix on transformers, one by one."""
    model = load_language_model(BASE, revision=None, dtype="float32")
    mix = mixing.mix(
        [run / "adapters" / name for name in weights],
        list(weights.values()),
        base_weight=base_weight,
        allow_different_starts=True,
    )
    texts = []
    with applied_in_passing(model, mix.adapter):
        for prompt in prompts:
            ids = list(model.tokenizer(prompt)["input_ids"])
            begun = len(ids)
            for _ in range(TOKENS):
                row = torch.tensor([ids])
                mask = torch.ones_like(row, dtype=torch.bool)
                states = model.hidden_states(row, mask, packing.prompt_positions(mask))
                ids.append(int(model.logits(states[:, -1])[0].argmax()))
                if ids[-1] in model.stop_ids:
                    break
            texts.append(model.tokenizer.decode(ids[begun:], skip_special_tokens=True))
    return texts


def check_eval(run: Path, least: float) -> None:
    """Compare the two engines of ``rsoup eval``."""
    ours, theirs = evaluated(run, "transformers"), evaluated(run, "vllm")
    same = [a == b for name in ours for a, b in zip(ours[name], theirs[name], strict=True)]
    print(f"rsoup eval, {len(ours)} points: {sum(same)} of {len(same)} completions agree", flush=True)
    if np.mean(same) < least:
        raise SystemExit(f"Fewer than {least:.0%} agree.")


def check_serve(run: Path, least: float, vllm_args: str) -> None:
    """Compare what vLLM's server says of mixes with each mix by itself."""
    prompts = [f"Once more: {post}, and" for post in SUBJECTS]
    mixes: list[tuple[str, dict[str, float], float]] = [
        (f"soup:one={1 - lam:g},two={lam:g}", {"one": 1 - lam, "two": lam}, 0.0) for lam in LAMBDAS[1:-1]
    ]
    mixes += [("expert:one", {"one": 1.0}, 0.0), ("soup:one=0.5,base=0.5", {"one": 0.5}, 0.5)]
    agreed, said = [], []
    with served(run, vllm_args) as url:
        for name, weights, base_weight in mixes:
            own = [ask(url, name, prompt) for prompt in prompts]
            said.append(own)
            expected = alone(weights, run, prompts, base_weight)
            agreed += [one.strip() == other.strip() for one, other in zip(own, expected, strict=True)]
        try:
            ask(url, "soup:three=1", prompts[0])
        except urllib.error.HTTPError as problem:
            print(f"an unknown name is answered with {problem.code}")
        else:
            raise SystemExit("An unknown name was served.")
    print(f"rsoup serve --engine vllm, {len(mixes)} mixes: {sum(agreed)} of {len(agreed)} answers agree", flush=True)
    if len({tuple(own) for own in said}) == 1:
        raise SystemExit("All mixes say the same.")
    if np.mean(agreed) < least:
        raise SystemExit(f"Fewer than {least:.0%} agree.")


def check_ppo(run: Path, dtype: str, most: float) -> None:
    """Compare log-probabilities in a training, and whose factors vLLM has."""
    lines = trained(run, dtype)
    gaps = [line["sampling"]["gap"] for line in lines]
    low, high = (f([line["sampling"][f"ratio_{f.__name__}"] for line in lines]) for f in (min, max))
    mean = np.mean([line["sampling"]["ratio_mean"] for line in lines])
    print(
        f"PPO on samples of vLLM, {dtype}: log-probabilities {min(gaps):.1e} to {max(gaps):.1e} apart in "
        f"{len(lines)} steps, ratios {low:.4f} to {high:.4f}, {mean:.4f} in the mean, "
        f"KL at the end {lines[-1]['kl']:.2f}",
        flush=True,
    )
    found = handed_over(dtype)
    told = {name: ", ".join(f"{gap:.1e}" for gap in own) for name, own in found.items()}
    print(
        f"factors that change, {dtype}: {told['present']} from the present ones', {told['before']} from those before",
        flush=True,
    )
    if max(gaps) > most or max(found["present"]) > most:
        raise SystemExit("vLLM samples otherwise than rsoup trains.")
    if 3 * max(found["present"]) > min(found["before"]):
        raise SystemExit("It cannot be told whose factors vLLM has.")


def main() -> None:
    """Run the check and print what it found."""
    if sys.argv[1:2] == ["hand-over"]:
        hand_over(sys.argv[2])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--least", type=float, default=0.9, help="share of completions that have to agree")
    parser.add_argument("--only", choices=("eval", "serve", "ppo"))
    parser.add_argument("--vllm-args", default="--gpu-memory-utilization 0.3 --max-model-len 256")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        run = write_run(folder, make_adapters(folder))
        if given.only in (None, "eval"):
            check_eval(run, given.least)
        if given.only in (None, "serve"):
            check_serve(run, given.least, given.vllm_args)
        for dtype, most in ROUNDING.items() if given.only in (None, "ppo") else ():
            check_ppo(run, dtype, most)


if __name__ == "__main__":
    main()
