"""GiMP beside logistic regression on the splits of a prepared cohort of real patients.

python benchmarks/real_patients.py --data cohort --runs runs/real

Trains (or goes on with) one run a split and modality, computes the baselines in the same call, and
writes results/<device>-<cohort>.json. Without --data there is nothing to do.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from _common import write_results
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from gimp_fast.data import Cohort, open_cohort
from gimp_fast.training import load_config, train
from gimp_fast.training.evaluation import metrics_with_intervals

BOTH, SINGLE = "both", ("slide", "rna")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="cohort folder that `prepare` wrote")
    parser.add_argument("--runs", type=Path, default=Path("runs/real"), help="folder of the runs")
    parser.add_argument("--preset", default="small")
    parser.add_argument(
        "--single", nargs="*", default=["random_0", "site_0"], help="splits for one modality alone"
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    args = parser.parse_args()
    if args.data is None:
        print("skipped: no --data; see the README for the cohort")
        return 0
    cohort = open_cohort(args.data)
    results = {}
    for split in cohort.split_names:
        for modalities in (BOTH, *(SINGLE if split in args.single else ())):
            name = f"{split}-{modalities}"
            overrides = [f"split={split}", f"modalities={modalities}", f"device={args.device}"]
            config = load_config(args.preset, overrides=overrides)
            metrics = train(config, cohort, args.runs / name, resume=True)
            results[name] = {
                "gimp": {part: metrics[part] for part in ("val", "test")},
                "logistic_regression": {"test": _baseline(cohort, split, modalities)},
            }
            print(_row(name, results[name]), flush=True)
    facts = {"cohort": cohort.name, "preset": args.preset, "results": results}
    used = "cuda" if args.device != "cpu" and torch.cuda.is_available() else "cpu"
    print(f"wrote {write_results(cohort.name.lower(), used, facts)}")
    return 0


def _baseline(cohort: Cohort, split: str, modalities: str) -> dict:
    """Mean of the bag and / or RNA, standardised, C = 0.05."""
    parts = cohort.split(split)

    def features(case: str) -> np.ndarray:
        mean = cohort.bag(case).read().mean(0)
        rna = cohort.expression([case])[0]
        return {"slide": mean, "rna": rna, BOTH: np.concatenate([mean, rna])}[modalities]

    x, y = {}, {}
    for part in ("train", "test"):
        x[part] = np.stack([features(case) for case in parts[part]])
        y[part] = np.array([cohort.label(case) for case in parts[part]])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.05, max_iter=5000))
    probabilities = model.fit(x["train"], y["train"]).predict_proba(x["test"])
    return metrics_with_intervals(probabilities, y["test"], resamples=1000, seed=0)


def _row(name: str, result: dict) -> str:
    cells = [name]
    for method in ("gimp", "logistic_regression"):
        test = result[method]["test"]
        accuracy, auc = test["accuracy"], test["auc"]
        interval = f"{accuracy['low']:.3f} to {accuracy['high']:.3f}"
        cells.append(f"{accuracy['value']:.3f} ({accuracy['k']}/{accuracy['n']}, {interval})")
        cells.append(f"{auc['value']:.3f}")
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    sys.exit(main())
