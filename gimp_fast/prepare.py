"""``python -m gimp_fast.prepare``: check slides, RNA and labels and join them into a cohort folder.

python -m gimp_fast.prepare --slides h5_files --rna gdc_download --labels dataset.csv --out cohort
python -m gimp_fast.prepare --slides h5_files --rna gdc_download --labels dataset.csv --check
python -m gimp_fast.prepare --slides new --rna new.tsv --genes-of runs/first --out to_predict
python -m gimp_fast.prepare --verify cohort
python -m gimp_fast.prepare --synthetic --out demo
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gimp_fast.cli import command
from gimp_fast.errors import FaultError, GimpError

if TYPE_CHECKING:
    from gimp_fast.data.prepare.assemble import PrepareOptions
    from gimp_fast.data.prepare.cohort_writer import CohortContents
    from gimp_fast.data.prepare.findings import Findings

# Written out, not imported: --help must not wait for numpy and pandas. Tests hold them together.
RNA_COLUMNS = ("fpkm_unstranded", "fpkm_uq_unstranded", "tpm_unstranded", "unstranded")
TRANSFORMS = {"log2": "log2(x+1)", "log1p": "log1p", "as-given": "as given"}
PATCH_ORDERS = ("file", "row", "column", "hilbert")
STORE_DTYPES = ("fp16", "bf16", "fp32")
ORIENTATIONS = ("auto", "genes-in-rows", "samples-in-rows")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m gimp_fast.prepare",
        description="Check slides, RNA and labels, and join them into a cohort folder. Every "
        "fault is reported, together, and nothing is written if there is one.",
        epilog="Slides: CLAM, TRIDENT and STAMP .h5 or Zarr, tensor .pt. RNA: a GDC download "
        "(STAR counts or the older FPKM files) with its sample sheet, Xena and cBioPortal "
        "matrices, csv, tsv and parquet with genes or samples in rows, MCAT's csv, AnnData "
        ".h5ad. Labels: CLAM's and MCAT's csv, TransMIL's fold csv, STAMP's clini table. Splits: "
        "case_id,split; CLAM's, MCAT's, TransMIL's csv; STAMP's splits.json.",
    )
    add = parser.add_argument
    add("--out", type=Path, help="cohort folder to write; new or empty")
    add("--labels", type=Path, help="table of patients, slides and labels")
    add(
        "--no-labels",
        action="store_true",
        help="a cohort for prediction: every slide is of the patient whose TCGA barcode its name "
        "begins with, or else of a patient of its own; --genes-of and --cases imply it",
    )
    add(
        "--cases",
        type=Path,
        metavar="FILE",
        help="a cohort for prediction: table of case_id, slide_id and, where known, label",
    )
    add("--name", help="name of the cohort; default: that of the folder")
    add(
        "--allow-missing-modality",
        action="store_true",
        help="keep patients without RNA, and those with an empty slide_id; needed for a cohort "
        "without --rna or without --slides",
    )
    add("--seed", type=int, default=0, help="of new splits and of synthetic patients")
    add("--workers", type=int, help="processes that read files; default: one a core")
    add("--debug", action="store_true", help="show the traceback of an error")
    _add_checking(parser.add_argument_group("checking"))
    _add_tables(parser.add_argument_group("labels and splits"))
    _add_slides(parser.add_argument_group("slides"))
    _add_rna(parser.add_argument_group("RNA"))
    group = parser.add_argument_group("synthetic patients").add_argument
    group("--synthetic", action="store_true", help="generate synthetic patients instead")
    group("--patients", type=int, help="how many; default: as in the demo")
    return parser


def _add_checking(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
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


def _add_tables(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--label-column", default="label", help="column of the labels (default: label)")
    add("--slide-table", type=Path, help="STAMP's slide table, where --labels is its clini table")
    add(
        "--splits",
        type=Path,
        nargs="+",
        default=(),
        metavar="FILE_OR_DIR",
        help="default: a new stratified 60/20/20 split of patients",
    )
    add("--folds", type=int, default=1, help="make as many stratified folds instead, 3 or more")
    add(
        "--site-splits",
        action="store_true",
        help="make splits in which no hospital is in two parts; its code is read from TCGA "
        "barcodes, or from --site-column",
    )
    add("--site-column", help="column of the labels table that names the hospital")


def _add_slides(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--slides",
        type=Path,
        nargs="+",
        default=(),
        metavar="DIR",
        help="folders of feature files; they are read where they lie",
    )
    add(
        "--order",
        choices=PATCH_ORDERS,
        default="file",
        help="order of a slide's patches, by coordinates; under hilbert a window is a compact "
        "piece of tissue (default: the file's)",
    )
    add(
        "--pack",
        choices=STORE_DTYPES,
        nargs="?",
        const="fp16",
        help="copy all features into one checksummed file that reads windows at the speed of "
        "memory; fp16 if no type is named",
    )


def _add_rna(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--rna",
        type=Path,
        nargs="+",
        default=(),
        metavar="FILE_OR_DIR",
        help="folders of GDC files, or tables; of several, the genes that all have",
    )
    add("--sample-sheet", type=Path, help="default: gdc_sample_sheet*.tsv in the RNA folder")
    add("--rna-column", choices=RNA_COLUMNS, help=f"unit of GDC files (default: {RNA_COLUMNS[0]})")
    add(
        "--transform",
        choices=TRANSFORMS,
        help="default: log2(x+1) for GDC files; tables, which their makers have transformed, as "
        "given",
    )
    add(
        "--sample-types",
        nargs="+",
        default=("01",),
        metavar="CODE",
        help="TCGA's codes of the samples that count: 01 primary tumour (default), 06 metastasis, "
        "03 leukaemia",
    )
    add("--orientation", choices=ORIENTATIONS, default="auto", help="of tables")
    add("--layer", help="of an AnnData file; default: X")
    add("--gene-types", nargs="+", default=(), metavar="TYPE", help="e.g. protein_coding")
    add("--genes", type=Path, metavar="FILE", help="list of genes to keep, in this order")
    add(
        "--gene-sets",
        type=Path,
        metavar="FILE",
        help="signatures (.gmt, or a csv with one a column): keep their genes, and make each "
        "signature a group of the gene encoder",
    )
    add(
        "--genes-of",
        type=Path,
        metavar="COHORT_OR_RUN",
        help="align new patients to the ordered gene list, unit and transform of a cohort, a run "
        "or a checkpoint; genes that are not measured are reported",
    )


@command
def main(argv: Sequence[str]) -> int | None:
    options = build_parser().parse_args(argv)
    if options.verify:
        return _verify(options)
    if options.synthetic:
        return _synthetic(options)
    _check_request(options)
    from gimp_fast.data.prepare.assemble import check
    from gimp_fast.data.prepare.cohort_writer import write_cohort

    contents, findings = check(_prepare_options(options))
    if options.report:
        _write_report(options.report, contents, findings)
    if contents is None:
        raise FaultError(findings.faults, "the cohort")
    if not options.check:
        write_cohort(options.out, contents, progress=True)
    print(summary(contents, findings))
    print("no fault found" if options.check else f"cohort written to {options.out}")
    return 0


def _check_request(options: argparse.Namespace) -> None:
    missing = []
    if not options.allow_missing_modality:
        missing += [f"--{name}" for name in ("slides", "rna") if not getattr(options, name)]
    elif not options.slides and not options.rna:
        missing.append("--slides or --rna")
    predicts = options.no_labels or options.cases or options.genes_of
    if options.labels and (options.no_labels or options.cases):
        raise GimpError("give either --labels, or --cases or --no-labels for prediction")
    if not options.labels and not predicts:
        missing.append("--labels")
    if not options.check and not options.out:
        missing.append("--out")
    if missing:
        raise GimpError(f"give {', '.join(missing)} (or --synthetic)")
    if not options.labels and (options.splits or options.site_splits or options.slide_table):
        raise GimpError("--splits, --site-splits and --slide-table need --labels")
    if options.splits and (options.folds != 1 or options.site_splits):
        raise GimpError("--splits are read as they are: leave out --folds and --site-splits")


def _prepare_options(options: argparse.Namespace) -> PrepareOptions:
    from gimp_fast.data.prepare.assemble import PrepareOptions
    from gimp_fast.data.prepare.join_rna import RnaOptions

    rna = RnaOptions(
        paths=tuple(options.rna),
        sample_sheet=options.sample_sheet,
        column=options.rna_column,
        transform=TRANSFORMS.get(options.transform),
        orientation=options.orientation,
        layer=options.layer,
        sample_types=tuple(options.sample_types),
        gene_types=tuple(options.gene_types),
        genes=options.genes,
        gene_sets=options.gene_sets,
        genes_of=options.genes_of,
    )
    return PrepareOptions(
        labels=options.labels,
        cases=options.cases,
        slides=tuple(options.slides),
        rna=rna,
        out=None if options.check else options.out,
        label_column=options.label_column,
        slide_table=options.slide_table,
        splits=tuple(options.splits),
        folds=options.folds,
        site_splits=options.site_splits,
        site_column=options.site_column,
        order=options.order,
        pack=options.pack,
        allow_missing_modality=options.allow_missing_modality,
        name=options.name,
        seed=options.seed,
        workers=options.workers,
        progress=True,
    )


def _synthetic(options: argparse.Namespace) -> int:
    from gimp_fast.data.synthetic.patients import SyntheticConfig, prepare_synthetic

    given = [f"--{x}" for x in ("slides", "rna", "labels", "check") if getattr(options, x)]
    if given:
        raise GimpError(f"--synthetic generates its own data: leave out {', '.join(given)}")
    if not options.out:
        raise GimpError("give --out")
    given = {} if options.patients is None else {"num_patients": options.patients}
    config = SyntheticConfig(seed=options.seed, **given)
    name = options.name or "synthetic"
    contents = prepare_synthetic(options.out, config, name, progress=True)
    print(summary(contents))
    print(f"cohort written to {options.out / 'cohort'}")
    return 0


def _verify(options: argparse.Namespace) -> int:
    from gimp_fast.data.prepare.verify import verify_cohort

    verified = verify_cohort(options.verify, workers=options.workers, progress=True)
    print(f"{options.verify}: {verified} intact")
    return 0


def _write_report(file: Path, contents: CohortContents | None, findings: Findings) -> None:
    report = findings.as_dict() | {"summary": contents and summary(contents, findings)}
    text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise GimpError(f"{file}: cannot be written ({error})") from error


def summary(contents: CohortContents, findings: Findings | None = None) -> str:
    """A few lines that say what the cohort holds and what was left out, and why."""
    import statistics
    from collections import Counter

    from gimp_fast.data.prepare.findings import Findings

    findings = findings or Findings([], contents.dropped, contents.dropped_genes)
    patches = [int(row["num_patches"]) for row in contents.slides] or [0]
    classes = Counter(row["label"] or "of unknown label" for row in contents.patients)
    kinds = [name for name in (*contents.classes, "of unknown label") if classes[name]]
    with_rna = sum(row["has_rna"] == "1" for row in contents.patients)
    kind = "SYNTHETIC cohort" if contents.synthetic else "cohort"
    lines = [
        f"{kind} '{contents.name}'",
        f"  patients  {len(contents.patients)} ({with_rna} with RNA): "
        + ", ".join(f"{classes[name]} {name}" for name in kinds),
        f"  slides    {len(contents.slides)}, {contents.feature_dim} channels, encoder "
        f"{contents.encoder or 'not recorded'}, {_resolution(contents)}",
        f"  patches   {min(patches)} / {statistics.median(patches):g} / {max(patches)} a slide "
        f"(min / median / max), {sum(patches)} in all, order: {contents.patch_order}"
        + (f", packed as {contents.pack}" if contents.pack else ""),
        f"  genes     {len(contents.genes)}, {contents.expression_info['transform']}"
        + (f", {len(contents.gene_sets)} gene sets" if contents.gene_sets else ""),
    ]
    if contents.missing_genes:
        named = ", ".join(contents.missing_genes[:5])
        lines.append(f"  missing   {len(contents.missing_genes)} genes not measured: {named} …")
    for name in contents.splits:
        note = contents.split_notes.get(name)
        lines.append(f"  split     {name}" + (f": {note}" if note else ""))
    lines += [f"  left out  {count} {reason}" for reason, count in findings.reasons().items()]
    return "\n".join(lines)


def _resolution(contents: CohortContents) -> str:
    mpp = f"{contents.mpp:g} µm a pixel" if contents.mpp else "resolution not recorded"
    return f"{mpp}, {contents.patch_size} pixels" if contents.patch_size else mpp


if __name__ == "__main__":
    raise SystemExit(main())
