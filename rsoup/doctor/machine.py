"""What a machine has: cores, memory, disk, what its processor can do; told without importing torch."""

from __future__ import annotations

import math
import os
import platform
import re
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

GIB = 2**30
CGROUP = Path("/sys/fs/cgroup")
FEATURES = {"amx_tile": "AMX", "avx512_bf16": "AVX-512 BF16", "avx512f": "AVX-512", "avx2": "AVX2"}
"""What Linux calls what a processor can do, and its usual name."""
BF16 = ("AMX", "AVX-512 BF16")
"""Either of them makes a processor compute in bfloat16."""


@dataclass(frozen=True)
class Machine:
    """A machine; memory and disk in bytes, None where the system does not tell."""

    system: str
    python: str
    processor: str
    features: tuple[str, ...]
    cores: int
    memory: int | None
    free_memory: int | None
    free_disk: int
    nvidia_driver: str | None

    @property
    def computes_bf16(self) -> bool:
        """Whether the processor multiplies bfloat16 by itself."""
        return any(name in self.features for name in BF16)


def this_machine(folder: Path) -> Machine:
    """Return what this machine has; ``folder`` is where runs will be written."""
    cpuinfo, meminfo = _text(Path("/proc/cpuinfo")), _text(Path("/proc/meminfo"))
    memory, free = memory_of(meminfo) or (_total_memory(), None)
    limit = limit_of(_text(CGROUP / "memory.max"))
    if limit is not None and (memory is None or limit < memory):
        memory, free = limit, None if free is None else min(free, limit)
    return Machine(
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        processor=processor_of(cpuinfo) or platform.processor() or platform.machine(),
        features=features_of(cpuinfo),
        cores=_cores(),
        memory=memory,
        free_memory=free,
        free_disk=shutil.disk_usage(_there(folder)).free,
        nvidia_driver=driver_of(_text(Path("/proc/driver/nvidia/version"))),
    )


def features_of(cpuinfo: str) -> tuple[str, ...]:
    """Return what a processor can do that matters here, from Linux's description of it."""
    match = re.search(r"^flags\s*:(.*)$", cpuinfo, re.MULTILINE)
    flags = set(match[1].split()) if match else set()
    return tuple(name for flag, name in FEATURES.items() if flag in flags)


def processor_of(cpuinfo: str) -> str | None:
    """Return the name of a processor, from Linux's description of it."""
    match = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return match[1].strip() if match else None


def memory_of(meminfo: str) -> tuple[int, int] | None:
    """Return the memory of a Linux machine in bytes, all of it and what is free or can be freed."""
    found = {key: int(size) * 1024 for key, size in re.findall(r"^(Mem\w+):\s+(\d+) kB", meminfo, re.MULTILINE)}
    if "MemTotal" not in found:
        return None
    return found["MemTotal"], found.get("MemAvailable", found["MemTotal"])


def limit_of(text: str) -> int | None:
    """Return the limit that a control group sets, None if it sets none."""
    return int(text) if text.strip().isdigit() else None


def quota_of(text: str) -> int | None:
    """Return how many cores a control group (cpu.max: quota and period) lets a process have, None if all."""
    quota, _, period = text.strip().partition(" ")
    return math.ceil(int(quota) / int(period)) if quota.isdigit() and period.isdigit() and int(period) else None


def driver_of(version: str) -> str | None:
    """Return the version of NVIDIA's driver, from what it tells of itself."""
    match = re.search(r"Kernel Module.*?\s(\d+\.\d+[\d.]*)\s", version)
    return match[1] if match else None


def _cores() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, quota_of(_text(CGROUP / "cpu.max")) or cores)


def _total_memory() -> int | None:
    with suppress(ValueError, OSError, AttributeError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _there(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.exists())


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
