"""Fixtures that every test folder shares."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path

import pytest
import torch
from builders.clusters import Cluster
from builders.cohorts import synthetic_cohort
from builders.runs import METHODS, made_up_run, train_method

from gimp_fast.data import Cohort, open_cohort
from gimp_fast.wsi.encoders.timm_import import mend_torchvision

mend_torchvision()  # before a peer imports it

# Before anything imports triton, which asks only then: without a GPU its kernels are interpreted.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA GPU"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real patients, slides and expression files; tests that need it skip without it."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("GIMP_FAST_REALDATA", default))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set GIMP_FAST_REALDATA")
    return folder


@pytest.fixture(scope="session")
def cohort_folder(tmp_path_factory) -> Path:
    """A cohort of 40 synthetic patients; not to be changed."""
    return synthetic_cohort(tmp_path_factory.mktemp("synthetic"))


@pytest.fixture
def cohort(cohort_folder) -> Cohort:
    return open_cohort(cohort_folder)


@pytest.fixture(scope="session")
def run_of(cohort_folder, tmp_path_factory) -> Callable[..., Path]:
    """(method, modalities) -> its run folder, trained once; not to be changed."""

    @cache
    def trained(method: str, modalities: str) -> Path:
        out = tmp_path_factory.mktemp(f"{method}-{modalities}") / "run"
        return train_method(out, cohort_folder, method, modalities)

    return lambda method="gimp", modalities="both": trained(method, modalities)


@pytest.fixture(scope="session")
def gimp_run(run_of) -> Path:
    return run_of()


@pytest.fixture(params=METHODS, ids="-".join)
def any_run(request, run_of) -> Path:
    return run_of(*request.param)


@pytest.fixture
def cluster(tmp_path) -> Iterator[Cluster]:
    """A scheduler of dask without workers yet."""
    pytest.importorskip("distributed")
    folder = tmp_path / "cluster"
    folder.mkdir()
    cluster = Cluster(folder)
    yield cluster
    cluster.close()


@pytest.fixture
def make_run(tmp_path) -> Callable[..., Path]:
    """``make_run(classes=…, patients=…, …)`` writes a run of made-up numbers."""
    return partial(made_up_run, tmp_path / "run")
