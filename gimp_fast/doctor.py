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

from gimp_fast import __version__
from gimp_fast.cli import command
from gimp_fast.runs.environment import versions

PACKAGES = ("torch", "triton", "numpy", "pandas", "h5py", "scikit-learn", "safetensors", "pydantic")
OPERATORS = ("masked_l1", "nystrom_attention")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gimp-fast doctor", description=__doc__)
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
        "build": {"native": status.cpu, "cuda": status.cuda, "facts": status.facts},
        "gpus": _gpus(),
        "backends": available_backends(),
        "operators": {name: _choices(name) for name in OPERATORS},
    }


def _gpus() -> list[dict[str, Any]]:
    import torch

    gpus = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        gpus.append(
            {
                "name": properties.name,
                "memory_gib": round(properties.total_memory / 2**30, 1),
                "capability": f"{properties.major}.{properties.minor}",
            }
        )
    return gpus


def _choices(operator: str) -> dict[str, str]:
    """Device -> the backend that ``"auto"`` takes, or the error's message if none can run."""
    import torch

    from gimp_fast.ops.backends import resolve_backend

    module = importlib.import_module(f"gimp_fast.ops.{operator}")
    choices = {}
    for device in ("cpu", *(["cuda"] if torch.cuda.is_available() else [])):
        try:
            choices[device] = resolve_backend(
                "auto", module.SUPPORTED_BACKENDS, op=operator, device=torch.device(device)
            )
        except (ValueError, RuntimeError) as error:
            choices[device] = str(error)
    return choices


def render(facts: dict[str, Any]) -> str:
    """The facts as text for one screen."""
    build = facts["build"]["facts"]
    packages = ", ".join(
        f"{name} {found or '(missing)'}" for name, found in facts["packages"].items()
    )
    torch_cuda = f"CUDA {facts['torch']['cuda']}" if facts["torch"]["cuda"] else "CPU only"
    gpus = [
        f"{gpu['name']}, {gpu['memory_gib']} GiB, sm_{gpu['capability'].replace('.', '')}"
        for gpu in facts["gpus"]
    ]
    compiled = "nothing"
    if build:
        cuda = f", nvcc {build['nvcc']} for sm {build['cuda_archs']}" if build["cuda"] else ""
        compiled = f"{build['compiler']}{cuda}; any torch >= {build['torch_minimum']}"
    rows = [
        ("gimp_fast", f"{facts['gimp_fast']['version']} in {facts['gimp_fast']['folder']}"),
        ("python", f"{facts['python']['version']}, {facts['platform']}"),
        ("packages", packages),
        ("torch", f"{torch_cuda}, {facts['torch']['threads']} threads, {facts['torch']['cpu']}"),
        ("compiled", compiled),
        ("CPU operators", facts["build"]["native"]),
        ("CUDA operators", facts["build"]["cuda"]),
        ("GPU", "; ".join(gpus) or "none visible to torch"),
    ]
    lines = [f"{name:<15} {text}" for name, text in rows]
    lines += ["", "backends"]
    lines += [f"  {name:<12} {status}" for name, status in facts["backends"].items()]
    lines += ["", "backend that 'auto' takes"]
    for name, choices in facts["operators"].items():
        lines.append(
            f"  {name:<20} " + ", ".join(f"{device}: {got}" for device, got in choices.items())
        )
    lines += ["", *(_advice(facts) or ["Everything that was built can run here."])]
    return "\n".join(lines)


def _advice(facts: dict[str, Any]) -> list[str]:
    """What the user can do about each missing thing."""
    advice = []
    if not facts["build"]["facts"]:
        advice.append("fix: build the C++ operators: `pip install .` in the source folder.")
    elif not facts["build"]["facts"]["cuda"] and facts["torch"]["cuda"]:
        advice.append(
            "fix: build the CUDA operators: put nvcc (CUDA >= 12) on PATH, then "
            "`GIMP_FAST_CUDA=1 pip install . --no-build-isolation`."
        )
    if facts["torch"]["cuda"] is None:
        advice.append(
            "note: this torch cannot use a GPU. With an NVIDIA card, install a CUDA build of torch."
        )
    elif not facts["gpus"]:
        advice.append("fix: torch sees no GPU: check `nvidia-smi` and CUDA_VISIBLE_DEVICES.")
    if facts["packages"]["triton"] is None:
        advice.append("fix: install the Triton backend: `pip install triton` (Linux, x86-64).")
    return advice


if __name__ == "__main__":
    raise SystemExit(main())
