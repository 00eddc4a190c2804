"""Six real cohorts through `prepare` and `experiments survival`, with one command.

python benchmarks/survival_cohorts.py --data FOLDER --out DIR [--folds site|hipt] [options …]

FOLDER (default: $GIMP_FAST_REALDATA/survival) holds a folder tcga_<name> for each cohort:
pt_files/ (region embeddings of mahmoodlab/HIPT), rna.csv.gz (in the layout of mahmoodlab/MCAT, of
mahmoodlab/PORPOISE), clinical.csv (TCGA-CDR, by way of KatherLab/cancer-metadata) and splits/.
Cohorts are written to DIR/cohorts, and are not prepared twice. All other options are those of
`gimp-fast experiments survival`; the same command resumes.

`--folds site` are five splits in which no hospital is in two parts. `--folds hipt` are those of
HIPT's publication, of brca, luad and coadread. They have no test part, and their figures are of the
validation part: here that part is for testing, and a fifth of the training patients, drawn by the
event, chooses epochs and settings.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gimp_fast.experiments import main as make_tables
from gimp_fast.prepare import main as prepare

COHORTS = ("brca", "blca", "gbmlgg", "luad", "hnsc", "coadread")
OF_HIPT = ("brca", "luad", "coadread")
FOLDS = {"site": COHORTS, "hipt": OF_HIPT}
WITHOUT_STAGE = ("gbmlgg",)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    real = os.environ.get("GIMP_FAST_REALDATA")
    default = Path(real) / "survival" if real else None
    parser.add_argument("--data", type=Path, default=default, required=default is None)
    parser.add_argument("--out", type=Path, required=True, help="folder of cohorts and results")
    parser.add_argument("--folds", choices=FOLDS, default="site")
    parser.add_argument("--cohorts", nargs="+", metavar="NAME", help="some of the cohorts")
    args, others = parser.parse_known_args(argv)
    names = args.cohorts or FOLDS[args.folds]
    for name in names:
        if code := prepare_cohort(args.data / f"tcga_{name}", args.out / "cohorts" / name):
            return code
    cohorts = [str(args.out / "cohorts" / name) for name in names]
    chosen = ["--splits", f"{args.folds}_*", "--out", str(args.out / args.folds)]
    return make_tables(["survival", "--data", *cohorts, *chosen, *others])


OWN_GENES = ("--gene-sets", "hallmark", "--keep-other-genes")


def prepare_cohort(source: Path, out: Path, genes: Sequence[str] = OWN_GENES) -> int:
    """Write the cohort unless it is there; returns the exit code of `prepare`.

    ``genes`` are its options that say which genes the cohort has.
    """
    if out.exists():
        return 0
    name = source.name.removeprefix("tcga_")
    folds = out.parent / f"{out.name}-splits"
    folds.mkdir(parents=True, exist_ok=True)
    for file in sorted((source / "splits").glob("site_*.csv")):
        (folds / file.name).write_bytes(file.read_bytes())
    if name in OF_HIPT:
        for file in sorted((source / "splits").glob("hipt_*.csv")):
            write_with_test_part(file, source / "clinical.csv", folds / file.name)
    covariates = "age,sex" if name in WITHOUT_STAGE else "age,sex,stage:major"
    return prepare(
        [
            *("--slides", str(source / "pt_files"), "--rna", str(source / "rna.csv.gz")),
            *("--labels", str(source / "clinical.csv"), "--site-column", "site"),
            *("--target", "os=survival:os_days,os_event", "--covariates", covariates),
            *(*genes, "--allow-missing-modality"),
            *("--splits", str(folds), "--name", f"TCGA-{name.upper()}", "--out", str(out)),
        ]
    )


def write_with_test_part(source: Path, clinical: Path, out: Path) -> None:
    """A split of train and val as one of train, val and test."""
    with source.open(newline="") as stream:
        part_of = {row["case_id"]: row["split"] for row in csv.DictReader(stream)}
    with clinical.open(newline="") as stream:
        event_of = {row["case_id"]: row["os_event"] for row in csv.DictReader(stream)}
    rng = np.random.default_rng(0)
    chosen: set[str] = set()
    training = sorted(case for case, part in part_of.items() if part == "train")
    for event in sorted({event_of[case] for case in training}):
        of_event = [case for case in training if event_of[case] == event]
        chosen |= set(rng.permutation(of_event)[: round(len(of_event) / 5)].tolist())
    parts = {"train": "train", "val": "test"}
    lines = [f"{case},{'val' if case in chosen else parts[part]}" for case, part in part_of.items()]
    out.write_text("\n".join(["case_id,split", *lines]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
