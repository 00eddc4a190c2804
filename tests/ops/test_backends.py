"""A backend that runs is chosen; one that cannot is refused with the reason."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from gimp_fast import native
from gimp_fast.ops import available_backends
from gimp_fast.ops.backends import BACKENDS, backend_of_a_part, resolve_backend

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
ALL = ("cuda", "triton", "native", "torch", "reference")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch):
    monkeypatch.delenv("GIMP_FAST_BACKEND", raising=False)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


@pytest.fixture
def statuses(monkeypatch):
    """Replace what the machine can do, so that every branch is reached on every machine."""

    def replace(**statuses):
        available = dict.fromkeys(BACKENDS, "available") | statuses
        monkeypatch.setattr(
            "gimp_fast.ops.backends._status", lambda name, device=None: available[name]
        )

    return replace


def resolve(requested="auto", supported=ALL, device=CPU):
    return resolve_backend(requested, supported, op="an_op", device=device)


def test_every_backend_has_a_status():
    statuses = available_backends()
    assert tuple(statuses) == BACKENDS
    assert all(statuses.values())
    assert statuses["reference"] == statuses["torch"] == "available"


@pytest.mark.parametrize(
    ("device", "expected"), [(CPU, "native"), (CUDA, "cuda")], ids=["cpu", "cuda"]
)
def test_auto_takes_the_first_that_fits_the_device(statuses, device, expected):
    statuses()
    assert resolve(device=device) == expected


def test_auto_passes_over_what_is_not_built(statuses):
    statuses(native="not built", cuda="not built", triton="not installed")
    assert resolve() == "torch"
    assert resolve(device=CUDA) == "torch"


def test_auto_never_picks_the_interpreter(statuses, monkeypatch):
    statuses()
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert resolve(supported=("triton", "torch")) == "torch"
    assert resolve("triton") == "triton"


@pytest.mark.parametrize(
    ("name", "device", "reason"),
    [
        ("cuda", CPU, "tensors are on cpu"),
        ("native", CUDA, "tensors are on cuda"),
        ("triton", CPU, "set TRITON_INTERPRET=1"),
    ],
    ids=["cuda-on-cpu", "native-on-cuda", "triton-on-cpu"],
)
def test_named_backend_on_the_wrong_device(statuses, name, device, reason):
    statuses()
    with pytest.raises(RuntimeError, match=rf"an_op: backend='{name}' cannot run: .*{reason}"):
        resolve(name, device=device)


def test_named_backend_that_is_not_built(statuses):
    statuses(native="no compiler was there")
    with pytest.raises(RuntimeError, match="no compiler was there"):
        resolve("native")


def test_named_backend_that_the_operator_lacks():
    with pytest.raises(RuntimeError, match="has no triton backend, it has torch, reference"):
        resolve("triton", supported=("torch", "reference"))


def test_no_backend_at_all(statuses):
    statuses(native="not built")
    with pytest.raises(RuntimeError, match="no backend can run on cpu: native: not built"):
        resolve(supported=("native",))


def test_unknown_name():
    with pytest.raises(ValueError, match="an_op: backend='cudnn' is unknown; expected one of"):
        resolve("cudnn")


def test_environment_replaces_auto_only(monkeypatch):
    monkeypatch.setenv("GIMP_FAST_BACKEND", "reference")
    assert resolve() == "reference"
    assert resolve("torch") == "torch"


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ("cudnn", ValueError, "GIMP_FAST_BACKEND=cudnn is unknown"),
        ("cuda", RuntimeError, "GIMP_FAST_BACKEND=cuda cannot run: .*tensors are on cpu"),
    ],
    ids=["unknown", "cannot-run"],
)
def test_environment_is_checked(monkeypatch, value, error, message):
    monkeypatch.setenv("GIMP_FAST_BACKEND", value)
    with pytest.raises(error, match=message):
        resolve()


def test_environment_set_to_nothing_is_unset(monkeypatch):
    monkeypatch.setenv("GIMP_FAST_BACKEND", "")
    assert resolve(supported=("torch",)) == "torch"


@pytest.mark.parametrize(
    ("value", "on_cpu", "on_cuda"),
    [
        ("", "native", "cuda"),
        ("native", "native", None),
        ("cuda", None, "cuda"),
        ("torch", None, None),
        ("triton", None, None),
    ],
)
def test_a_part_leaves_to_torch_what_the_environment_does_not_ask_of_it(
    monkeypatch, statuses, value, on_cpu, on_cuda
):
    statuses()
    monkeypatch.setenv("GIMP_FAST_BACKEND", value)
    part = ("cuda", "native")
    assert backend_of_a_part(part, device=CPU) == on_cpu
    assert backend_of_a_part(part, device=CUDA) == on_cuda


def test_a_part_that_is_not_built_is_left_to_torch(statuses):
    statuses(native="not built", cuda="not built")
    for device in (CPU, CUDA):
        assert backend_of_a_part(("cuda", "native"), device=device) is None


def test_importing_the_operators_imports_no_triton():
    code = "import sys, gimp_fast.ops; raise SystemExit('triton' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def loading_fails(monkeypatch, error: ImportError) -> str:
    def import_module(name):
        raise error

    monkeypatch.setattr("importlib.import_module", import_module)
    return native.load.__wrapped__().cpu


def test_checkout_that_shadows_an_installation_is_named(monkeypatch, tmp_path):
    (tmp_path / "CMakeLists.txt").touch()
    monkeypatch.setattr(native, "__file__", str(tmp_path / "gimp_fast" / "native.py"))
    reason = loading_fails(monkeypatch, ModuleNotFoundError(name="gimp_fast._C"))
    assert f"source checkout {tmp_path}" in reason
    assert "pip install -e . --no-build-isolation" in reason


def test_installation_without_a_build_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(native, "__file__", str(tmp_path / "gimp_fast" / "native.py"))
    reason = loading_fails(monkeypatch, ModuleNotFoundError(name="gimp_fast._C"))
    assert "holds no built gimp_fast._C" in reason


def test_library_that_does_not_load_keeps_the_reason(monkeypatch):
    reason = loading_fails(monkeypatch, ImportError("undefined symbol: torch_abc"))
    assert "undefined symbol: torch_abc" in reason


def test_cuda_library_that_does_not_load_keeps_the_reason(monkeypatch, tmp_path):
    monkeypatch.setattr(native, "__file__", str(tmp_path / "native.py"))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    reason = native._load_cuda({"cuda": True})
    assert str(tmp_path / native.CUDA_LIBRARY) in reason
    assert "cannot be loaded" in reason
