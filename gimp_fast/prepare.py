"""``python -m gimp_fast.prepare``: check slides, RNA and labels and join them into a cohort folder.

python -m gimp_fast.prepare --slides h5_files --rna gdc_download --labels dataset.csv --out cohort
python -m gimp_fast.prepare --slides h5_files --rna gdc_download --labels dataset.csv --check
python -m gimp_fast.prepare --slides new --rna new.tsv --genes-of runs/first --out to_predict
python -m gimp_fast.prepare --verify cohort
python -m gimp_fast.prepare --synthetic --out demo
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gimp_fast.cli import Parser, command
from gimp_fast.data.prepare.options import PrepareOptions, RnaOptions
from gimp_fast.errors import GimpError
from gimp_fast.files.atomic import write_json
from gimp_fast.options import add_options, read_options

if TYPE_CHECKING:
    from gimp_fast.data.prepare.assemble import Checked
    from gimp_fast.data.prepare.cohort_writer import CohortContents


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        "prepare",
        description="Check slides, RNA and labels, and join them into a cohort folder. All faults "
        "are reported together, and nothing is written if there is one.",
        epilog="Slides: CLAM, TRIDENT and STAMP .h5 or Zarr, tensor .pt. RNA: a GDC download "
        "(STAR counts or the older FPKM files) with its sample sheet, Xena and cBioPortal "
        "matrices, csv, tsv and parquet with genes or samples in rows, MCAT's csv, AnnData "
        ".h5ad. Labels: CLAM's and MCAT's csv, TransMIL's fold csv, STAMP's clini table. Splits: "
        "case_id,split; CLAM's, MCAT's, TransMIL's csv; STAMP's splits.json.",
    )
    parser.add_argument(
        "--no-labels",
        action="store_true",
        help="a cohort for prediction: patients come from the TCGA barcode at the start of the "
        "file name; any other slide is its own patient. --genes-of and --cases imply it",
    )
    parser.add_plugins()
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    add_options(parser, PrepareOptions)
    add_options(parser, RnaOptions, group="RNA")
    add = parser.add_argument_group("checking").add_argument
    add("--check", action="store_true", help="report all faults, and write no cohort")
    add(
        "--report",
        type=Path,
        metavar="JSON",
        help="write faults, counts by kind, and everything left out, for a program to read",
    )
    add(
        "--verify",
        type=Path,
        metavar="COHORT",
        help="read all features and tables of a cohort folder again, against their checksums",
    )
    add = parser.add_argument_group("synthetic patients").add_argument
    add("--synthetic", action="store_true", help="generate synthetic patients instead")
    add("--patients", type=int, help="how many (default: as in the demo)")
    return parser


@command
def main(argv: Sequence[str]) -> int | None:
    arguments = build_parser().parse_args(argv)
    if arguments.verify:
        return _verify(arguments)
    if arguments.synthetic:
        return _synthetic(arguments)
    rna = read_options(arguments, RnaOptions)
    options = read_options(arguments, PrepareOptions, rna=rna, progress=True)
    _check_request(arguments, options)
    from gimp_fast.data.prepare.cohort_writer import write_cohort
    from gimp_fast.verbs import check_cohort

    if arguments.check:
        options = dataclasses.replace(options, out=None)
    checked = check_cohort(options)
    if arguments.report:
        _write_report(arguments.report, checked)
    contents = checked.need_contents(arguments.report)
    if not arguments.check:
        write_cohort(options.out, contents, progress=True)
    print(summary(contents))
    print("no fault found" if arguments.check else f"cohort written to {options.out}")
    return 0


def _check_request(arguments: argparse.Namespace, options: PrepareOptions) -> None:
    missing = []
    if not options.allow_missing_modality:
        given = {"--slides": options.slides, "--rna": options.rna.paths}
        missing += [flag for flag, paths in given.items() if not paths]
    elif not options.slides and not options.rna.paths:
        missing.append("--slides or --rna")
    if options.labels and (arguments.no_labels or options.cases):
        raise GimpError("give either --labels, or --cases or --no-labels for prediction")
    if not (options.labels or arguments.no_labels or options.cases or options.rna.genes_of):
        missing.append("--labels")
    if not arguments.check and not options.out:
        missing.append("--out")
    if missing:
        raise GimpError(f"give {', '.join(missing)} (or --synthetic)")
    if not options.labels and (options.splits or options.site_splits or options.slide_table):
        raise GimpError("--splits, --site-splits and --slide-table need --labels")
    if options.splits and (options.folds != 1 or options.site_splits):
        raise GimpError("--splits are used as they are: leave out --folds and --site-splits")


def _synthetic(arguments: argparse.Namespace) -> int:
    from gimp_fast.data.synthetic.patients import SyntheticConfig, prepare_synthetic

    flags = {"--slides": "slides", "--rna": "paths", "--labels": "labels", "--check": "check"}
    given = [flag for flag, name in flags.items() if getattr(arguments, name)]
    if given:
        raise GimpError(f"--synthetic generates its own data: leave out {', '.join(given)}")
    if not arguments.out:
        raise GimpError("give --out")
    size = {} if arguments.patients is None else {"num_patients": arguments.patients}
    config = SyntheticConfig(seed=arguments.seed, **size)
    name = arguments.name or "synthetic"
    contents = prepare_synthetic(arguments.out, config, name, progress=True)
    print(summary(contents))
    print(f"cohort written to {arguments.out / 'cohort'}")
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from gimp_fast.data.prepare.verify import verify_cohort

    verified = verify_cohort(
        arguments.verify, workers=arguments.workers, progress=True, scheduler=arguments.scheduler
    )
    print(f"{arguments.verify}: {verified} intact")
    return 0


def _write_report(file: Path, checked: Checked) -> None:
    contents = checked.contents
    report = checked.as_dict() | {"summary": contents and summary(contents)}
    write_json(file, report)


def summary(contents: CohortContents) -> str:
    """A few lines about the contents of a cohort, what was left out, and why."""
    import statistics
    from collections import Counter

    from gimp_fast.data.class_checks import counts_text
    from gimp_fast.data.cohort_covariates import covariate_text
    from gimp_fast.data.cohort_files import reasons
    from gimp_fast.data.cohort_targets import target_text
    from gimp_fast.data.prepare.join_rna import rna_lines

    patches = [int(row["num_patches"]) for row in contents.slides] or [0]
    classes = Counter(row["label"] or "of unknown label" for row in contents.patients)
    kinds = [name for name in (*contents.classes, "of unknown label") if classes[name]]
    by_class = ": " + ", ".join(f"{classes[name]} {name}" for name in kinds)
    if contents.targets and not contents.classes:
        by_class = ""
    with_rna = sum(row["has_rna"] == "1" for row in contents.patients)
    kind = "SYNTHETIC cohort" if contents.synthetic else "cohort"
    resolution = f"{contents.mpp:g} µm a pixel" if contents.mpp else "resolution not recorded"
    if contents.patch_size:
        resolution += f", {contents.patch_size} pixels"
    lines = [
        f"{kind} '{contents.name}'",
        f"  patients  {len(contents.patients)} ({with_rna} with RNA){by_class}",
        f"  slides    {len(contents.slides)}, {contents.feature_dim} channels, encoder "
        f"{contents.encoder or 'not recorded'}, {resolution}",
        f"  patches   {min(patches)} / {statistics.median(patches):g} / {max(patches)} a slide "
        f"(min / median / max), {sum(patches)} in all, order: {contents.patch_order}"
        + (f", packed as {contents.pack}" if contents.pack else ""),
        f"  genes     {len(contents.genes)}, {contents.expression_info['transform']}"
        + (f", {len(contents.gene_sets)} gene sets" if contents.gene_sets else ""),
    ]
    if contents.missing_genes:
        named = ", ".join(contents.missing_genes[:5])
        lines.append(f"  missing   {len(contents.missing_genes)} genes not measured: {named} …")
    lines += [f"  target    {text}" for text in map(target_text, contents.targets)]
    lines += [f"  covariate {text}" for text in map(covariate_text, contents.covariates)]
    lines += [f"            {note}" for note in contents.target_notes]
    for name in contents.splits:
        note = contents.split_notes.get(name)
        lines.append(f"  split     {name}" + (f": {note}" if note else ""))
        if contents.classes:
            lines.append(f"            {counts_text(contents.class_counts(name))}")
    left_out = reasons(contents.dropped, contents.dropped_genes)
    lines += [f"  left out  {count} {reason}" for reason, count in left_out.items()]
    lines += rna_lines(contents.expression_info)
    lines += [f"caution: {text}" for text in contents.all_cautions()]
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
