"""Models of each kind, and a cohort of which they have seen some by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from builders.cohorts import synthetic_cohort
from builders.runs import QUICK, train_run
from builders.validations import QUICK_VALIDATION

from gimp_fast.external import Validation, validate_model

KINDS = {"class": (), "survival": ("target=os",), "regression": ("target=burden",)}


@pytest.fixture(scope="session")
def other_folder(tmp_path_factory) -> Path:
    """80 patients of another seed; the first 40 have the names of those of ``cohort_folder``."""
    return synthetic_cohort(tmp_path_factory.mktemp("other"), 80, seed=7)


@pytest.fixture(scope="session")
def trained(cohort_folder, tmp_path_factory) -> Callable[..., Path]:
    """(kind, seed) -> a run, trained once; not to be changed."""

    @cache
    def run(kind: str, seed: int) -> Path:
        out = tmp_path_factory.mktemp(f"{kind}-{seed}") / "run"
        # Genes alone: the quickest model that there is.
        settings = (*QUICK, "method=snn", "modalities=rna", f"seed={seed}")
        return train_run(out, cohort_folder, *settings, *KINDS[kind])

    return lambda kind="class", seed=0: run(kind, seed)


@pytest.fixture(scope="session")
def validated(trained, other_folder) -> Callable[..., Validation]:
    """(kind, seeds) -> what validating the runs of these seeds gave, computed once."""

    @cache
    def found(kind: str, seeds: tuple[int, ...]) -> Validation:
        return validate_model(
            [trained(kind, seed) for seed in seeds], other_folder, QUICK_VALIDATION
        )

    return lambda kind="class", seeds=(0,): found(kind, seeds)
