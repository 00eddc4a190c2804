"""Checks slides, RNA, labels and splits, and joins them into a cohort folder.

All faults are collected and reported together; nothing is written if there is one. Whatever is left
out on purpose is recorded with its reason.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gimp_fast.data.class_checks import cohort_cautions
from gimp_fast.data.cohort_files import SITE, Rows, dropped_row, reasons
from gimp_fast.data.names import SYNTHETIC_ENCODER, patient_of
from gimp_fast.data.prepare.audits.collect import audited_of
from gimp_fast.data.prepare.audits.expression import expression_cautions
from gimp_fast.data.prepare.check_names import check_names
from gimp_fast.data.prepare.cohort_writer import CohortContents, check_free, write_cohort
from gimp_fast.data.prepare.gene_reference import GeneReference, read_cohort_genes
from gimp_fast.data.prepare.join_rna import JoinedRna, join_rna
from gimp_fast.data.prepare.join_slides import find_slides, match_slides, read_slides, slide_row
from gimp_fast.data.prepare.join_splits import JoinedSplits, join_splits
from gimp_fast.data.prepare.join_targets import JoinedTargets, has_labels, join_targets
from gimp_fast.data.prepare.options import PrepareOptions
from gimp_fast.data.slides.scan import SlideScan
from gimp_fast.data.tables.labels import LabelRow, read_cases, read_labels
from gimp_fast.errors import Fault, FaultError, Faults, Read
from gimp_fast.tasks.cluster import ClusterEngine
from gimp_fast.tasks.shared_files import paths_in


@dataclass(frozen=True)
class Checked:
    """Result of checking a cohort."""

    contents: CohortContents | None  # what would be written; None if there are faults
    faults: tuple[Fault, ...] = ()
    dropped: Rows = field(default_factory=list)  # rows of ``dropped.csv``
    dropped_genes: Rows = field(default_factory=list)  # rows of ``dropped_genes.csv``
    note: str = ""  # what was not checked, because of the faults

    def need_contents(self, listed_in: Path | None = None) -> CohortContents:
        """What would be written; FaultError if there are faults.

        ``listed_in`` is a file that lists all of them, for the message.
        """
        if self.contents is None:
            raise FaultError(self.faults, "the cohort", self.note, listed_in)
        return self.contents

    def as_dict(self) -> dict:
        """The result for a report that a program reads."""
        return {
            "faults": [fault.as_dict() for fault in self.faults],
            "faults_by_kind": FaultError(self.faults).counts(),
            "dropped": self.dropped,
            "dropped_genes": self.dropped_genes,
            "dropped_by_reason": reasons(self.dropped, self.dropped_genes),
            "cautions": self.contents.all_cautions() if self.contents else [],
        }


def prepare(
    options: PrepareOptions, read_genes: Callable[[Path], GeneReference] = read_cohort_genes
) -> CohortContents:
    """Check everything, then write the cohort folder ``options.out``.

    Args:
        options, read_genes: as in ``check``.

    Returns:
        What was written.

    Raises:
        FaultError: all faults found; nothing has been written.
        GimpError: the folder cannot be written.
    """
    contents = check(options, read_genes).need_contents()
    write_cohort(options.out, contents, options.progress)
    return contents


def check(
    options: PrepareOptions, read_genes: Callable[[Path], GeneReference] = read_cohort_genes
) -> Checked:
    """Check and join without writing.

    Args:
        options: what to join; without ``out`` the folder is not checked.
        read_genes: reads the gene list to align to from ``options.rna.genes_of``, which by default
            must be a cohort.
    """
    if options.scheduler is not None:
        # For the error: before anything is read.
        with ClusterEngine(options.scheduler, paths_in(options)) as engine:
            if options.progress:
                print(engine)
    faults = Faults()
    if options.out is not None:
        with faults.collect():
            check_free(options.out)
    slides = find_slides(options.slides)
    labelled = False
    with faults.collect():
        labelled = has_labels(options)
    patients = faults.take(_read_patients(options, slides.value, labelled))
    targets = faults.take(join_targets(options))
    found = faults.take(slides)
    rows, dropped = patients, []
    if options.labels:
        known = {case for target in targets.targets for case in target.values}
        rows = [row for row in patients if row.label or row.case_id in known]
        dropped = [_without_label(r) for r in patients if not (r.label or r.case_id in known)]
    files, dropped_slides = faults.take(match_slides(options, rows, found))
    # Without a list of patients, those who have only RNA are wanted as well.
    all_samples = options.allow_missing_modality and not (options.labels or options.cases)
    strata = {} if labelled else targets.strata()
    splits = faults.take(join_splits(options, rows, strata, unlabelled=dropped))
    rna = faults.take(join_rna(options, rows, read_genes, all_samples=all_samples))
    dropped = [*dropped, *dropped_slides, *rna.dropped, *splits.dropped]
    if any(_is_in_the_way(fault, options) for fault in faults.items):
        note = f"The {len(files)} feature files were not read: mend this first." if files else ""
        gone = rna.expression.dropped_genes
        return Checked(None, tuple(faults.items), dropped, gone, note)
    scans, without_coords = faults.take(read_slides(options, files))
    dropped += without_coords
    if all_samples:
        listed = {row.case_id for row in rows}
        only_rna = [case for case in rna.samples if case not in listed]
        rows = rows + [LabelRow(case, "", "", str(rna.samples[case].path)) for case in only_rna]
    _check_patients(options, rows, scans, rna, faults, labelled)
    others = [("cohort", options.name or "", "--name")]
    others += [("split", split, "--splits") for split in splits.rows]
    others += [("target", target.name, "--target") for target in targets.targets]
    others += [("signature", name, "--gene-sets") for name in rna.gene_sets]
    paths = ", ".join(map(str, options.rna.paths))
    names = check_names(rows, rna.expression.genes, paths, others)
    faults.items += names.items
    contents = None
    if not faults.items:
        contents = _contents(options, rows, scans, rna, splits, targets, dropped)
    return Checked(contents, tuple(faults.items), dropped, rna.expression.dropped_genes)


# Faults of what was given as a whole. They are quickly found, and others follow from them.
_IN_THE_WAY = {
    "output-exists", "whole-slide-images", "no-slides", "no-samples", "missing-column",
    "sample-sheet", "label-layout", "gene-options",
}  # fmt: skip


def _is_in_the_way(fault: Fault, options: PrepareOptions) -> bool:
    """True if the fault must be mended before it is worth reading all slides."""
    rna = options.rna
    given = [options.labels, options.cases, options.slide_table, *options.slides, *options.splits]
    given += [*rna.paths, rna.sample_sheet, rna.genes, rna.gene_sets, rna.genes_of]
    is_whole = fault.where in {str(path) for path in given if path is not None}
    return fault.kind in _IN_THE_WAY or (is_whole and fault.kind == "missing-file")


def _read_patients(
    options: PrepareOptions, files: Mapping[str, Path], labelled: bool
) -> Read[list[LabelRow]]:
    """A row for each slide of each patient, or for a patient without slides."""
    column, table = options.label_column, options.slide_table
    if options.labels and not labelled:
        return read_cases(options.labels, label_column=column, files=files)
    if options.labels:
        return read_labels(options.labels, label_column=column, slide_table=table, files=files)
    if options.cases:
        return read_cases(options.cases, label_column=column, files=files)
    return Read([LabelRow(patient_of(id), id, "", str(file)) for id, file in files.items()])


def _without_label(row: LabelRow) -> dict[str, str]:
    item, id = ("slide", row.slide_id) if row.slide_id else ("patient", row.case_id)
    return dropped_row(item, id, row.case_id, "no label", row.where)


def _check_patients(
    options: PrepareOptions,
    rows: Sequence[LabelRow],
    scans: Mapping[str, SlideScan],
    rna: JoinedRna,
    faults: Faults,
    labelled: bool,
) -> None:
    """Add faults of the cohort as a whole: one class, no patients, patients without data."""
    classes = {row.label for row in rows if row.label}
    if labelled and len(classes) == 1:
        found = f"only the class '{classes.pop()}'"
        faults.add("one-class", options.labels, found, "two classes or more")
    if faults.items:
        return  # a faulty file may be the reason why a patient has no data
    if not rows:
        places = ", ".join(map(str, [*options.slides, *options.rna.paths]))
        faults.add("no-patients", places, "no patient", "slides or RNA of at least one")
    with_data = {row.case_id for row in rows if row.slide_id in scans} | set(rna.samples)
    for case, row in {row.case_id: row for row in reversed(rows)}.items():
        if case not in with_data:
            found = f"patient '{case}' with neither slide nor RNA"
            faults.add("missing-modality", row.where, found, "at least one of them")


def _contents(
    options: PrepareOptions,
    rows: Sequence[LabelRow],
    scans: Mapping[str, SlideScan],
    rna: JoinedRna,
    splits: JoinedSplits,
    targets: JoinedTargets,
    dropped: Rows,
) -> CohortContents:
    infos = [scan.info for scan in scans.values()]
    encoder = next((info.encoder for info in infos if info.encoder), None)
    slide_rows = [
        slide_row(row, scans[row.slide_id])
        for row in sorted(rows, key=lambda row: (row.case_id, row.slide_id))
        if row.slide_id in scans
    ]
    return CohortContents(
        name=options.name or (options.out.resolve().name if options.out else "cohort"),
        synthetic=options.synthetic or encoder == SYNTHETIC_ENCODER,
        classes=tuple(sorted({row.label for row in rows if row.label})),
        feature_dim=next((info.feature_dim for info in infos), 0),
        encoder=encoder,
        mpp=next((info.mpp for info in infos if info.mpp), None),
        patch_size=next((info.patch_size for info in infos if info.patch_size), None),
        patch_order=options.order,
        pack=options.pack if slide_rows else None,
        expression_info=rna.facts,
        gene_sets=rna.gene_sets,
        missing_genes=rna.missing_genes,
        patients=_patient_rows(rows, slide_rows, rna.samples, splits.sites),
        slides=slide_rows,
        slide_means=_slide_means(slide_rows, scans),
        genes=rna.expression.genes,
        dropped=dropped,
        dropped_genes=rna.expression.dropped_genes,
        splits=splits.rows,
        split_notes=splits.notes,
        cautions=[
            *cohort_cautions(
                {row.case_id: row.label for row in rows},
                {"slides": {row["case_id"] for row in slide_rows}, "RNA": set(rna.samples)},
                splits.sites,
                by_barcode=not options.site_column,
            ),
            *targets.cautions,
            *expression_cautions(audited_of(options, rows, rna, splits, targets)),
        ],
        targets=targets.of({row.case_id for row in rows}),
        covariates=tuple(c.of({row.case_id for row in rows}) for c in targets.covariates),
        target_notes=list(targets.notes),
        expression=rna.expression.values,
    )


def _slide_means(rows: Rows, scans: Mapping[str, SlideScan]) -> np.ndarray:
    """(slides, C) float32."""
    means = [np.frombuffer(scans[row["slide_id"]].mean, np.float32) for row in rows]
    return np.stack(means) if means else np.empty((0, 0), np.float32)


def _patient_rows(
    rows: Sequence[LabelRow], slides: Rows, samples: Collection[str], sites: Mapping[str, str]
) -> Rows:
    label_of = {row.case_id: row.label for row in rows}
    lengths: dict[str, list[int]] = defaultdict(list)
    for row in slides:
        lengths[row["case_id"]].append(int(row["num_patches"]))
    return [
        {
            "case_id": case,
            "label": label_of[case],
            "has_rna": str(int(case in samples)),
            "num_slides": str(len(lengths[case])),
            "num_patches": str(sum(lengths[case])),
            SITE: sites.get(case, ""),
        }
        for case in sorted(label_of)
    ]
