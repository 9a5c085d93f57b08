"""Try a wheel in a bare environment, with the base dependencies alone; ``make wheel-check`` builds and installs it.

    BARE/bin/python tests/benchmarks/wheel_check.py

Every command runs in an empty folder, so that nothing of a checkout is found.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

RSOUP = Path(sys.executable).with_name("rsoup")
CONFIG = {
    "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "owner/base", "r": 2, "lora_alpha": 4,
    "target_modules": ["q_proj"], "lora_dropout": 0.0, "bias": "none", "fan_in_fan_out": False,
}  # fmt: skip
LAYER = "base_model.model.model.layers.0.self_attn.q_proj"
POINTS = "kind,lambda,a,b\nbase,,0,0\nexpert,0,3,1\nsoup,0.5,2.5,2.5\nexpert,1,1,3\n"


def run(folder: Path, *words: str, code: int = 0) -> str:
    """Run a command, check its exit code, and return what it printed."""
    ended = subprocess.run([RSOUP, *words], cwd=folder, capture_output=True, text=True, check=False)
    said = f"rsoup {' '.join(words)}: exit code {ended.returncode}\n{ended.stdout}{ended.stderr}"
    assert ended.returncode == code, said
    assert "Traceback" not in ended.stderr, said
    print(f"rsoup {' '.join(words)}: as it should be")
    return ended.stdout + ended.stderr


def write_adapter(folder: Path, seed: int) -> str:
    """Write a small adapter as PEFT does."""
    folder.mkdir()
    random = np.random.default_rng(seed)
    factors = {"lora_A": (2, 8), "lora_B": (8, 2)}
    tensors = {f"{LAYER}.{key}.weight": random.normal(size=shape).astype(np.float32) for key, shape in factors.items()}
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG))
    return str(folder)


def main() -> None:
    """Run every command that needs no torch, and one that does."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        assert "Rewarded soups" in run(folder, "--help")
        listed = run(folder, "recipes")
        assert "quickstart" in listed
        assert "paper-assistant" in listed
        assert run(folder, "recipes", "quickstart").startswith("# Quickstart")
        assert "faithful" in run(folder, "rewards")
        adapters = [write_adapter(folder / name, seed) for seed, name in enumerate("ab")]
        run(folder, "mix", *adapters, "--lambda", "0.3", "-o", "soup")
        assert (folder / "soup/adapter_model.safetensors").is_file()
        (folder / "points.csv").write_text(POINTS)
        run(folder, "pareto", "points.csv", "-o", "report")
        page = (folder / "report/index.html").read_text(encoding="utf-8")
        assert "soup" in page
        assert len(page) > 10_000
        told = run(folder, "doctor")
        assert "no torch" in told
        assert "- train" in told
        (folder / "rows.jsonl").write_text("".join(f'{{"prompt": "Question {n}?"}}\n' for n in range(20)))
        run(folder, "init", "rows.jsonl", "--model", "owner/base", "-r", "brief", "-r", "varied", "--yes")
        assert (folder / "rows.yaml").is_file()
        assert "needs the package" in run(folder, "run", "rows.yaml", code=1)


if __name__ == "__main__":
    main()
