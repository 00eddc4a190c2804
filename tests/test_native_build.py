"""CUDA operators compile for every architecture without spills; the build's switches work."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from builders.once import make_once, session_folder

from gimp_fast import native

ROOT = Path(__file__).resolve().parents[1]
ARCHITECTURES = {"sm_80", "sm_86", "sm_89", "sm_90"}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ROOT / "csrc").is_dir(), reason="the tests lie without the sources"),
]


def tool(name: str) -> str:
    """A build tool beside the interpreter, where pip puts it, or on PATH."""
    found = shutil.which(
        name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    )
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def configure(
    folder: Path, *options: str, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess:
    pytest.importorskip("pybind11")
    return subprocess.run(
        [
            tool("cmake"),
            *("-G", "Ninja", "-S", ROOT, "-B", folder),
            f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}",
            f"-DPython_EXECUTABLE={sys.executable}",
            *options,
        ],
        env=environment,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


@pytest.fixture(scope="module")
def ptxas_report(tmp_path_factory) -> str:
    """What ptxas says of every kernel; kept in build/ until a source or a compiler changes."""
    if shutil.which("nvcc") is None:
        pytest.skip("nvcc is not on PATH")
    versions = subprocess.run(["nvcc", "--version"], capture_output=True, check=True).stdout
    digest = hashlib.sha256(versions + torch.__version__.encode())
    for path in (ROOT / "CMakeLists.txt", *sorted((ROOT / "csrc").iterdir())):
        digest.update(path.read_bytes())
    results = ROOT / "build" if os.access(ROOT, os.W_OK) else session_folder(tmp_path_factory)
    name = f"ptxas-{digest.hexdigest()[:16]}.txt"

    def report(path: Path) -> None:
        path.write_text(compile_for_cuda(tmp_path_factory.mktemp("cuda")), encoding="utf-8")

    return make_once(results / name, report).read_text(encoding="utf-8")


def compile_for_cuda(folder: Path) -> str:
    """The compiler's messages."""
    configured = configure(folder, "-DGIMP_FAST_CUDA=1", "-DCMAKE_CUDA_FLAGS=-Xptxas=-v")
    assert configured.returncode == 0, configured.stderr
    built = subprocess.run(
        [tool("cmake"), "--build", folder, "--target", "gimp_fast_cuda"],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert built.returncode == 0, built.stdout
    return built.stdout


def test_kernels_are_compiled_for_every_architecture(ptxas_report):
    entries = re.findall(
        r"entry function '\w*(masked_l1_[fb]wd|sum_partials|masked_reconstruction_rows)\w*' "
        r"for '(\w+)'",
        ptxas_report,
    )
    assert {architecture for _, architecture in entries} == ARCHITECTURES
    # 4 dtypes × aligned or not × forward and backward, and the sum of partials in two dtypes;
    # 4 dtypes of decoded rows × 4 of the target × aligned or not.
    assert len(entries) == len(ARCHITECTURES) * (4 * 2 * 2 + 2 + 4 * 4 * 2)


def test_no_kernel_spills_or_uses_a_stack(ptxas_report):
    found = re.findall(
        r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", ptxas_report
    )
    assert len(found) >= len(ARCHITECTURES)
    assert set(found) == {("0", "0", "0")}


def test_the_cuda_library_tells_its_own_version_and_that_of_the_driver(tmp_path, monkeypatch):
    if shutil.which("nvcc") is None:
        pytest.skip("nvcc is not on PATH")
    library = tmp_path / "versions.so"
    source = ROOT / "csrc" / "cuda_versions.cu"
    flags = ("-shared", "-Xcompiler", "-fPIC", "-cudart", "static")
    subprocess.run(["nvcc", *flags, source, "-o", library], check=True)
    text = subprocess.run(["nvcc", "--version"], capture_output=True, encoding="utf-8", check=True)
    release = re.search(r"release (\d+)\.(\d+)", text.stdout)
    monkeypatch.setattr(native, "_cuda_library", lambda: library)
    driver, runtime = native._cuda_versions()
    assert runtime == tuple(map(int, release.groups()))
    assert driver is None or driver >= (11, 0)


def without_nvcc(folder: Path) -> dict[str, str]:
    """An environment that has a compiler for C++ and none for CUDA."""
    tools = folder / "bin"
    tools.mkdir()
    for name in ("c++", "g++", "gcc", "cc", "ld", "ar", "ranlib", "as", "sh", "env"):
        if found := shutil.which(name):
            (tools / name).symlink_to(found)
    hidden = {"PATH", "CUDACXX", "CUDA_HOME", "CUDA_PATH"}
    kept = {name: value for name, value in os.environ.items() if name not in hidden}
    return kept | {"PATH": str(tools)}


def test_without_nvcc_the_rest_is_built(tmp_path):
    done = configure(tmp_path / "build", environment=without_nvcc(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "no CUDA operators (nvcc was not found" in done.stdout


def test_cuda_asked_for_without_nvcc_fails_loudly(tmp_path):
    done = configure(tmp_path / "build", "-DGIMP_FAST_CUDA=1", environment=without_nvcc(tmp_path))
    assert done.returncode != 0
    assert "GIMP_FAST_CUDA=1, but nvcc was not found" in done.stderr


def test_cuda_can_be_left_out(tmp_path):
    done = configure(tmp_path / "build", "-DGIMP_FAST_CUDA=0")
    assert done.returncode == 0, done.stderr
    assert "no CUDA operators (GIMP_FAST_CUDA=0)" in done.stdout


def test_switch_with_an_unknown_value_is_refused(tmp_path):
    done = configure(tmp_path / "build", "-DGIMP_FAST_CUDA=maybe")
    assert done.returncode != 0
    assert "GIMP_FAST_CUDA is 'maybe'; expected auto, 0 or 1" in " ".join(done.stderr.split())


def test_every_instruction_set_gives_the_same_bits(tmp_path):
    compiler = shutil.which("c++")
    cpu = Path("/proc/cpuinfo")
    if compiler is None or not cpu.is_file() or " avx2 " not in cpu.read_text(encoding="utf-8"):
        pytest.skip("needs a C++ compiler and a CPU with AVX2")
    flags = ["-std=c++20", "-O3", "-ffp-contract=off", "-Wno-psabi", f"-I{ROOT / 'csrc'}"]
    objects = []
    for isa, options in {"baseline": [], "avx2": ["-mavx2", "-mf16c"]}.items():
        for source in sorted((ROOT / "csrc").glob("*_rows.cpp")):
            objects.append(tmp_path / f"{source.stem}_{isa}.o")
            define = f"-DGIMP_FAST_ISA={isa}"
            subprocess.run(
                [compiler, *flags, *options, define, "-c", source, "-o", objects[-1]], check=True
            )
    program = tmp_path / "rows_agree"
    source = ROOT / "tests" / "native" / "rows_agree.cpp"
    subprocess.run([compiler, *flags, source, *objects, "-o", program], check=True)
    done = subprocess.run([program], capture_output=True, encoding="utf-8", check=True)
    assert int(done.stdout) == 0
