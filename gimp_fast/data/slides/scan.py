"""Reads a feature file once from end to end: its checksum, and everything wrong with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xxhash

from gimp_fast.data.slides import SlideFile, SlideInfo, open_slide
from gimp_fast.errors import Fault, FaultError
from gimp_fast.files.isolated import run_isolated

SCAN_BYTES = 32 << 20  # of rows held at a time, as float32


@dataclass(frozen=True)
class SlideScan:
    """Result of reading a whole file."""

    info: SlideInfo | None  # None if it cannot be opened
    faults: tuple[Fault, ...] = ()
    checksum: str = ""  # xxh3 of the rows as float32 in the order of the file
    largest: float = 0.0  # absolute value
    largest_row: int = 0


def scan_slide(path: Path) -> SlideScan:
    """Read all of a file; faults in it are returned, not raised.

    HDF5 files are read in a process of their own: damaged ones can make the library hang or crash.
    """
    if path.suffix != ".h5" or not path.is_file():
        return _scan(path)
    try:
        return run_isolated(_scan, path)
    except FaultError as error:
        return SlideScan(None, error.faults)


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


def _scan_rows(slide: SlideFile) -> SlideScan:
    info, digest = slide.info, xxhash.xxh3_64()
    step = max(1, SCAN_BYTES // (4 * info.feature_dim))
    bad, first, largest, largest_row = 0, -1, 0.0, 0
    for start in range(0, info.num_patches, step):
        rows = np.ascontiguousarray(slide.read(start, min(start + step, info.num_patches)))
        digest.update(rows)
        # NaN and infinity both show in the largest absolute value of a row.
        reach = np.maximum(rows.max(1), -rows.min(1))
        faulty = np.flatnonzero(~np.isfinite(reach))
        if len(faulty):
            first = first if bad else start + int(faulty[0])
            bad += len(faulty)
        elif reach.max() > largest:
            largest, largest_row = float(reach.max()), start + int(reach.argmax())
    faults = ()
    if bad:
        found = f"NaN or infinity in {bad} of {info.num_patches} rows, first in row {first}"
        faults = (Fault("features-not-finite", info.where, found, "finite features"),)
    elif info.has_coords and not np.isfinite(slide.coords()).all():
        where = f"{info.path}[coords]"
        faults = (Fault("coords-not-finite", where, "NaN or infinity", "finite coordinates"),)
    return SlideScan(info, faults, digest.hexdigest(), largest, largest_row)
