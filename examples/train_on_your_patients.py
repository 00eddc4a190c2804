"""From files to a trained model in Python: what the commands do, step by step.

python examples/train_on_your_patients.py /tmp/example

The patients here are SYNTHETIC, so that the example runs anywhere; give your own folders to
`prepare_cohort`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from gimp_fast.cli import command
from gimp_fast.data.synthetic.patients import SyntheticConfig, write_synthetic_cohort
from gimp_fast.errors import GimpError
from gimp_fast.training import load_config, train
from gimp_fast.verbs import prepare_cohort

# Few epochs: all of it takes about 15 seconds of one core (measured on an AMD EPYC server).
# `load_config("paper")`, without overrides, has the paper's settings.
PRESET, OVERRIDES = "demo", ["genes.epochs=15", "pretrain.epochs=2", "finetune.epochs=4"]


def main(folder: Path) -> dict:
    # 1. Files as users have them: slides from three tools, a GDC download, labels, splits.
    patients = SyntheticConfig(num_patients=120, weak=0.1, signal_genes=0.1, median_patches=100)
    raw = write_synthetic_cohort(folder / "raw", patients)

    # 2. A checked cohort. If anything is wrong, this raises a FaultError with every fault.
    cohort = prepare_cohort(
        labels=raw.labels,
        slides=raw.slides,
        rna=raw.rna,
        splits=raw.splits,
        out=folder / "cohort",
        pack="fp16",
    )
    print(cohort, cohort.bag(cohort.case_ids[0]).read(0, 3).shape)

    # 3. One stage after the other, each from the results of the last; one call can run them all.
    config = load_config(PRESET, overrides=OVERRIDES)
    run = folder / "run"
    print(train(config, cohort, run, stages=["genes"]))
    train(config, cohort, run, stages=["pretrain"], resume=True)
    metrics = train(config, cohort, run, stages=["finetune"], resume=True)
    print(metrics["test"]["accuracy"])
    return metrics


@command  # an error that a user can mend, and Ctrl-C, are one line instead of a traceback
def run(argv: Sequence[str]) -> None:
    if len(argv) != 1:
        raise GimpError("give one folder to write to, new or empty")
    main(Path(argv[0]))


if __name__ == "__main__":
    sys.exit(run())
