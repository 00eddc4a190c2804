"""Wheel and source archive are complete, and an installed wheel works from any folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from builders.once import make_once, session_folder

import gimp_fast

ROOT = Path(__file__).resolve().parents[1]
SOURCES = (
    "CMakeLists.txt",
    "MANIFEST.in",
    "LICENSE",
    "README.md",
    "constraints.txt",
    "pyproject.toml",
    "setup.py",
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ROOT / "csrc").is_dir(), reason="the tests lie without the sources"),
]


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with wheel and source archive, built from a copy so that no build/ leaks in."""
    for module in ("pybind11", "cmake", "ninja", "setuptools", "build"):
        pytest.importorskip(module)
    return make_once(session_folder(tmp_path_factory) / "packaging", build) / "dist"


def build(copy: Path) -> None:
    copy.mkdir()
    for name in SOURCES:
        shutil.copy(ROOT / name, copy)
    for name in ("csrc", "kernels", "gimp_fast"):
        ignore = shutil.ignore_patterns("*.so", "__pycache__")
        shutil.copytree(ROOT / name, copy / name, ignore=ignore)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    # The build requirements pin the torch that is tested; any supported one has the headers.
    command = [sys.executable, "-m", "build", "--no-isolation", "--skip-dependency-check"]
    done = subprocess.run(
        [*command, "--sdist", "--wheel", copy],
        env=os.environ | {"GIMP_FAST_CUDA": "0", "PATH": path},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel_names(built) -> list[str]:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        return wheel.namelist()


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        wheel.extractall(folder)
    return folder


def run_installed(installed: Path, code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=installed.parent,
        env=os.environ | {"PYTHONPATH": str(installed)},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_wheel_holds_every_python_file(wheel_names):
    for package, folder in (
        ("gimp_fast", ROOT / "gimp_fast"),
        ("gimp_fast/kernels", ROOT / "kernels"),
    ):
        files = {
            f"{package}/{path.relative_to(folder).as_posix()}" for path in folder.rglob("*.py")
        }
        assert files <= set(wheel_names)


def test_wheel_holds_the_operators_and_the_package_data(wheel_names):
    assert any(name.startswith("gimp_fast/_C.") for name in wheel_names)
    data = [
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "gimp_fast").rglob("*")
        if path.suffix in {".j2", ".html", ".yaml", ".gmt", ".js", ".css"}
        or path.name in ("py.typed", "LICENSE.txt")
    ]
    assert "gimp_fast/py.typed" in data
    assert set(data) <= set(wheel_names)


def test_wheel_installs_nothing_else_at_the_top(wheel_names):
    top = {name.split("/")[0] for name in wheel_names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"gimp_fast"}
    assert not [name for name in wheel_names if name.endswith((".cpp", ".cu", ".cuh", ".h"))]


def test_source_archive_holds_what_a_build_needs(built):
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    needed = {*SOURCES, "gimp_fast/py.typed"}
    for folder in ("csrc", "kernels"):
        needed |= {
            path.relative_to(ROOT).as_posix()
            for path in (ROOT / folder).iterdir()
            if path.is_file()
        }
    assert needed <= names
    assert not [name for name in names if name.endswith(".so")]


def test_installed_package_computes_from_another_folder(installed):
    out = run_installed(
        installed,
        "import json, torch, gimp_fast\n"
        "from gimp_fast.ops import available_backends, masked_l1_loss\n"
        "loss = masked_l1_loss(torch.ones(3, 5), torch.zeros(3, 5), torch.ones(3).bool(),\n"
        "                      reduction='sum', backend='native')\n"
        "print(json.dumps([gimp_fast.__file__, available_backends(), loss.item()]))",
    )
    file, backends, loss = json.loads(out)
    assert Path(file).is_relative_to(installed)
    assert backends["native"] == "available"
    assert backends["cuda"] == "built without CUDA (GIMP_FAST_CUDA=0)"
    assert loss == 15


def test_in_a_new_environment_without_a_compiler_the_wheel_trains(built, tmp_path):
    venv.create(tmp_path / "venv", with_pip=True)
    programs = tmp_path / "venv" / "bin"
    wheel = next(built.glob("*.whl"))
    pip = [programs / "pip", "install", "--no-deps", "--no-index", wheel]
    subprocess.run(pip, check=True, capture_output=True)
    # Dependencies are those of this environment; the installed package comes before its own.
    (place,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    others = [path for path in sys.path if path.endswith("site-packages")]
    (place / "others.pth").write_text("\n".join(others) + "\n", encoding="utf-8")
    few = [f"{stage}.epochs=1" for stage in ("genes", "pretrain", "finetune")]
    settings = [word for text in (*few, "bootstrap=20") for word in ("--set", text)]
    done = subprocess.run(
        [programs / "gimp-fast", "train", "--preset", "demo", "--out", "run", *settings],
        cwd=tmp_path,
        env={"PATH": str(programs), "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "native" in done.stdout.split("operators: ")[1].splitlines()[0]
    environment = json.loads((tmp_path / "run" / "environment.json").read_text("utf-8"))
    assert environment["gimp_fast"] == gimp_fast.__version__
    assert (tmp_path / "run" / "report.html").is_file()


def test_kernels_are_part_of_the_package_and_import_no_triton(installed):
    out = run_installed(
        installed, "import sys, gimp_fast.kernels as k; print(k.__file__, 'triton' in sys.modules)"
    )
    assert out.split() == [str(installed / "gimp_fast/kernels/__init__.py"), "False"]
