"""Reads or makes the splits of the patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gimp_fast.data.class_checks import sites_of_barcodes
from gimp_fast.data.cohort_files import Rows, dropped_row
from gimp_fast.data.prepare.options import PrepareOptions
from gimp_fast.data.tables.labels import LabelRow
from gimp_fast.data.tables.new_splits import make_splits, shared_sites, sites_from_table
from gimp_fast.data.tables.splits import ReadSplit, read_splits, split_files
from gimp_fast.errors import Faults, Read

_IN_NO_PART = "in no part of this split"


@dataclass(frozen=True)
class JoinedSplits:
    """Splits of the cohort's patients; see ``CohortContents``. ``sites`` are known hospitals."""

    rows: dict[str, Rows] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    dropped: Rows = field(default_factory=list)
    sites: dict[str, str] = field(default_factory=dict)


def join_splits(
    options: PrepareOptions,
    labels: Sequence[LabelRow],
    strata: Mapping[str, str],
    *,
    unlabelled: Rows,
) -> Read[JoinedSplits]:
    """Read the given splits, or make new ones; none for patients to predict.

    Args:
        options, labels: as in ``join_slides``.
        strata: case id -> by what new splits are stratified instead of a label.
        unlabelled: rows of ``dropped.csv`` of those left out because they have no label; splits may
            name them.
    """
    joined, faults = JoinedSplits(), Faults()
    if not options.labels or not labels:
        return Read(joined)
    label_of = {row.case_id: row.label or strata.get(row.case_id, "") for row in labels}
    with faults.collect():
        sites = _sites(label_of, options)
        joined.sites.update(sites)
        if options.splits:
            splits = _read_all(options, labels, unlabelled, joined.dropped, faults)
        else:
            splits = _make_new(options, label_of, sites)
        for name, split in splits.items():
            parts = sorted(split.parts.items())
            joined.rows[name] = [{"case_id": case, "split": part} for case, part in parts]
            shared = shared_sites(split.parts, sites)
            leak = f"hospitals on both sides, in train and in test: {shared}" if shared else ""
            if note := "; ".join(filter(None, [split.note, leak])):
                joined.notes[name] = note
    return faults.read(joined)


def _sites(label_of: dict[str, str], options: PrepareOptions) -> dict[str, str]:
    """case_id -> site, for known sites."""
    if options.site_column:
        return sites_from_table(options.labels, options.site_column)
    return sites_of_barcodes(label_of)


def _make_new(
    options: PrepareOptions, label_of: dict[str, str], sites: dict[str, str]
) -> dict[str, ReadSplit]:
    by_site = sites if options.site_splits else None
    splits = make_splits(label_of, folds=options.folds, sites=by_site, seed=options.seed)
    kind = "site-preserving" if options.site_splits else "stratified"
    shares = "60/20/20" if options.folds == 1 else f"fold of {options.folds}"
    note = f"new, {kind}, {shares}, seed {options.seed}"
    return {name: ReadSplit(parts, note) for name, parts in splits.items()}


def _read_all(
    options: PrepareOptions,
    labels: Sequence[LabelRow],
    unlabelled: Rows,
    dropped: Rows,
    faults: Faults,
) -> dict[str, ReadSplit]:
    """The splits of all files, without unlabelled patients; adds to what is dropped."""
    label_of = {row.case_id: row.label for row in labels}
    case_of_slide = {row.slide_id: row.case_id for row in labels if row.slide_id}
    case_of_slide |= {row["id"]: row["case_id"] for row in unlabelled if row["item"] == "slide"}
    known = set(label_of) | {row["case_id"] for row in unlabelled}
    splits: dict[str, ReadSplit] = {}
    for file in split_files(options.splits):
        with faults.collect():
            in_file = read_splits(file, case_of_slide, known, label_of, seed=options.seed)
            for name, split in in_file.items():
                listed = split.parts.keys()
                for case in sorted(listed - label_of.keys()):
                    dropped.append(dropped_row("split-entry", case, case, "no label", file))
                for case in sorted(label_of.keys() - listed):
                    dropped.append(dropped_row("split-entry", case, case, _IN_NO_PART, file))
                parts = {case: part for case, part in split.parts.items() if case in label_of}
                splits[name] = ReadSplit(parts, split.note)
    return splits
