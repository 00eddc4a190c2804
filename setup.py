"""Drive CMake, which defines the native build, and map kernels/ into the package.

Metadata is in pyproject.toml.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent


class CMakeBuild(build_ext):
    """Configure, build and install the CMake project next to the Python files."""

    def build_extension(self, ext: Extension) -> None:
        build = ROOT / "build" / f"cmake-{sys.implementation.cache_tag}-{sysconfig.get_platform()}"
        options = {
            "CMAKE_BUILD_TYPE": "Debug" if self.debug else "Release",
            "CMAKE_MAKE_PROGRAM": _tool("ninja", "BIN_DIR"),
            "Python_EXECUTABLE": sys.executable,
            "GIMP_FAST_VERSION": self.distribution.get_version(),
            "GIMP_FAST_CUDA": os.environ.get("GIMP_FAST_CUDA", "auto"),
        }
        if "GIMP_FAST_CUDA_ARCHS" in os.environ:
            options["GIMP_FAST_CUDA_ARCHS"] = os.environ["GIMP_FAST_CUDA_ARCHS"]
        definitions = [f"-D{name}={value}" for name, value in options.items() if value]
        _cmake("-G", "Ninja", "-S", ROOT, "-B", build, *definitions)
        _cmake("--build", build)
        self._install(build, Path(self.get_ext_fullpath(ext.name)).parent)
        self._build = build

    def copy_extensions_to_source(self) -> None:
        """Put the libraries where an editable install imports from."""
        self._install(self._build, ROOT / "gimp_fast")

    @staticmethod
    def _install(build: Path, folder: Path) -> None:
        # A library of an earlier build with CUDA must not outlive a build without it.
        (folder / "libgimp_fast_cuda.so").unlink(missing_ok=True)
        _cmake("--install", build, "--prefix", folder)


def _tool(name: str, folder_variable: str) -> str | None:
    """Path of the tool that is installed for this Python; the one first in PATH may be too old."""
    if importlib.util.find_spec(name) is None:
        return shutil.which(name)
    return str(Path(getattr(importlib.import_module(name), folder_variable), name))


def _cmake(*arguments: str | Path) -> None:
    subprocess.run([_tool("cmake", "CMAKE_BIN_DIR") or "cmake", *arguments], check=True)


setup(
    packages=[*find_packages(include=["gimp_fast", "gimp_fast.*"]), "gimp_fast.kernels"],
    package_dir={"gimp_fast": "gimp_fast", "gimp_fast.kernels": "kernels"},
    ext_modules=[Extension("gimp_fast._C", sources=[])],
    cmdclass={"build_ext": CMakeBuild},
)
