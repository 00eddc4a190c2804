"""Finds the feature files of the patients, reads each file once, and checks that they agree."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from gimp_fast.data.cohort_files import Rows, dropped_row
from gimp_fast.data.prepare.options import PrepareOptions
from gimp_fast.data.slides import SUFFIXES, is_slide, slide_id_of
from gimp_fast.data.slides.scan import SlideScan, scan_slide
from gimp_fast.data.store.writer import RANGES, range_fault
from gimp_fast.data.tables.labels import LabelRow
from gimp_fast.errors import Faults, Read, did_you_mean
from gimp_fast.files.parallel import parallel_map

_MPP_TOLERANCE = 0.05
_SUGGESTED = 5  # slides without a file for which the nearest name is looked up
# Fault -> what all slides must have in common, if they record it.
_AGREE = {
    "feature-width": ("feature_dim", "{} channels"),
    "mixed-encoders": ("encoder", "encoder '{}'"),
    "mixed-mpp": ("mpp", "{:g} µm a pixel"),
    "mixed-patch-size": ("patch_size", "patches of {} pixels"),
}


def find_slides(folders: Sequence[Path]) -> Read[dict[str, Path]]:
    """slide_id -> feature file."""
    files: dict[str, Path] = {}
    faults = Faults()
    for folder in folders:
        inside = sorted(folder.iterdir()) if folder.is_dir() else []
        slides = [path for path in inside if is_slide(path)]
        if not slides:
            found = "no feature file directly inside" if folder.is_dir() else "no such folder"
            folders = filter(Path.is_dir, inside)
            deeper = [f"'{inner.name}'" for inner in folders if any(map(is_slide, inner.iterdir()))]
            found += f" (there are some in {', '.join(deeper)})" if deeper else ""
            expected = f"a folder of feature files ({', '.join(SUFFIXES)})"
            faults.add("missing-file", folder, found, expected)
        for file in slides:
            slide_id = slide_id_of(file)
            if slide_id in files:
                found = f"a second file of slide '{slide_id}' ({files[slide_id]})"
                faults.add("duplicate-slide", file, found, "one feature file per slide")
            files.setdefault(slide_id, file)
    return faults.read(files)


def join_slides(
    options: PrepareOptions, labels: Sequence[LabelRow], files: Mapping[str, Path]
) -> Read[tuple[dict[str, SlideScan], Rows]]:
    """Read and check the slides of the patients; every slide if there are no patients.

    Args:
        options: what to join.
        labels: rows of the patients.
        files: slide_id -> feature file.

    Returns:
        slide_id -> what reading the whole file showed; and the slides that are left out, as rows of
        ``dropped.csv``.
    """
    from tqdm import tqdm

    faults = Faults()
    wanted, dropped = _match(options, labels, files, faults)
    files = wanted or files
    reads = parallel_map(scan_slide, files.values(), options.workers)
    hidden = not options.progress
    bar = tqdm(reads, "checking slides", len(files), unit="slide", disable=hidden)
    scans = dict(zip(files, bar, strict=True))
    for scan in scans.values():
        faults.items += scan.faults
    readable = [scan for scan in scans.values() if scan.info and scan.info.num_patches]
    for slide_id, scan in scans.items():
        info = scan.info
        if not (info and info.num_patches):
            continue
        if info.coords_note:
            row = dropped_row("coordinates", slide_id, "", info.coords_note, info.path)
            dropped.append(row)
        if options.order != "file" and not info.has_coords:
            expected = f"coordinates, by which to order patches ('{options.order}')"
            found = info.coords_note or "features without coordinates"
            faults.add("no-coords", info.path, found, expected)
        if scan.largest > RANGES.get(options.pack, math.inf):
            error = range_fault(info.where, scan.largest_row, scan.largest, options.pack)
            faults.items += error.faults
    _check_agreement(readable, faults)
    return faults.read((scans, dropped))


def _match(
    options: PrepareOptions, labels: Sequence[LabelRow], files: Mapping[str, Path], faults: Faults
) -> tuple[dict[str, Path], Rows]:
    """slide_id -> file of the patients' slides; and slides that are left out."""
    wanted: dict[str, Path] = {}
    dropped: Rows = []
    for row in labels:
        if row.slide_id in files:
            wanted[row.slide_id] = files[row.slide_id]
        elif row.slide_id and options.slides:
            found = f"no feature file of slide '{row.slide_id}'"
            near = did_you_mean(row.slide_id, files) if len(faults.items) < _SUGGESTED else ""
            folders = ", ".join(map(str, options.slides))
            faults.add("missing-slide-file", row.where, found, f"a .h5 or .pt in {folders}{near}")
        elif row.slide_id:
            reason = "no --slides were given"
            dropped.append(dropped_row("slide", row.slide_id, row.case_id, reason, row.where))
        elif not options.allow_missing_modality:
            found = f"patient '{row.case_id}' without a slide_id"
            faults.add("missing-slide", row.where, found, "a slide; or --allow-missing-modality")
    if labels:
        reason = "not labelled" if all(row.label for row in labels) else "not listed"
        for slide_id in sorted(files.keys() - wanted.keys()):
            dropped.append(dropped_row("slide", slide_id, "", reason, files[slide_id]))
    return wanted, dropped


def _check_agreement(scans: Sequence[SlideScan], faults: Faults) -> None:
    """Add faults of slides that differ from most others: these cannot be mixed."""
    for kind, (name, text) in _AGREE.items():
        values = {scan.info.path: getattr(scan.info, name) for scan in scans}
        known = Counter(value for value in values.values() if value)
        usual = known.most_common(1)[0][0] if known else None
        for path, value in values.items():
            near = name == "mpp" and value and abs(value / usual - 1) <= _MPP_TOLERANCE
            if value and value != usual and not near:
                expected = f"{text.format(usual)}, as in most slides"
                faults.add(kind, path, text.format(value), expected)


def slide_row(row: LabelRow, scan: SlideScan) -> dict[str, str]:
    """A row of ``slides.csv``."""
    info = scan.info
    return {
        "case_id": row.case_id,
        "slide_id": row.slide_id,
        "path": str(info.path),
        "format": info.format,
        "dataset": info.dataset,
        "num_patches": str(info.num_patches),
        "dtype": info.dtype,
        "coords_dtype": info.coords_dtype,
        "encoder": info.encoder or "",
        "mpp": f"{info.mpp:g}" if info.mpp else "",
        "patch_size": str(info.patch_size or ""),
        "patch_size_level0": str(info.patch_size_level0 or ""),
        "patch_order": info.patch_order or "",
        "checksum": scan.checksum,
        "coords_checksum": scan.coords_checksum,
        "file_state": scan.file_state,
    }
