"""The doctor reports what is installed, what is missing, and how to fix it."""

from __future__ import annotations

import copy
import json
from importlib.util import find_spec

import pytest
from builders.gpus import pretend_gpus

from gimp_fast import doctor
from gimp_fast.ops import available_backends, product_library

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")


@pytest.fixture(scope="module")
def facts():
    return doctor.examine()


@pytest.fixture
def changed(facts):
    """The facts of another machine."""
    facts = copy.deepcopy(facts)
    facts["build"] = {
        "native": "available",
        "cuda": "available",
        "facts": {
            "compiler": "GNU 12.2.0",
            "torch_minimum": "2.11",
            "cuda": True,
            "cuda_archs": "80 86",
            "nvcc": "13.0",
        },
    }
    facts["build"]["instructions"] = ["avx512", "avx2", "baseline"]
    facts["build"] |= {"cuda_driver": "13.1", "cuda_runtime": "13.0", "driver_is_too_old": False}
    facts["torch"]["cuda"] = "13.0"
    facts["gpus"] = [
        {"name": "RTX 3090", "memory_gib": 23.6, "capability": "8.6", "cannot_run": {}}
    ]
    facts["packages"]["triton"] = "3.7.1"
    facts["products"] = {
        "library": "torch",
        "reason": "the table's choice for GenuineIntel with AVX512",
        "gflops": {
            "1024x64x256": {"torch": 148.0, "onednn": 78.0},
            "2000x512x512": {"torch": 123.0, "onednn": 145.0},
        },
    }
    return facts


def test_json_holds_every_fact(capsys):
    assert doctor.main(["--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["backends"] == available_backends()
    assert facts["operators"].keys() == {"masked_l1", "nystrom_attention"}
    assert all(choices["cpu"] for choices in facts["operators"].values())
    assert facts["survival"] == {"cpu": None}


def test_report_fits_one_screen(capsys):
    assert doctor.main([]) == 0
    report = capsys.readouterr().out
    assert len(report.splitlines()) <= 30
    for status in available_backends().values():
        assert status in report


def test_complete_machine_needs_no_advice(changed):
    report = doctor.render(changed)
    assert "torch: the table's choice for GenuineIntel with AVX512" in report
    assert "1024×64×256: torch 148, onednn 78; 2000×512×512: torch 123, onednn 145" in report
    assert "RTX 3090, 23.6 GiB, sm_86; driver of CUDA 13.1" in report
    assert "nvcc 13.0 for sm 80 86" in report
    assert "available, with avx512 (compiled for less: avx2, baseline)" in report
    assert "survival losses cpu: right" in report
    assert "Everything that was built can run here." in report


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        (lambda f: f["build"].update(facts={}), "`pip install .` in the source folder"),
        (lambda f: f["build"]["facts"].update(cuda=False), "put nvcc"),
        (lambda f: f["torch"].update(cuda=None), "install a CUDA build of torch"),
        (lambda f: f.update(gpus=[]), "check `nvidia-smi`"),
        (lambda f: f["packages"].update(triton=None), "`pip install triton`"),
        (lambda f: f["survival"].update(cuda="nll: wrong"), "do not train survival on cuda"),
    ],
    ids=["nothing-built", "no-cuda-built", "cpu-torch", "no-gpu", "no-triton", "wrong-losses"],
)
def test_every_gap_has_a_fix(changed, change, advice):
    change(changed)
    report = doctor.render(changed)
    assert advice in report
    assert "Everything" not in report


@pytest.fixture
def report_with(monkeypatch):
    """The report of a machine with a GPU that is not here."""
    monkeypatch.delenv("GIMP_FAST_BACKEND", raising=False)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)

    def report(*names, **options):
        pretend_gpus(monkeypatch, *names, **options)
        return doctor.render(doctor.examine())

    return report


@needs_triton
def test_a_gpu_that_is_too_old_is_named_with_the_reason(report_with):
    report = report_with("Tesla T4")
    assert "Tesla T4, 16.0 GiB, sm_75; driver of CUDA 13.0" in report
    for needed in ("the CUDA operators are compiled for 8.0", "Triton's kernels need 8.0"):
        reason = f"Tesla T4 has compute capability 7.5; {needed}"
        assert report.count(reason) == 2  # as a status, and as a note
    assert "cuda: torch" in report
    assert "Other backends run there instead." in report
    assert "Everything" not in report


@needs_triton
def test_a_driver_that_is_too_old_is_named_with_what_to_do(report_with):
    report = report_with("A100", driver=(12, 4))
    assert "the NVIDIA driver supports CUDA up to 12.4, and these operators" in report
    assert "fix: update the NVIDIA driver to one that supports CUDA 13.0." in report
    assert "note: A100" not in report
    assert "cuda: triton" in report


@needs_triton
def test_a_gpu_that_runs_everything_needs_no_note(report_with):
    report = report_with("H100")
    assert "note: H100" not in report
    assert "cuda: cuda" in report
    assert "cuda: triton" in report


def test_backend_from_the_environment_that_cannot_run_is_shown(monkeypatch):
    monkeypatch.setenv("GIMP_FAST_BACKEND", "cuda")
    choices = doctor.examine()["operators"]["masked_l1"]
    assert "GIMP_FAST_BACKEND=cuda cannot run" in choices["cpu"]


def test_a_library_that_is_faster_at_every_shape_is_named(changed):
    changed["products"]["gflops"]["2000x512x512"]["onednn"] = 60.0
    changed["products"]["library"] = "onednn"
    assert "set GIMP_FAST_PRODUCTS=torch." in doctor.render(changed)


def test_the_library_of_products_is_named_with_its_reason_and_measured(facts):
    assert facts["products"]["library"] in facts["products"]["gflops"]["1024x64x256"]
    assert facts["products"]["reason"]
    speeds = [speed for shape in facts["products"]["gflops"].values() for speed in shape.values()]
    assert all(speed > 0 for speed in speeds)


def test_a_wrong_library_in_the_environment_is_shown(monkeypatch):
    product_library._lasting_choice.cache_clear()
    monkeypatch.setenv("GIMP_FAST_PRODUCTS", "blis")
    report = doctor.render(doctor.examine())
    assert "GIMP_FAST_PRODUCTS=blis is unknown; expected one of auto, torch, onednn" in report
    assert "set GIMP_FAST_PRODUCTS" not in report
