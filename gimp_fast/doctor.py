"""``python -m gimp_fast.doctor``: what was built, and what can run here or why not."""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gimp_fast import __version__, processor
from gimp_fast.cli import Parser, command
from gimp_fast.errors import GimpError, one_line
from gimp_fast.runs.environment import versions

PACKAGES = ("torch", "triton", "numpy", "pandas", "h5py", "scikit-learn", "safetensors", "pydantic")
OPERATORS = ("masked_l1", "nystrom_attention")
# Rows, inputs and outputs: scores of a chunk of tokens, and a projection.
PRODUCTS = ((1024, 64, 256), (2000, 512, 512))
# A library is called slower if the other is faster by this. Less can be another process's doing.
CLEARLY = 1.25


def build_parser() -> argparse.ArgumentParser:
    parser = Parser("doctor", description="Show what was built, and what can run here or why not.")
    parser.add_argument("--json", action="store_true", help="print machine-readable facts instead")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int | None:
    arguments = build_parser().parse_args(argv)
    facts = examine()
    print(json.dumps(facts, indent=2) if arguments.json else render(facts))
    return 0


def examine() -> dict[str, Any]:
    """All facts that the command shows, as JSON-able data."""
    import torch

    from gimp_fast import native
    from gimp_fast.ops import available_backends

    status = native.load()
    return {
        "gimp_fast": {"version": __version__, "folder": str(Path(__file__).resolve().parent)},
        "python": {"version": platform.python_version(), "executable": sys.executable},
        "platform": platform.platform(),
        "packages": versions(PACKAGES),
        "torch": {
            "version": torch.__version__,
            "cuda": torch.version.cuda,
            "threads": torch.get_num_threads(),
            "cpu": torch.backends.cpu.get_cpu_capability(),
        },
        "processor": {"name": processor.name(), "vendor": processor.vendor()},
        "products": _products(),
        "build": {
            "native": status.cpu,
            "cuda": status.cuda,
            "instructions": list(status.instructions),
            "cuda_driver": _dotted(status.cuda_driver),
            "cuda_runtime": _dotted(status.cuda_runtime),
            "driver_is_too_old": status.driver_is_too_old,
            "facts": status.facts,
        },
        "gpus": _gpus(),
        "backends": available_backends(),
        "operators": {name: _choices(name) for name in OPERATORS},
        "survival": _survival(),
    }


def _products() -> dict[str, Any]:
    """The library of large matrix products and why, and the Gflop/s of each."""
    from gimp_fast.ops.product_library import choice, speeds

    measured = {"x".join(map(str, shape)): speeds(*shape) for shape in PRODUCTS}
    try:
        chosen = choice()
    except GimpError as error:
        return {"library": None, "reason": str(error), "gflops": measured}
    return {"library": chosen.library, "reason": chosen.reason, "gflops": measured}


def _dotted(version: tuple[int, int] | None) -> str | None:
    return None if version is None else f"{version[0]}.{version[1]}"


def _gpus() -> list[dict[str, Any]]:
    import torch

    from gimp_fast.ops import gpus

    found = []
    for device in gpus.visible():
        gpu = torch.cuda.get_device_properties(device)
        found.append(
            {
                "name": gpu.name,
                "memory_gib": round(gpu.total_memory / 2**30, 1),
                "capability": f"{gpu.major}.{gpu.minor}",
                "cannot_run": gpus.reasons(device),
            }
        )
    return found


def _choices(operator: str) -> dict[str, str]:
    """Device -> the backend that ``"auto"`` takes, or the error's message if none can run."""
    import torch

    from gimp_fast.ops.backends import resolve_backend

    module = importlib.import_module(f"gimp_fast.ops.{operator}")
    backends, choices = module.SUPPORTED_BACKENDS, {}
    for name in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        device = torch.device(name)
        try:
            choices[name] = resolve_backend("auto", backends, op=operator, device=device)
        except (ValueError, RuntimeError) as error:
            choices[name] = str(error)
    return choices


def _survival() -> dict[str, str | None]:
    """Device -> what is wrong with the losses of survival there; None if they are right."""
    import torch

    from gimp_fast.targets.survival_check import fault_of_survival_losses

    names = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    found = {}
    for name in names:
        try:
            found[name] = fault_of_survival_losses(torch.device(name))
        except (RuntimeError, AssertionError) as error:  # torch has no code for the GPU
            found[name] = one_line(error)
    return found


def render(facts: dict[str, Any]) -> str:
    """The facts on one screen."""
    package, torch, build = facts["gimp_fast"], facts["torch"], facts["build"]["facts"]
    packages = [f"{name} {version or '(missing)'}" for name, version in facts["packages"].items()]
    torch_cuda = f"CUDA {torch['cuda']}" if torch["cuda"] else "CPU only"
    gpus = [
        f"{gpu['name']}, {gpu['memory_gib']} GiB, sm_{gpu['capability'].replace('.', '')}"
        for gpu in facts["gpus"]
    ]
    driver = [f"driver of CUDA {version}"] if (version := facts["build"]["cuda_driver"]) else []
    compiled = "nothing"
    if build:
        cuda = f", nvcc {build['nvcc']} for sm {build['cuda_archs']}" if build["cuda"] else ""
        compiled = f"{build['compiler']}{cuda}; any torch >= {build['torch_minimum']}"
    rows = [
        ("gimp_fast", f"{package['version']} in {package['folder']}"),
        ("python", f"{facts['python']['version']}, {facts['platform']}"),
        ("packages", ", ".join(packages)),
        ("torch", f"{torch_cuda}, {torch['threads']} threads, {torch['cpu']}"),
        ("processor", f"{facts['processor']['name']} {facts['processor']['vendor']}".strip()),
        *_product_rows(facts["products"]),
        ("compiled", compiled),
        ("CPU operators", _with_instructions(facts["build"])),
        ("CUDA operators", facts["build"]["cuda"]),
        (
            "survival losses",
            "; ".join(f"{name}: {fault or 'right'}" for name, fault in facts["survival"].items()),
        ),
        ("GPU", "; ".join([*gpus, *driver]) or "none visible to torch"),
    ]
    lines = [f"{name:<15} {text}" for name, text in rows]
    lines += ["", "backends"]
    lines += [f"  {name:<12} {status}" for name, status in facts["backends"].items()]
    lines += ["", "backend that 'auto' takes"]
    for name, choices in facts["operators"].items():
        taken = ", ".join(f"{device}: {backend}" for device, backend in choices.items())
        lines.append(f"  {name:<20} {taken}")
    lines += ["", *(_advice(facts) or ["Everything that was built can run here."])]
    return "\n".join(lines)


def _with_instructions(build: dict[str, Any]) -> str:
    """Whether the C++ operators run, and with which instruction set."""
    first, *others = build["instructions"] or [""]
    less = f" (compiled for less: {', '.join(others)})" if others else ""
    return f"{build['native']}, with {first}{less}" if first else build["native"]


def _product_rows(products: dict[str, Any]) -> list[tuple[str, str]]:
    """The chosen library, and the measured speeds."""
    speeds = [
        f"{shape.replace('x', '×')}: "
        + ", ".join(f"{library} {speed:.0f}" for library, speed in by_library.items())
        for shape, by_library in products["gflops"].items()
    ]
    chosen = f"{products['library']}: " if products["library"] else ""
    return [
        ("products", f"{chosen}{products['reason']}"),
        ("Gflop/s, fp32", "; ".join(speeds)),
    ]


def _faster_library(products: dict[str, Any]) -> str | None:
    """The library that is clearly faster than the chosen one at every shape; None if none is."""
    measured = products["gflops"].values()
    for library in {name for speeds in measured for name in speeds} - {products["library"]}:
        chosen = products["library"]
        if chosen and all(speeds[library] > CLEARLY * speeds[chosen] for speeds in measured):
            return library
    return None


def _advice(facts: dict[str, Any]) -> list[str]:
    """What a user can do about each thing that is missing."""
    advice, build, cuda = [], facts["build"]["facts"], facts["torch"]["cuda"]
    if not build:
        advice.append("fix: build the C++ operators: `pip install .` in the source folder.")
    elif not build["cuda"] and cuda:
        advice.append(
            "fix: build the CUDA operators: put nvcc (CUDA >= 12) on PATH, then "
            "`GIMP_FAST_CUDA=1 pip install . --no-build-isolation`."
        )
    if cuda is None:
        advice.append(
            "note: this torch cannot use a GPU. With an NVIDIA card, install a CUDA build of torch."
        )
    elif not facts["gpus"]:
        advice.append("fix: torch sees no GPU: check `nvidia-smi` and CUDA_VISIBLE_DEVICES.")
    if facts["build"]["driver_is_too_old"]:
        runtime = facts["build"]["cuda_runtime"]
        advice.append(f"fix: update the NVIDIA driver to one that supports CUDA {runtime}.")
    for reason in dict.fromkeys(
        text for gpu in facts["gpus"] for text in gpu["cannot_run"].values()
    ):
        advice.append(f"note: {reason}. Other backends run there instead.")
    if wrong := [name for name, fault in facts["survival"].items() if fault]:
        advice.append(
            f"fix: do not train survival on {' or '.join(wrong)}, where its losses are wrong; try "
            "another version of torch."
        )
    faster = _faster_library(facts["products"])
    if faster:
        advice.append(
            f"note: large products are faster by {faster} here. If that is so again on a quiet "
            f"machine, set GIMP_FAST_PRODUCTS={faster}."
        )
    if facts["packages"]["triton"] is None:
        advice.append("fix: install the Triton backend: `pip install triton` (Linux, x86-64).")
    return advice


if __name__ == "__main__":
    raise SystemExit(main())
