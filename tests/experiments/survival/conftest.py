"""Two cohorts with outcomes and covariates, made up, small enough to train on in a moment."""

from __future__ import annotations

from pathlib import Path

import pytest

from gimp_fast.data.prepare.assemble import prepare
from gimp_fast.data.prepare.options import PrepareOptions, RnaOptions
from gimp_fast.data.synthetic.patients import SyntheticConfig, write_synthetic_cohort

SIZES = {"feature_dim": 8, "num_genes": 60, "min_patches": 5, "median_patches": 12}


def made_up(folder: Path, name: str, seed: int, covariates: tuple[str, ...]) -> Path:
    """A cohort of 45 patients with three folds."""
    raw = write_synthetic_cohort(
        folder / "raw", SyntheticConfig(num_patients=45, seed=seed, **SIZES)
    )
    prepare(
        PrepareOptions(
            slides=raw.slides,
            rna=RnaOptions(paths=(raw.rna,)),
            labels=raw.labels,
            clinical=raw.clinical,
            target=("os=survival:os_days,os_event", "burden=regression:burden"),
            covariates=covariates,
            folds=3,
            out=folder / "cohort",
            name=name,
            synthetic=True,
        )
    )
    return folder / "cohort"


@pytest.fixture(scope="session")
def cohort_folders(tmp_path_factory) -> list[Path]:
    """The second has no covariates."""
    return [
        made_up(tmp_path_factory.mktemp("first"), "first", 0, ("age", "stage")),
        made_up(tmp_path_factory.mktemp("second"), "second", 1, ()),
    ]
