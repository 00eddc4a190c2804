"""Reads a feature file once from end to end: its checksum, and everything wrong with it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import xxhash

from gimp_fast.data.slides import SlideFile, SlideInfo, open_slide
from gimp_fast.data.slides.file_state import file_state
from gimp_fast.errors import DAMAGE_ERRORS, Fault, FaultError, one_line
from gimp_fast.files.isolated import run_isolated

SCAN_BYTES = 32 << 20  # of rows held at a time, as float32


@dataclass(frozen=True)
class SlideScan:
    """Result of reading a whole file."""

    info: SlideInfo | None  # None if it cannot be opened
    faults: tuple[Fault, ...] = ()
    checksum: str = ""  # xxh3 of the rows as float32 in the order of the file
    coords_checksum: str = ""  # xxh3 of the coordinates as float64; empty without any
    largest: float = 0.0  # absolute value
    largest_row: int = 0
    file_state: str = ""  # before it was read, see ``file_state``
    mean: bytes = b""  # (C,) float32, of the rows


def scan_slide(path: Path) -> SlideScan:
    """Read all of a file; whatever is wrong with it is returned, and nothing is raised.

    Files are read in a process of their own: damaged ones can make a library hang or crash.
    """
    path = Path(path)
    state = file_state(path)
    try:
        # What is missing needs no process, and has no size.
        scan = run_isolated(_scan, path) if state else _scan(path)
    except FaultError as error:
        scan = SlideScan(None, error.faults)
    return replace(scan, file_state=state)


def _scan(path: Path) -> SlideScan:
    info = None
    try:
        with open_slide(path) as slide:
            info = slide.info
            if info.num_patches == 0:
                fault = Fault("empty-bag", info.where, "0 patches", "one patch or more")
                return SlideScan(info, (fault,))
            slide.verify()
            return _scan_rows(slide)
    except FaultError as error:
        return SlideScan(info, error.faults)
    except DAMAGE_ERRORS as error:  # what a format did not foresee of its library
        found, expected = one_line(error), "a feature file without damage"
        return SlideScan(info, (Fault("unreadable-file", str(path), found, expected),))


def _scan_rows(slide: SlideFile) -> SlideScan:
    info, digest = slide.info, xxhash.xxh3_64()
    step = max(1, SCAN_BYTES // (4 * info.feature_dim))
    bad, first, largest, largest_row, unwritten = 0, -1, 0.0, 0, 0
    total = np.zeros(info.feature_dim)
    for start in range(0, info.num_patches, step):
        rows = np.ascontiguousarray(slide.read(start, min(start + step, info.num_patches)))
        digest.update(rows)
        with np.errstate(over="ignore", invalid="ignore"):  # features that are not finite
            total += rows.sum(0)
        # NaN and infinity both show in the largest absolute value of a row.
        reach = np.maximum(rows.max(1), -rows.min(1))
        faulty = np.flatnonzero(~np.isfinite(reach))
        if len(faulty):
            first = first if bad else start + int(faulty[0])
            bad += len(faulty)
        elif reach.max() > largest:
            largest, largest_row = float(reach.max()), start + int(reach.argmax())
        last = _equal_at_end(rows, slide.unwritten)
        unwritten = unwritten + last if last == len(rows) else last
    faults = ()
    if bad:
        found = f"NaN or infinity in {bad} of {info.num_patches} rows, first in row {first}"
        faults = (Fault("features-not-finite", info.where, found, "finite features"),)
    elif unwritten and (unwritten < info.num_patches or slide.allocated_ahead):
        found = f"{slide.unwritten:g} in all of the last {unwritten} of {info.num_patches} rows"
        expected = "rows that were written: an interrupted extraction leaves such rows"
        faults = (Fault("truncated-file", info.where, found, expected),)
    coords_checksum = ""
    if not faults and info.has_coords:
        coords = np.asarray(slide.coords())
        coords_checksum = checksum_of_coords(coords)
        if not np.isfinite(coords).all():
            where = f"{info.path}[coords]"
            faults = (Fault("coords-not-finite", where, "NaN or infinity", "finite coordinates"),)
    mean = (total / info.num_patches).astype(np.float32).tobytes()
    checksums = (digest.hexdigest(), coords_checksum)
    return SlideScan(info, faults, *checksums, largest, largest_row, mean=mean)


def checksum_of_coords(coords: np.ndarray) -> str:
    """xxh3 of coordinates (N, 2 or more) as float64, whatever their type in the file."""
    return xxhash.xxh3_64_hexdigest(np.ascontiguousarray(coords, np.float64))


def _equal_at_end(rows: np.ndarray, value: float | None) -> int:
    """How many of the last rows hold nothing but this value."""
    if value is None or (rows[-1] != np.float32(value)).any():
        return 0
    other = np.flatnonzero((rows != np.float32(value)).any(1))
    return len(rows) - 1 - int(other[-1]) if len(other) else len(rows)
