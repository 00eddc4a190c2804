"""Small synthetic cohorts."""

from __future__ import annotations

from pathlib import Path

from gimp_fast.data.synthetic.patients import SyntheticConfig, prepare_synthetic

SIZES = {"feature_dim": 8, "num_genes": 60, "min_patches": 5, "median_patches": 30}


def synthetic_cohort(folder: Path, num_patients: int = 40, **sizes: int) -> Path:
    """The cohort folder of generated patients, who are written below ``folder``."""
    prepare_synthetic(folder / "out", SyntheticConfig(num_patients=num_patients, **SIZES | sizes))
    return folder / "out" / "cohort"
