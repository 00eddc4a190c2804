"""``prepare``: checks slides, RNA, labels and splits, and joins them into a cohort folder.

Every fault is collected and reported together; nothing is written before all checks have passed.
What is left out on purpose is recorded with its reason, never dropped in silence.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gimp_fast.data.cohort import Rows
from gimp_fast.data.prepare.cohort_writer import CohortContents, check_free, write_cohort
from gimp_fast.data.prepare.findings import Findings
from gimp_fast.data.prepare.join_rna import JoinedRna, RnaOptions, join_rna
from gimp_fast.data.prepare.join_slides import find_slides, match_slides, scan_slides, slide_row
from gimp_fast.data.prepare.unlabelled import listed_patients, patients_of_rna_alone
from gimp_fast.data.slides.scan import SlideScan
from gimp_fast.data.tables import (
    LABEL_COLUMN,
    LabelRow,
    make_splits,
    read_labels,
    read_splits,
    shared_sites,
    site_of,
    sites_from_table,
    split_files,
)
from gimp_fast.errors import FaultError

SYNTHETIC_ENCODER = "synthetic"


@dataclass(frozen=True)
class PrepareOptions:
    """What to join; see ``python -m gimp_fast.prepare --help``.

    Attributes:
        labels: table of patients, slides and labels; None for patients to predict, whose labels
            need not be known.
        cases: of patients to predict: table of patients and slides. None takes every slide there
            is, of the patient whose TCGA barcode its name begins with, or else of its own.
        slides: folders of feature files; none for a cohort without slides.
        rna: expression; none of it for a cohort without RNA.
        out: folder to write; None only checks.
        label_column: column of the labels.
        slide_table: STAMP's slide table, where ``labels`` is its clini table.
        splits: files and folders of splits; none makes new ones.
        folds: of new splits: 1 is one split of 60/20/20.
        site_splits: keep all patients of a site in one part of a new split.
        site_column: of ``labels``; None reads the site from TCGA barcodes.
        order: of a slide's patches, see ``slides.order.PATCH_ORDERS``.
        pack: ``fp16``, ``bf16`` or ``fp32`` to write a feature store.
        allow_missing_modality: keep patients without RNA, or without slides.
        name: of the cohort; None takes the folder's.
        synthetic: whether the patients are generated.
        seed: of new splits.
        workers: processes that read files; None for one a core.
        progress: show bars.
    """

    labels: Path | None
    cases: Path | None = None
    slides: tuple[Path, ...] = ()
    rna: RnaOptions = field(default_factory=RnaOptions)
    out: Path | None = None
    label_column: str = LABEL_COLUMN
    slide_table: Path | None = None
    splits: tuple[Path, ...] = ()
    folds: int = 1
    site_splits: bool = False
    site_column: str | None = None
    order: str = "file"
    pack: str | None = None
    allow_missing_modality: bool = False
    name: str | None = None
    synthetic: bool = False
    seed: int = 0
    workers: int | None = None
    progress: bool = False


def prepare(options: PrepareOptions) -> CohortContents:
    """Check everything, then write the cohort folder.

    Returns:
        What was written.

    Raises:
        FaultError: all faults found; nothing has been written.
        GimpError: the folder could not be written.
    """
    contents, findings = check(options)
    if contents is None:
        raise FaultError(findings.faults, "the cohort")
    write_cohort(options.out, contents, options.progress)
    return contents


def check(options: PrepareOptions) -> tuple[CohortContents | None, Findings]:
    """Check and join without writing.

    Returns:
        What would be written, None if there are faults; and everything that was found.
    """
    findings = Findings()
    if options.out is not None:
        findings.attempt(lambda: check_free(options.out), None)
    labels = _labelled(options, findings) if options.labels else []
    files = find_slides(options.slides, findings)
    if not options.labels:
        labels = listed_patients(files, options.cases, options.label_column, findings)
    optional = options.allow_missing_modality
    # Without a list of patients, those of whom there is RNA alone are wanted as well.
    others = optional and not options.labels and not options.cases
    wanted = match_slides(labels, files, options.slides, optional, findings)
    scans = scan_slides(
        wanted or files,
        findings,
        order=options.order,
        pack=options.pack,
        workers=options.workers,
        progress=options.progress,
    )
    rna = join_rna(
        options.rna, labels, findings, optional=optional, others=others, workers=options.workers
    )
    if others:
        labels = [*labels, *patients_of_rna_alone(labels, rna.samples)]
    splits, notes = {}, {}
    if options.labels:
        splits, notes = _splits(labels, options, findings)
        _check_classes(labels, options, findings)
    elif not labels and not findings.faults:
        places = ", ".join(map(str, [*options.slides, *options.rna.paths]))
        findings.add("no-patients", places, "no patient", "slides or RNA of some")
    _check_modalities(labels, scans, rna, findings)
    if findings.faults:
        return None, findings
    rows = [row for row in labels if row.slide_id in scans or not row.slide_id]
    return _join(options, labels, rows, scans, rna, splits, notes, findings), findings


def _labelled(options: PrepareOptions, findings: Findings) -> list[LabelRow]:
    """Rows of patients with a label; the others are recorded."""
    rows, faults = findings.attempt(
        lambda: read_labels(
            options.labels, label_column=options.label_column, slide_table=options.slide_table
        ),
        ([], []),
    )
    findings.faults += faults
    for row in rows:
        if not row.label:
            item = "slide" if row.slide_id else "patient"
            findings.drop(item, row.slide_id or row.case_id, row.case_id, "no label", row.where)
    return [row for row in rows if row.label]


def _splits(
    labels: Sequence[LabelRow], options: PrepareOptions, findings: Findings
) -> tuple[dict[str, Rows], dict[str, str]]:
    """Split name -> rows of case_id, split; and what needs saying of some of them."""
    label_of = {row.case_id: row.label for row in labels}
    if not labels:
        return {}, {}
    sites = findings.attempt(lambda: _sites(label_of, options), None)
    if sites is None:
        return {}, {}
    if options.splits:
        parts, notes = _given_splits(labels, label_of, options, findings)
    else:
        made = findings.attempt(
            lambda: make_splits(
                label_of,
                folds=options.folds,
                sites=sites if options.site_splits else None,
                seed=options.seed,
            ),
            {},
        )
        parts, notes = made, dict.fromkeys(made, _new_split_note(options))
    for name in parts:
        if shared := shared_sites(parts[name], sites):
            said = f"hospitals on both sides, in train and in test: {shared}"
            notes[name] = "; ".join(filter(None, [notes.get(name, ""), said]))
    rows = {name: _split_rows(of_case) for name, of_case in parts.items()}
    return rows, {name: note for name, note in notes.items() if note}


def _sites(label_of: dict[str, str], options: PrepareOptions) -> dict[str, str]:
    """case_id -> site, of those whose site is known."""
    if options.site_column:
        return sites_from_table(options.labels, options.site_column)
    return {case: site for case in label_of if (site := site_of(case))}


def _new_split_note(options: PrepareOptions) -> str:
    kind = "site-preserving" if options.site_splits else "stratified"
    shares = "60/20/20" if options.folds == 1 else f"fold of {options.folds}"
    return f"new, {kind}, {shares}, seed {options.seed}"


def _given_splits(
    labels: Sequence[LabelRow],
    label_of: dict[str, str],
    options: PrepareOptions,
    findings: Findings,
) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    # Patients dropped for want of a label may be named by a split.
    unlabelled = [row for row in findings.dropped if row["reason"] == "no label"]
    case_of_slide = {row.slide_id: row.case_id for row in labels if row.slide_id}
    case_of_slide |= {row["id"]: row["case_id"] for row in unlabelled if row["item"] == "slide"}
    known = set(label_of) | {row["case_id"] for row in unlabelled}
    splits, notes = {}, {}
    for file in findings.attempt(lambda: split_files(options.splits), []):
        found = findings.attempt(
            lambda file=file: read_splits(file, case_of_slide, known, label_of, seed=options.seed),
            {},
        )
        for name, split in found.items():
            for case in sorted(split.parts.keys() - label_of.keys()):
                findings.drop("split-entry", case, case, "no label", file)
            for case in sorted(label_of.keys() - split.parts.keys()):
                findings.drop("split-entry", case, case, "in no part of this split", file)
            splits[name] = {c: p for c, p in split.parts.items() if c in label_of}
            notes[name] = split.note
    return splits, notes


def _split_rows(parts: dict[str, str]) -> Rows:
    return [{"case_id": case, "split": part} for case, part in sorted(parts.items())]


def _check_classes(labels: Sequence[LabelRow], options: PrepareOptions, findings: Findings) -> None:
    classes = {row.label for row in labels}
    if len(classes) == 1:
        found = f"only the class '{classes.pop()}'"
        findings.add("one-class", options.labels, found, "two classes or more")


def _check_modalities(
    labels: Sequence[LabelRow], scans: Collection[str], rna: JoinedRna, findings: Findings
) -> None:
    """Patients of whom there is nothing; not where a fault of the files may be why."""
    if findings.faults:
        return
    known = {row.case_id for row in labels if row.slide_id in scans} | set(rna.samples)
    for case, row in {row.case_id: row for row in reversed(labels)}.items():
        if case not in known:
            found = f"patient '{case}' with neither slide nor RNA"
            findings.add("missing-modality", row.where, found, "at least one of them")


def _join(
    options: PrepareOptions,
    labels: Sequence[LabelRow],
    rows: Sequence[LabelRow],
    scans: dict[str, SlideScan],
    rna: JoinedRna,
    splits: dict[str, Rows],
    notes: dict[str, str],
    findings: Findings,
) -> CohortContents:
    infos = [scan.info for scan in scans.values()]
    encoder = next((info.encoder for info in infos if info.encoder), None)
    slides = [
        slide_row(row, scans[row.slide_id])
        for row in sorted(rows, key=lambda row: (row.case_id, row.slide_id))
        if row.slide_id
    ]
    expression = rna.expression
    values = np.empty((0, 0), np.float32) if expression is None else expression.values
    return CohortContents(
        name=options.name or (options.out.resolve().name if options.out else "cohort"),
        synthetic=options.synthetic or encoder == SYNTHETIC_ENCODER,
        classes=tuple(sorted({row.label for row in labels if row.label})),
        feature_dim=next((info.feature_dim for info in infos), 0),
        encoder=encoder,
        mpp=next((info.mpp for info in infos if info.mpp), None),
        patch_size=next((info.patch_size for info in infos if info.patch_size), None),
        patch_order=options.order,
        pack=options.pack if slides else None,
        expression_info=rna.facts,
        gene_sets=rna.gene_sets,
        missing_genes=rna.missing_genes,
        patients=_patient_rows(labels, slides, rna.samples),
        slides=slides,
        genes=[] if expression is None else expression.genes,
        dropped=findings.dropped,
        dropped_genes=findings.dropped_genes,
        splits=splits,
        split_notes=notes,
        expression=values,
    )


def _patient_rows(labels: Sequence[LabelRow], slides: Rows, samples: Collection[str]) -> Rows:
    label_of = {row.case_id: row.label for row in labels}
    lengths: dict[str, list[int]] = {case: [] for case in label_of}
    for row in slides:
        lengths[row["case_id"]].append(int(row["num_patches"]))
    return [
        {
            "case_id": case,
            "label": label_of[case],
            "has_rna": str(int(case in samples)),
            "num_slides": str(len(lengths[case])),
            "num_patches": str(sum(lengths[case])),
        }
        for case in sorted(label_of)
    ]
