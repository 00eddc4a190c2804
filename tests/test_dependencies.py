"""Every package that is imported is declared, and every declared one is pinned as it is tested."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Module: distribution, where their names differ by more than an underscore.
DISTRIBUTION = {
    "PIL": "pillow",
    "griffe": "griffelib",
    "openslide": "openslide-python",
    "pydantic_core": "pydantic",  # which pins it
    "sklearn": "scikit-learn",
    "sksurv": "scikit-survival",
    "yaml": "pyyaml",
}
# What a user installs for one feature: wandb for `--wandb`; torchvision comes with timm.
OPTIONAL = {"wandb", "torchvision"}
# Folder: extras beside the dependencies.
SOURCES = {
    "gimp_fast": ("cluster", "formats", "hub", "tune", "wsi"),
    "kernels": (),
    "benchmarks": ("cluster", "formats", "wsi", "bench"),
    "docs": ("docs",),
    "tests": ("cluster", "formats", "hub", "tune", "wsi", "test"),
}

pytestmark = pytest.mark.skipif(
    not (ROOT / "pyproject.toml").is_file(), reason="the tests lie without the sources"
)


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def canonical(requirement: str) -> str:
    """The distribution's name, as the index spells it."""
    name = re.match(r"[\w.-]+", requirement)[0]
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements(project: dict, extras: tuple[str, ...]) -> set[str]:
    optional = project["optional-dependencies"]
    lines = [*project["dependencies"], *(line for extra in extras for line in optional[extra])]
    return {canonical(line) for line in lines} - {canonical(project["name"])}


def imported_modules(folder: Path) -> Iterator[tuple[str, Path]]:
    """Top-level names that are neither of the standard library nor ours, and who imports them."""
    ours = {"gimp_fast", "attack", "builders", "ptx", "bad_reader"}  # a test writes the last
    if folder.name in ("benchmarks", "tests"):  # their scripts and helpers import each other
        ours |= {path.stem for path in folder.rglob("*.py")}
    if folder.name == "tests":  # scripts that have tests of their own
        scripts = ROOT / "benchmarks"
        ours |= {path.stem for path in (*scripts.glob("*gpu_*.py"), *scripts.glob("missing_*.py"))}
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module]
            for name in {name.split(".")[0] for name in names}:
                if name not in sys.stdlib_module_names and name not in ours:
                    yield name, path


@pytest.mark.parametrize("folder", SOURCES)
def test_every_import_is_declared(project, folder):
    declared = requirements(project, SOURCES[folder])
    undeclared = {
        f"{path.relative_to(ROOT)} imports {module}"
        for module, path in imported_modules(ROOT / folder)
        if module not in OPTIONAL and DISTRIBUTION.get(module, canonical(module)) not in declared
    }
    assert not undeclared


def test_every_declared_package_is_pinned(project):
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {canonical(line) for line in lines if "==" in line}
    assert requirements(project, tuple(project["optional-dependencies"])) <= pinned
