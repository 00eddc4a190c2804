"""``python -m gimp_fast.prepare``: check slides, RNA and labels and join them into a cohort folder.

python -m gimp_fast.prepare --slides h5_files --rna gdc_download --labels dataset.csv --out cohort
python -m gimp_fast.prepare --synthetic --out demo
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gimp_fast.cli import command
from gimp_fast.errors import GimpError

if TYPE_CHECKING:
    from gimp_fast.data.writer import CohortContents

RNA_COLUMNS = ("fpkm_unstranded", "fpkm_uq_unstranded", "tpm_unstranded", "unstranded")
TRANSFORMS = {"log2": "log2(x+1)", "as-given": "as given"}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m gimp_fast.prepare",
        description="Check slides, RNA and labels, and join them into a cohort folder. Every "
        "fault is reported, together; feature files are read where they lie.",
    )
    add = parser.add_argument
    add("--out", type=Path, required=True, help="cohort folder to write; new or empty")
    add("--slides", type=Path, nargs="+", default=(), metavar="DIR", help="folders of .h5 / .pt")
    add("--rna", type=Path, help="folder of GDC files, or a Xena matrix (.tsv, .tsv.gz)")
    add("--sample-sheet", type=Path, help="default: gdc_sample_sheet*.tsv in the RNA folder")
    add("--labels", type=Path, help="csv with case_id, slide_id, label")
    add(
        "--splits",
        type=Path,
        nargs="+",
        default=(),
        metavar="FILE_OR_DIR",
        help="csv with case_id, split, or CLAM's train, val, test; default: a new stratified "
        "60/20/20 split of patients",
    )
    add("--rna-column", choices=RNA_COLUMNS, default=RNA_COLUMNS[0], help="unit (GDC files)")
    add(
        "--transform",
        choices=TRANSFORMS,
        help="default: log2(x+1) for GDC files; matrices, which Xena has transformed, as given",
    )
    add(
        "--allow-missing-modality",
        action="store_true",
        help="keep patients without RNA, and those with an empty slide_id",
    )
    add("--name", help="name of the cohort; default: that of the folder")
    add("--seed", type=int, default=0, help="of the new split and of synthetic patients")
    add("--synthetic", action="store_true", help="generate synthetic patients instead")
    add("--patients", type=int, help="how many synthetic patients; default: as in the demo")
    add("--debug", action="store_true", help="show the traceback of an error")
    return parser


@command
def main(argv: Sequence[str]) -> int | None:
    options = build_parser().parse_args(argv)
    required = {"--slides": options.slides, "--rna": options.rna, "--labels": options.labels}
    if options.synthetic:
        given = [name for name, value in required.items() if value]
        if given:
            raise GimpError(f"--synthetic generates its own data: leave out {', '.join(given)}")
        contents, folder = _synthetic(options)
    else:
        missing = [name for name, value in required.items() if not value]
        if missing:
            raise GimpError(f"give {', '.join(missing)} (or --synthetic)")
        contents, folder = _real(options), options.out
    print(summary(contents))
    print(f"cohort written to {folder}")


def _real(options: argparse.Namespace) -> CohortContents:
    from gimp_fast.data.assemble import PrepareOptions, prepare

    return prepare(
        PrepareOptions(
            slides=tuple(options.slides),
            rna=options.rna,
            labels=options.labels,
            out=options.out,
            sample_sheet=options.sample_sheet,
            splits=tuple(options.splits),
            rna_column=options.rna_column,
            transform=TRANSFORMS.get(options.transform),
            allow_missing_modality=options.allow_missing_modality,
            name=options.name,
            seed=options.seed,
            progress=True,
        )
    )


def _synthetic(options: argparse.Namespace) -> tuple[CohortContents, Path]:
    from gimp_fast.data.synthetic import SyntheticConfig, prepare_synthetic

    given = {} if options.patients is None else {"num_patients": options.patients}
    config = SyntheticConfig(seed=options.seed, **given)
    name = options.name or "synthetic"
    return prepare_synthetic(options.out, config, name, progress=True), options.out / "cohort"


def summary(contents: CohortContents) -> str:
    """A few lines that say what the cohort holds and what was left out, and why."""
    import statistics
    from collections import Counter

    patches = [int(row["num_patches"]) for row in contents.slides] or [0]
    classes = Counter(row["label"] for row in contents.patients)
    with_rna = sum(row["has_rna"] == "1" for row in contents.patients)
    kind = "SYNTHETIC cohort" if contents.synthetic else "cohort"
    transform = contents.expression_info["transform"]
    lines = [
        f"{kind} '{contents.name}'",
        f"  patients  {len(contents.patients)} ({with_rna} with RNA): "
        + ", ".join(f"{classes[name]} {name}" for name in contents.classes),
        f"  slides    {len(contents.slides)}, {contents.feature_dim} channels, encoder "
        f"{contents.encoder or 'not recorded'}",
        f"  patches   {min(patches)} / {statistics.median(patches):g} / {max(patches)} a slide "
        f"(min / median / max), {sum(patches)} in all",
        f"  genes     {len(contents.genes)}, {transform}",
        f"  splits    {', '.join(contents.splits)}",
    ]
    reasons = Counter(_reason(row) for row in contents.dropped)
    lines += [f"  left out  {count} {reason}" for reason, count in sorted(reasons.items())]
    return "\n".join(lines)


def _reason(row: dict[str, str]) -> str:
    return f"{row['item']}: {row['reason'].split(':')[0].split(' (')[0]}"


if __name__ == "__main__":
    raise SystemExit(main())
