"""What a machine tells of itself is read right."""

from __future__ import annotations

from pathlib import Path

import pytest

from rsoup.doctor.machine import (
    driver_of,
    features_of,
    limit_of,
    memory_of,
    processor_of,
    quota_of,
    this_machine,
)

FLAGS = "fpu avx2 avx512f avx512_bf16 amx_tile"
CPUINFO = f"processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nflags\t\t: {FLAGS}\n\nprocessor\t: 1\n"


def test_a_processors_description_is_read() -> None:
    assert features_of(CPUINFO) == ("AMX", "AVX-512 BF16", "AVX-512", "AVX2")
    assert features_of("flags : fpu avx2_of_another_name\n") == ()
    assert features_of("") == ()
    assert processor_of(CPUINFO) == "Some CPU @ 2 GHz"
    assert processor_of("Features : neon") is None


def test_memory_is_read_in_bytes() -> None:
    text = "MemTotal:        2048 kB\nMemFree:  10 kB\nMemAvailable:    1024 kB\n"
    assert memory_of(text) == (2 * 2**20, 2**20)
    assert memory_of("") is None


@pytest.mark.parametrize(
    ("text", "cores"),
    [("max 100000\n", None), ("150000 100000\n", 2), ("50000 100000\n", 1), ("", None), ("1 0", None)],
)
def test_a_control_groups_share_of_the_cores_is_rounded_up(text: str, cores: int | None) -> None:
    assert quota_of(text) == cores


def test_a_control_groups_limit_is_a_number_or_none() -> None:
    assert limit_of("1073741824\n") == 2**30
    assert limit_of("max\n") is None


def test_a_drivers_version_is_found() -> None:
    text = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\nGCC version: 12"
    assert driver_of(text) == "550.54.15"
    text = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.10  Release Build"
    assert driver_of(text) == "570.86.10"
    assert driver_of("") is None


def test_this_machine_has_cores_and_disk_also_where_the_folder_is_not_there_yet(tmp_path: Path) -> None:
    machine = this_machine(tmp_path / "a" / "b")
    assert machine.cores >= 1
    assert machine.free_disk > 0
    assert not (tmp_path / "a").exists()
