"""What is installed is whole: the wheel holds every module, page, data set and recipe, and nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BUILD = "import sys; from setuptools.build_meta import build_wheel; print(build_wheel(sys.argv[1]))"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of what it is made of."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    unwanted = shutil.ignore_patterns("__pycache__", "*.pyc", "*.egg-info")
    for name in ("rsoup", "recipes", "tests"):
        shutil.copytree(ROOT / name, source / name, ignore=unwanted)
    for name in ("pyproject.toml", "README.md", "LICENSE", "CITATION.cff"):
        shutil.copy(ROOT / name, source / name)
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BUILD, str(out)], cwd=source, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    (built,) = out.glob("*.whl")
    return built


def test_it_holds_the_package_the_recipes_and_nothing_else(wheel: Path) -> None:
    found = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    own = {str(path.relative_to(ROOT)) for path in (ROOT / "rsoup").rglob("*") if path.is_file()}
    own = {name for name in own if not name.endswith(".pyc")}
    share = "rewarded_soups-{}.data/data/share/rewarded-soups/".format(wheel.name.split("-")[1])
    recipes = {f"{share}{path.relative_to(ROOT)}" for path in (ROOT / "recipes").rglob("*.yaml")}
    assert found == own | recipes


def test_it_needs_no_torch_and_brings_the_command(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    read = {name.rpartition("/")[2]: name for name in archive.namelist() if ".dist-info/" in name}
    metadata = archive.read(read["METADATA"]).decode()
    needed = [
        line.split(": ")[1]
        for line in metadata.splitlines()
        if line.startswith("Requires-Dist") and "extra" not in line
    ]
    assert not [line for line in needed if line.startswith(("torch", "transformers", "peft", "datasets"))]
    assert "rsoup = rsoup.cli:main" in archive.read(read["entry_points.txt"]).decode()
