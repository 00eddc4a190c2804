"""Finds the feature files of labelled slides, reads each once, and checks that they agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from gimp_fast.data.prepare.findings import Findings
from gimp_fast.data.slides import SUFFIXES, is_slide, slide_id_of
from gimp_fast.data.slides.scan import SlideScan, scan_slide
from gimp_fast.data.store import range_fault
from gimp_fast.data.tables import LabelRow
from gimp_fast.files.parallel import parallel_map

_LIMITS = {"fp16": 65504.0, "bf16": 3.38e38}
_MPP_TOLERANCE = 0.05


def find_slides(folders: Sequence[Path], findings: Findings) -> dict[str, Path]:
    """slide_id -> feature file."""
    files: dict[str, Path] = {}
    for folder in folders:
        inside = sorted(folder.iterdir()) if folder.is_dir() else []
        found = [path for path in inside if is_slide(path)]
        if not found:
            what = "no feature file directly inside" if folder.is_dir() else "no such folder"
            below = [
                f"'{p.name}'" for p in inside if p.is_dir() and any(map(is_slide, p.iterdir()))
            ]
            what += f" (there are some in {', '.join(below)})" if below else ""
            expected = f"a folder of feature files ({', '.join(SUFFIXES)})"
            findings.add("missing-file", folder, what, expected)
        for file in found:
            slide_id = slide_id_of(file)
            if slide_id in files:
                other = f"a second file of slide '{slide_id}' ({files[slide_id]})"
                findings.add("duplicate-slide", file, other, "one feature file a slide")
            files.setdefault(slide_id, file)
    return files


def match_slides(
    labels: Sequence[LabelRow],
    files: dict[str, Path],
    folders: Sequence[Path],
    optional: bool,
    findings: Findings,
) -> dict[str, Path]:
    """slide_id -> file of the labelled slides.

    Args:
        labels: rows of the patients wanted.
        files: slide_id -> file.
        folders: where they were looked for.
        optional: whether a patient may have no slide.
        findings: takes what is missing and what is not labelled.
    """
    wanted: dict[str, Path] = {}
    for row in labels:
        if row.slide_id in files:
            wanted[row.slide_id] = files[row.slide_id]
        elif row.slide_id and folders:
            found = f"no feature file of slide '{row.slide_id}'"
            places = ", ".join(map(str, folders))
            findings.add("missing-slide-file", row.where, found, f"a .h5 or .pt in {places}")
        elif row.slide_id:
            reason = "no --slides were given"
            findings.drop("slide", row.slide_id, row.case_id, reason, row.where)
        elif not optional:
            found = f"patient '{row.case_id}' without a slide_id"
            findings.add("missing-slide", row.where, found, "a slide; --allow-missing-modality")
    if labels:
        reason = "not labelled" if all(row.label for row in labels) else "not listed"
        for slide_id in sorted(files.keys() - wanted.keys()):
            findings.drop("slide", slide_id, "", reason, files[slide_id])
    return wanted


def scan_slides(
    files: dict[str, Path],
    findings: Findings,
    *,
    order: str,
    pack: str | None,
    workers: int | None = None,
    progress: bool = False,
) -> dict[str, SlideScan]:
    """Read every file once; note what is wrong with each, and where they disagree."""
    from tqdm import tqdm

    scans = parallel_map(scan_slide, files.values(), workers)
    bar = tqdm(scans, "checking slides", len(files), unit="slide", disable=not progress)
    found = dict(zip(files, bar, strict=True))
    for scan in found.values():
        findings.faults += scan.faults
    readable = {id: scan for id, scan in found.items() if scan.info and scan.info.num_patches}
    for scan in readable.values():
        info = scan.info
        if order != "file" and not info.has_coords:
            expected = f"coordinates, to order patches by ('{order}')"
            findings.add("no-coords", info.path, "features without coordinates", expected)
        if scan.largest > _LIMITS.get(pack, float("inf")):
            fault = range_fault(info.where, scan.largest_row, scan.largest, pack)
            findings.faults += fault.faults
    _check_agreement(list(readable.values()), findings)
    return found


def _check_agreement(scans: Sequence[SlideScan], findings: Findings) -> None:
    """One width, encoder, resolution and patch size for all: others cannot be mixed."""
    infos = [scan.info for scan in scans]
    width = _usual([info.feature_dim for info in infos])
    encoder = _usual([info.encoder for info in infos])
    mpp = _usual([info.mpp for info in infos])
    side = _usual([info.patch_size for info in infos])
    for info in infos:
        if info.feature_dim != width:
            found = f"{info.feature_dim} channels"
            findings.add("feature-width", info.path, found, f"{width} as in most slides")
        if info.encoder and info.encoder != encoder:
            found = f"encoder '{info.encoder}'"
            findings.add("mixed-encoders", info.path, found, f"'{encoder}' as in most slides")
        if info.mpp and abs(info.mpp / mpp - 1) > _MPP_TOLERANCE:
            found = f"{info.mpp:g} µm a pixel"
            findings.add("mixed-mpp", info.path, found, f"{mpp:g} as in most slides")
        if info.patch_size and info.patch_size != side:
            found = f"patches of {info.patch_size} pixels"
            findings.add("mixed-patch-size", info.path, found, f"{side} as in most slides")


def _usual(values: list):
    """The commonest of the values that are known; None if none is."""
    known = Counter(value for value in values if value)
    return known.most_common(1)[0][0] if known else None


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
    }
