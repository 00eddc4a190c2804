"""Small synthetic cohorts."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from gimp_fast.data.prepare.assemble import prepare
from gimp_fast.data.prepare.options import PrepareOptions, RnaOptions
from gimp_fast.data.synthetic.patients import (
    SyntheticConfig,
    prepare_synthetic,
    write_synthetic_cohort,
)

SIZES = {"feature_dim": 8, "num_genes": 60, "min_patches": 5, "median_patches": 30}


def synthetic_cohort(folder: Path, num_patients: int = 40, **sizes: int) -> Path:
    """The cohort folder of generated patients, who are written below ``folder``."""
    prepare_synthetic(folder / "out", SyntheticConfig(num_patients=num_patients, **SIZES | sizes))
    return folder / "out" / "cohort"


def cohort_of_gaps(folder: Path, num_patients: int = 40) -> Path:
    """A cohort folder with the targets os, grade (classes) and burden, which patients lack.

    Two fifths have no outcome, a third has no number, some have neither, and a tenth no grade.
    """
    paths = write_synthetic_cohort(
        folder / "raw", SyntheticConfig(num_patients=num_patients, **SIZES)
    )
    table = pd.read_csv(paths.clinical, dtype=str, keep_default_na=False)
    table.loc[table.index % 5 < 2, ["os_days", "os_event"]] = ""
    table.loc[table.index % 3 == 1, "burden"] = ""
    table["grade"] = [("low", "high")[row // 2 % 2] if row % 10 else "" for row in table.index]
    table.to_csv(paths.clinical, index=False)
    prepare(
        PrepareOptions(
            slides=paths.slides,
            rna=RnaOptions(paths=(paths.rna,)),
            labels=paths.labels,
            clinical=paths.clinical,
            target=(
                "os=survival:os_days,os_event", "grade=class:grade", "burden=regression:burden",
            ),
            splits=(paths.splits,),
            out=folder / "cohort",
            name="gaps",
            synthetic=True,
        )
    )  # fmt: skip
    return folder / "cohort"
