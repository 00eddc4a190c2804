"""A GPU that a backend cannot run on is passed over, and the reason is given."""

from __future__ import annotations

import pytest
import torch
from builders.gpus import GPUS, pretend_gpus

from gimp_fast.ops import available_backends
from gimp_fast.ops.backends import backend_of_a_part, resolve_backend

CUDA = torch.device("cuda")
SUPPORTED = ("cuda", "triton", "torch")
OLD = ["Tesla V100", "Tesla T4"]
NEW = ["B200", "RTX 5090"]

pytest.importorskip("triton")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch):
    monkeypatch.delenv("GIMP_FAST_BACKEND", raising=False)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


def resolve(requested="auto", supported=SUPPORTED, device=CUDA):
    return resolve_backend(requested, supported, op="an_op", device=device)


@pytest.mark.parametrize("name", [name for name in GPUS if name not in OLD])
def test_gpus_that_run_everything(monkeypatch, name):
    pretend_gpus(monkeypatch, name)
    statuses = available_backends()
    assert statuses["cuda"] == statuses["triton"] == "available"
    assert resolve() == resolve("cuda") == "cuda"
    assert resolve("triton") == "triton"
    assert backend_of_a_part(("cuda", "native"), device=CUDA) == "cuda"


@pytest.mark.parametrize("name", OLD)
def test_gpus_that_are_too_old(monkeypatch, name):
    pretend_gpus(monkeypatch, name)
    described = f"{name} has compute capability {'.'.join(map(str, GPUS[name]))}"
    compiled = "the CUDA operators are compiled for 8.0, 8.6, 8.9, 9.0 and newer"
    statuses = available_backends()
    assert statuses["cuda"] == f"{described}; {compiled}"
    assert statuses["triton"] == f"{described}; Triton's kernels need 8.0 or newer"
    assert resolve() == "torch"
    assert backend_of_a_part(("cuda", "native"), device=CUDA) is None
    for backend in ("cuda", "triton"):
        with pytest.raises(RuntimeError) as raised:
            resolve(backend)
        assert str(raised.value) == f"an_op: backend='{backend}' cannot run: {statuses[backend]}"


def test_a_gpu_that_the_build_leaves_out(monkeypatch):
    pretend_gpus(monkeypatch, "RTX 3090", facts={"cuda_archs": "89 90"})
    assert "compiled for 8.9, 9.0 and newer" in available_backends()["cuda"]
    assert resolve() == "triton"


def test_a_build_for_an_older_gpu_of_the_same_generation(monkeypatch):
    pretend_gpus(monkeypatch, "L4", facts={"cuda_archs": "75 80"})
    assert resolve() == "cuda"


@pytest.mark.parametrize("architectures", ["native", "all-major", ""])
def test_a_build_that_does_not_say_for_what_is_trusted(monkeypatch, architectures):
    pretend_gpus(monkeypatch, "H100", facts={"cuda_archs": architectures})
    assert resolve() == "cuda"


@pytest.mark.parametrize("name", NEW)
def test_a_driver_that_cannot_translate_for_a_newer_gpu(monkeypatch, name):
    pretend_gpus(monkeypatch, name, driver=(12, 8), facts={"nvcc": "12.9.86"})
    reason = available_backends()["cuda"]
    assert "compiled for GPUs up to 9.0" in reason
    assert "this driver, of CUDA 12.8, cannot translate code of CUDA 12.9" in reason
    assert resolve() == "triton"


@pytest.mark.parametrize("name", NEW)
def test_a_build_for_a_newer_gpu_needs_no_translation(monkeypatch, name):
    facts = {"nvcc": "12.9.86", "cuda_archs": "80 90 100 120"}
    pretend_gpus(monkeypatch, name, driver=(12, 8), facts=facts)
    assert resolve() == "cuda"


@pytest.mark.parametrize("name", ["A100", *NEW])
def test_a_driver_of_an_older_generation(monkeypatch, name):
    pretend_gpus(monkeypatch, name, driver=(12, 4))
    assert available_backends()["cuda"] == (
        "the NVIDIA driver supports CUDA up to 12.4, and these operators are built with CUDA "
        "13.0; update the driver, or reinstall with nvcc of CUDA 12"
    )
    assert resolve() == "triton"
    with pytest.raises(RuntimeError, match=r"backend='cuda' cannot run: .* CUDA up to 12\.4"):
        resolve("cuda")


def test_an_older_driver_of_the_same_generation(monkeypatch):
    pretend_gpus(monkeypatch, "A100", driver=(12, 2), facts={"nvcc": "12.6.20"})
    assert resolve() == "cuda"


def test_each_gpu_of_a_machine_is_asked_for_itself(monkeypatch):
    pretend_gpus(monkeypatch, "Tesla T4", "A100")
    statuses = available_backends()
    assert statuses["cuda"] == statuses["triton"] == "available"
    assert resolve(device=torch.device("cuda:0")) == "torch"
    assert resolve(device=torch.device("cuda:1")) == "cuda"


def test_every_reason_is_given_where_no_gpu_runs_a_backend(monkeypatch):
    pretend_gpus(monkeypatch, "Tesla T4", "Tesla V100", "Tesla T4")
    reason = available_backends()["triton"]
    assert reason.count("Tesla T4") == reason.count("Tesla V100") == 1


def test_the_interpreter_runs_beside_any_gpu(monkeypatch):
    pretend_gpus(monkeypatch, "Tesla T4")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert available_backends()["triton"] == "available"
