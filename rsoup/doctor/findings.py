"""What of a machine's facts a user should know: pure functions of plain data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from rsoup.doctor.machine import GIB, Machine
from rsoup.doctor.needs import BESIDE, EXTRAS, fits, module_of, requirements
from rsoup.errors import see
from rsoup.installing import pip_line
from rsoup.recipe_headers import Header

Kind = Literal["broken", "refused", "slow", "note"]
LITTLE_DISK = 2 * GIB
NEARLY = 0.93


@dataclass(frozen=True)
class Finding:
    """Something that a user should know, and what to do about it; ``broken`` means that commands will fail."""

    kind: Kind
    what: str
    do: str


@dataclass(frozen=True)
class Device:
    """An accelerator that torch can use; memory in bytes, ``bf16`` if it computes in bfloat16."""

    kind: str
    name: str
    memory: int | None
    bf16: bool


@dataclass(frozen=True)
class Facts:
    """What was found: packages by name with their versions, what failed to import by package, offline flags, ...

    ``cuda`` is the CUDA release that torch was built for (``rocm`` counts as one); ``devices`` is None where nobody
    asked torch, ``hub`` where nobody asked the hub.
    """

    rsoup: str
    machine: Machine
    packages: Mapping[str, str]
    cuda: str | None = None
    devices: tuple[Device, ...] | None = None
    failures: Mapping[str, str] = field(default_factory=dict)
    models: Mapping[str, str] = field(default_factory=dict)
    cached: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    hub: str | None = None
    recipes: Mapping[str, Header] = field(default_factory=dict)

    @property
    def extras(self) -> dict[str, list[str]]:
        """The packages that each extra lacks."""
        return {name: extra.missing(self.packages) for name, extra in EXTRAS.items()}

    @property
    def usable(self) -> bool:
        """Whether nothing that is installed is broken."""
        return not any(finding.kind == "broken" for finding in findings(self))

    @property
    def offline(self) -> bool:
        """Whether the environment forbids the hub."""
        return self.settings.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON")


def findings(facts: Facts) -> list[Finding]:
    """Return what is broken, refused, slow or worth a note, in this order."""
    order = ("broken", "refused", "slow", "note")
    found = [*_packages(facts), *_accelerators(facts), *_processor(facts), *_room(facts), *_hub(facts)]
    return sorted(found, key=lambda finding: order.index(finding.kind))


def _packages(facts: Facts) -> Iterator[Finding]:
    for name, why in facts.failures.items():
        hint = "pip check names packages that do not fit; constraints.txt lists releases that do"
        yield Finding(
            "broken",
            f"{name} {facts.packages.get(name, '')} cannot be imported: {why}",
            f"{hint}{see('a-package-cannot-be-imported')}",
        )
    for name, wanted in requirements().items():
        version = facts.packages.get(name)
        if version is not None and not fits(version, wanted):
            yield Finding(
                "broken", f"{name} {version} is installed, and rsoup needs {wanted}", f'pip install "{name}{wanted}"'
            )
    if "torch" not in facts.packages:
        yield Finding(
            "refused",
            "no torch: run, train, morl, eval, serve and chat are refused; mix, pareto, rewards and recipes work",
            pip_line("train"),
        )
    for package in ("bitsandbytes",):
        if package not in facts.packages and any(one.kind == "cuda" for one in facts.devices or ()):
            what = f"{BESIDE[package]} (8bit, 4bit) is refused without {package}; the paper's recipes set it"
            yield Finding("refused", what, f"pip install {package}")


def _accelerators(facts: Facts) -> Iterator[Finding]:
    driver = facts.machine.nvidia_driver
    if "torch" not in facts.packages or module_of("torch") in facts.failures:
        return
    if facts.devices == () and facts.cuda is not None:
        what = f"torch is built for CUDA {facts.cuda} and finds no GPU: everything runs on the processor"
        do = f"check nvidia-smi and CUDA_VISIBLE_DEVICES; torch's CPU build is smaller{see('the-gpu-is-not-used')}"
        yield Finding("slow", what, do)
    if driver is not None and facts.cuda is None:
        what = f"NVIDIA's driver {driver} is here, and this torch is built for processors alone"
        yield Finding("slow", what, f"install the CUDA build of torch{see('the-gpu-is-not-used')}")
    for device in facts.devices or ():
        if device.kind == "cuda" and not device.bf16:
            what = f"{device.name} does not compute in bfloat16"
            yield Finding("note", what, "leave model.dtype at auto (float16 here), or set float32")


def _processor(facts: Facts) -> Iterator[Finding]:
    machine = facts.machine
    if facts.devices:
        return
    if not machine.computes_bf16:
        what = "the processor has neither AMX nor AVX-512 BF16: bfloat16 would be slow"
        yield Finding("slow", what, "leave model.dtype at auto (float32 here)")
    if machine.cores == 1:
        yield Finding("slow", "one core: trainings take about twice the times that recipes tell", "use more if you can")
    threads = facts.settings.get("OMP_NUM_THREADS", "")
    if threads.isdigit() and int(threads) < machine.cores:
        what = f"OMP_NUM_THREADS={threads} leaves {machine.cores - int(threads)} of {machine.cores} cores idle"
        yield Finding("slow", what, "unset OMP_NUM_THREADS")


def _room(facts: Facts) -> Iterator[Finding]:
    machine = facts.machine
    short: dict[int, list[str]] = {}
    for name, header in facts.recipes.items():
        if header.memory is not None and _exceeds(header.memory, machine.memory):
            short.setdefault(header.memory, []).append(name)
    for memory, names in short.items():
        what = f"{_gib(machine.memory)} of memory; {memory // GIB} GB are needed for {', '.join(names)}"
        yield Finding(
            "refused", what, f"take a larger machine, or lower training.prompts_per_pass{see('out-of-memory')}"
        )
    if machine.free_disk < LITTLE_DISK:
        yield Finding("note", f"{_gib(machine.free_disk)} of disk are free here", "give a folder elsewhere with -o")


def _hub(facts: Facts) -> Iterator[Finding]:
    if facts.offline:
        what = "HF_HUB_OFFLINE is set: hub ids are looked for on this machine alone"
        yield Finding("note", what, "unset it to fetch models and data")
    if facts.hub not in (None, "reachable"):
        yield Finding("refused", f"the hub: {facts.hub}", f"name folders in the place of hub ids{see('no-network')}")


def fitting(facts: Facts) -> dict[str, str | None]:
    """Return for each bundled recipe what this machine lacks for it, None if nothing that is known."""
    return {name: _lack(header, facts) for name, header in facts.recipes.items()}


def _lack(header: Header, facts: Facts) -> str | None:
    machine = facts.machine
    extras = [extra for extra in header.extras if facts.extras.get(extra)]
    lacks = {
        _lacking_gpu(header, facts.devices): True,
        f"{_whole(header.memory)} GB of memory": _exceeds(header.memory, machine.memory),
        f"{_whole(header.disk)} GB of disk": _exceeds(header.disk, machine.free_disk),
        f"[{','.join(extras)}]": bool(extras),
        "the hub": header.hub and facts.offline,
    }
    return next((name for name, lacking in lacks.items() if name and lacking), None)


def _lacking_gpu(header: Header, devices: tuple[Device, ...] | None) -> str | None:
    """Return the GPU that a recipe needs and that is not there; None if it is, or nobody asked torch."""
    if not header.gpu or devices is None:
        return None
    if not devices:
        return "a GPU"
    largest = max(device.memory or 0 for device in devices)
    return f"a GPU of {_whole(header.gpu_memory)} GB" if _exceeds(header.gpu_memory, largest) else None


def _exceeds(needed: int | None, there: int | None) -> bool:
    """Tell whether more is needed than is there; machines tell a little less than they are sold with."""
    return needed is not None and there is not None and there < NEARLY * needed


def _whole(size: int | None) -> int:
    return (size or 0) // GIB


def _gib(size: int | None) -> str:
    return "?" if size is None else f"{size / GIB:.1f} GB"
