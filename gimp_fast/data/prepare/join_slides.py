"""Finds the feature files of the patients, reads each file once, and checks that they agree."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from gimp_fast.data.cohort_files import Rows, dropped_row
from gimp_fast.data.names import IMAGE_SUFFIXES
from gimp_fast.data.prepare.options import PrepareOptions
from gimp_fast.data.slides import endings, is_slide, slide_id_of
from gimp_fast.data.slides.scan import SlideScan, scan_slide
from gimp_fast.data.store.writer import RANGES, range_fault
from gimp_fast.data.tables.labels import LabelRow
from gimp_fast.errors import SHOWN, Faults, Read, did_you_mean
from gimp_fast.files.progress import progress
from gimp_fast.tasks.mapping import parallel_map

_MPP_TOLERANCE = 0.05
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
            _add_folder_fault(folder, inside, faults)
        for file in slides:
            slide_id = slide_id_of(file)
            if slide_id in files:
                found = f"a second file of slide '{slide_id}' ({files[slide_id]})"
                faults.add("duplicate-slide", file, found, "one feature file per slide")
            files.setdefault(slide_id, file)
    return faults.read(files)


def _add_folder_fault(folder: Path, inside: Sequence[Path], faults: Faults) -> None:
    """Add why there are no feature files: no folder, files of another kind, or a folder deeper."""
    expected = f"a folder of feature files ({', '.join(endings())})"
    images = [path for path in [folder, *inside] if path.name.lower().endswith(IMAGE_SUFFIXES)]
    if images and folder.exists():
        found = "a whole-slide image" if images[0] == folder else f"{images[0].name}"
        found += f" and {len(images) - 1} more whole-slide images" if len(images) > 1 else ""
        expected += ", which `gimp-fast extract` makes of such images"
        faults.add("whole-slide-images", folder, found, expected)
        return
    if not folder.is_dir():
        found = "a file" if folder.exists() else "no such folder"
        faults.add("missing-file", folder, found, expected)
        return
    found = "no feature file directly inside"
    folders = filter(Path.is_dir, inside)
    deeper = [f"'{inner.name}'" for inner in folders if any(map(is_slide, inner.iterdir()))]
    if deeper:
        more = f" and {len(deeper) - SHOWN} more" if len(deeper) > SHOWN else ""
        found += f" (there are some in {', '.join(deeper[:SHOWN])}{more})"
    faults.add("missing-file", folder, found, expected)


def match_slides(
    options: PrepareOptions, labels: Sequence[LabelRow], files: Mapping[str, Path]
) -> Read[tuple[dict[str, Path], Rows]]:
    """slide_id -> file of the patients' slides, and the slides that are left out; reads no file.

    Args:
        options: what to join.
        labels: rows of the patients; without any, every slide is wanted.
        files: slide_id -> feature file; without any, their folders are at fault.
    """
    faults, wanted, missing = Faults(), {}, []
    dropped: Rows = []
    for row in labels:
        if row.slide_id in files:
            wanted[row.slide_id] = files[row.slide_id]
        elif row.slide_id and options.slides:
            missing.append(row)
        elif row.slide_id:
            reason = "no --slides were given"
            dropped.append(dropped_row("slide", row.slide_id, row.case_id, reason, row.where))
        elif not options.allow_missing_modality:
            found = f"patient '{row.case_id}' without a slide_id"
            faults.add("missing-slide", row.where, found, "a slide; or --allow-missing-modality")
    places = ", ".join(map(str, options.slides))
    if files and missing and not wanted:
        found = f"none of the {len(missing)} listed slides, such as '{missing[0].slide_id}'"
        near = did_you_mean(missing[0].slide_id, files)
        example = f"such as '{next(iter(files))}'{near}"
        expected = f"some of the {len(files)} slides of these files, {example}"
        faults.add("no-slides", places, found, expected)
    elif files:
        for number, row in enumerate(missing):
            found = f"no feature file of slide '{row.slide_id}'"
            near = did_you_mean(row.slide_id, files) if number < SHOWN else ""
            expected = f"one ({', '.join(endings())}) in {places}{near}"
            faults.add("missing-slide-file", row.where, found, expected)
    if labels:
        reason = "not labelled" if all(row.label for row in labels) else "not listed"
        for slide_id in sorted(files.keys() - wanted.keys()):
            dropped.append(dropped_row("slide", slide_id, "", reason, files[slide_id]))
    return faults.read((wanted if labels else dict(files), dropped))


def read_slides(
    options: PrepareOptions, files: Mapping[str, Path]
) -> Read[tuple[dict[str, SlideScan], Rows]]:
    """slide_id -> what reading the whole file showed; and coordinates that are left out.

    Faults are also those of files that do not agree.
    """
    faults = Faults()
    dropped: Rows = []
    reads = parallel_map(scan_slide, files.values(), options.workers, options.scheduler)
    reads = progress(reads, "checking slides", len(files), "slide", shown=options.progress)
    scans = {
        slide_id: _as_named(scan, path)
        for (slide_id, path), scan in zip(files.items(), reads, strict=True)
    }
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


def _as_named(scan: SlideScan, path: Path) -> SlideScan:
    """The scan with the path that the user gave, which the workers of a cluster read otherwise."""
    return replace(scan, info=replace(scan.info, path=path)) if scan.info else scan


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
