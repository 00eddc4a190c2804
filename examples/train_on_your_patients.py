"""From files to a trained model in Python: what the commands do, step by step.

python examples/train_on_your_patients.py /tmp/example

The patients here are SYNTHETIC, so that the example runs anywhere; put your own folders into
`PrepareOptions`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from gimp_fast.data import open_cohort
from gimp_fast.data.prepare.assemble import PrepareOptions, prepare
from gimp_fast.data.prepare.join_rna import RnaOptions
from gimp_fast.data.synthetic.patients import SyntheticConfig, write_synthetic_cohort
from gimp_fast.training import load_config, train

# Seconds on a laptop. `load_config("paper")`, without overrides, has the settings of the paper.
PRESET, OVERRIDES = "demo", ["genes.epochs=15", "pretrain.epochs=4", "finetune.epochs=8"]


def main(folder: Path) -> dict:
    # 1. Files as users have them: slides of three tools, a GDC download, labels, splits.
    patients = SyntheticConfig(num_patients=120, weak=0.1, signal_genes=0.1)
    raw = write_synthetic_cohort(folder / "raw", patients)

    # 2. A checked cohort. Every fault would be in the FaultError that this raises.
    prepare(
        PrepareOptions(
            labels=raw.labels,
            slides=raw.slides,
            rna=RnaOptions(paths=(raw.rna,)),
            splits=(raw.splits,),
            out=folder / "cohort",
            pack="fp16",
        )
    )
    cohort = open_cohort(folder / "cohort")
    print(cohort, cohort.bag(cohort.case_ids[0]).read(0, 3).shape)

    # 3. Stages one by one, each from what the one before left in the folder; or all with one call.
    config = load_config(PRESET, overrides=OVERRIDES)
    run = folder / "run"
    print(train(config, cohort, run, stages=["genes"]))
    train(config, cohort, run, stages=["pretrain"], resume=True)
    metrics = train(config, cohort, run, stages=["finetune"], resume=True)
    print(metrics["test"]["accuracy"])
    return metrics


if __name__ == "__main__":
    main(Path(sys.argv[1]))
