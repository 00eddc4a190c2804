"""A synthetic cohort with two folds, and settings that train in a moment."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from gimp_fast.data import Cohort, open_cohort
from gimp_fast.data.prepare.assemble import prepare
from gimp_fast.data.prepare.options import PrepareOptions, RnaOptions
from gimp_fast.data.synthetic.patients import (
    SyntheticConfig,
    SyntheticPaths,
    write_synthetic_cohort,
)

TINY = [
    *("--preset", "small", "--jobs", "2", "--resamples", "50"),
    *("--set", "finetune.epochs=1", "--set", "pretrain.epochs=1", "--set", "genes.epochs=1"),
    *("--set", "pretrain.window=8", "--set", "device=cpu", "--set", "model.heads=2"),
    *("--set", "model.dim=8", "--set", "model.num_landmarks=4"),
]


@pytest.fixture(scope="session")
def raw(tmp_path_factory) -> SyntheticPaths:
    config = SyntheticConfig(
        num_patients=40, feature_dim=8, num_genes=60, min_patches=5, median_patches=12
    )
    return write_synthetic_cohort(tmp_path_factory.mktemp("raw"), config)


@pytest.fixture(scope="session")
def cohort_folder(raw, tmp_path_factory) -> Path:
    """Its folds are ``fold_0``, and ``fold_1`` with validation and test patients exchanged."""
    folder = tmp_path_factory.mktemp("cohort")
    with raw.splits.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    exchanged = {"val": "test", "test": "val"}
    for number, names in enumerate(({}, exchanged)):
        lines = [f"{row['case_id']},{names.get(row['split'], row['split'])}" for row in rows]
        (folder / f"fold_{number}.csv").write_text("\n".join(["case_id,split", *lines]) + "\n")
    prepare(
        PrepareOptions(
            slides=raw.slides,
            rna=RnaOptions(paths=(raw.rna,)),
            labels=raw.labels,
            splits=(folder / "fold_0.csv", folder / "fold_1.csv"),
            out=folder / "cohort",
            name="made up & <small>",
            synthetic=True,
        )
    )
    return folder / "cohort"


@pytest.fixture
def cohort(cohort_folder) -> Cohort:
    return open_cohort(cohort_folder)


@pytest.fixture(scope="session")
def cohort_without_rna(raw, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("slides") / "cohort"
    prepare(
        PrepareOptions(
            slides=raw.slides, labels=raw.labels, splits=(raw.splits,), out=out, synthetic=True
        )
    )
    return out


@pytest.fixture(scope="session")
def tiny() -> list[str]:
    return TINY
