"""Survival from slides, RNA and clinical covariates in Python: train, judge, predict.

python examples/survival_with_covariates.py /tmp/example

The patients here are SYNTHETIC, so that the example runs anywhere; give your own folders to
`prepare_cohort`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from gimp_fast import load, prepare_cohort, train_model
from gimp_fast.cli import command
from gimp_fast.data.synthetic.patients import SyntheticConfig, write_synthetic_cohort
from gimp_fast.errors import GimpError


def main(folder: Path) -> dict:
    # 1. A table with a row a patient has the time, the event and the covariates. The name of the
    #    column says the unit, days; words and numbers for events are recognised.
    patients = SyntheticConfig(num_patients=120, weak=0.1, signal_genes=0.1, median_patches=100)
    raw = write_synthetic_cohort(folder / "raw", patients)
    cohort = prepare_cohort(
        slides=raw.slides,
        rna=raw.rna,
        labels=raw.labels,
        clinical=raw.clinical,
        target="os=survival:os_days,os_event",
        covariates=("age", "stage"),
        splits=raw.splits,
        out=folder / "cohort",
    )

    # 2. Any method takes a target and covariates. Hiding modalities in training lets the model
    #    predict patients without slides, without RNA, or without covariates.
    metrics = train_model(
        cohort,
        folder / "run",
        preset="demo",
        method="porpoise",
        target="os",
        covariates=["age", "stage"],
        finetune={"epochs": 8, "modality_dropout": 0.3},
        model={"covariate_hidden": 8},  # without it, a linear map of the covariates
    )

    # 3. How well risks order the test patients, and what is left without covariates.
    for shown, scores in (
        ("all", metrics["test"]),
        ("without covariates", metrics["by_modality"]["without_covariates"]),
    ):
        found = scores["c_index"]
        print(f"{shown}: C-index {found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})")
    print(f"Kaplan–Meier curves by risk: {folder / 'run' / 'figures' / 'kaplan_meier.png'}")

    # 4. Predict patients from arrays in memory: risk, and survival at the horizons.
    model, cases = load(folder / "run"), cohort.split(cohort.split_names[0])["test"][:3]
    patches, genes = [cohort.bag(case).read() for case in cases], cohort.expression(cases)
    table = pd.DataFrame({"age": [61, 70, None], "stage": ["I", "III", "II"]})  # None is missing
    print(pd.DataFrame(model.predict(patches, genes, table), cases, model.columns).round(3))
    print(pd.DataFrame(model.predict(patches, None), cases, model.columns).round(3))  # slides alone
    return metrics


@command  # an error that a user can mend, and Ctrl-C, are one line instead of a traceback
def run(argv: Sequence[str]) -> None:
    if len(argv) != 1:
        raise GimpError("give one folder to write to, new or empty")
    main(Path(argv[0]))


if __name__ == "__main__":
    sys.exit(run())
