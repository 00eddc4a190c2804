"""GPUs that are not here: what torch and the CUDA library would say of them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

import gimp_fast.ops  # noqa: F401  so that the real library is loaded first
from gimp_fast import native

FACTS = {
    "compiler": "GNU 12.2.0",
    "torch_minimum": "2.11",
    "cuda": True,
    "cuda_reason": "",
    "cuda_archs": "80 86 89 90",
    "nvcc": "13.0.48",
}
# Name: compute capability.
GPUS = {
    "Tesla V100": (7, 0),
    "Tesla T4": (7, 5),
    "A100": (8, 0),
    "RTX 3090": (8, 6),
    "L4": (8, 9),
    "H100": (9, 0),
    "B200": (10, 0),
    "RTX 5090": (12, 0),
}


def pretend_gpus(
    monkeypatch: pytest.MonkeyPatch,
    *names: str,
    driver: tuple[int, int] = (13, 0),
    facts: dict[str, object] | None = None,
) -> None:
    """Lets torch see GPUs of these names, and loads a CUDA library that was built for it."""
    facts = FACTS | (facts or {})
    runtime = tuple(map(int, str(facts["nvcc"]).split(".")[:2]))
    gpus = [
        SimpleNamespace(name=name, major=major, minor=minor, total_memory=16 << 30)
        for name, (major, minor) in ((name, GPUS[name]) for name in names)
    ]
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(gpus))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: gpus[device.index or 0])
    module = SimpleNamespace(build_facts=lambda: facts, instruction_sets=lambda: ["avx2"])
    with monkeypatch.context() as loading:
        loading.setattr("importlib.import_module", lambda name: module)
        loading.setattr(native, "_load_cuda", lambda facts: None)
        loading.setattr(native, "_cuda_versions", lambda: [driver, runtime])
        status = native.load.__wrapped__()
    monkeypatch.setattr(native, "load", lambda: status)
