"""Where the patches of a bag lie: row in the feature file, position, unit and size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gimp_fast.data import Cohort
from gimp_fast.data.bag import FileRows, SlideEntry
from gimp_fast.data.slides import SlideInfo, open_slide
from gimp_fast.data.slides.order import patch_order
from gimp_fast.errors import GimpError

PIXELS, MICROMETRES = "px", "um"
_FALLBACK_SIZE = 256.0


@dataclass(frozen=True)
class PatchPlaces:
    """Places of a slide's patches, in the order in which a model reads them.

    Attributes:
        file_rows: (N,) row of each patch in its feature file; None where not known.
        coords: (N, 2) float64 x, y of the upper left corner; None where not known.
        size: side of a patch.
        unit: of coordinates and size: ``"px"``, pixels of level 0, or ``"um"``, micrometres.
        notes: assumptions that were made, in sentences.
        mpp: micrometres per pixel of level 0; None where not known.
    """

    file_rows: np.ndarray | None
    coords: np.ndarray | None
    size: float = 0.0
    unit: str = PIXELS
    notes: tuple[str, ...] = ()
    mpp: float | None = None


def patch_places(
    entry: SlideEntry, cohort: Cohort, *, patch_size: float | None = None, mpp: float | None = None
) -> PatchPlaces:
    """Places of a slide's patches.

    Args:
        entry: the slide.
        cohort: the slide's cohort.
        patch_size: side in pixels of level 0, instead of what is recorded.
        mpp: micrometres per pixel of the slide image, if there is one; it turns coordinates in
            micrometres (STAMP) into pixels.

    Raises:
        GimpError: coordinates that are not finite, or not one for each patch.
    """
    info, notes = None, []
    if entry.path.exists():  # the file of a packed cohort may be gone
        with open_slide(entry.path) as file:
            info = file.info
    coords = entry.rows.coords()
    rows = _file_rows(entry, cohort, coords, info, notes)
    if coords is None:
        notes.append("The feature file has no coordinates: patches are listed, not drawn.")
        return PatchPlaces(rows, None, notes=tuple(notes))
    coords = np.asarray(coords, np.float64)[:, :2]
    if len(coords) != entry.num_patches or not np.isfinite(coords).all():
        raise GimpError(
            f"{entry.path}: found {len(coords)} coordinates, or some that are not finite; "
            f"expected {entry.num_patches} finite positions"
        )
    unit = PIXELS
    if _is_stamp(info):
        coords, unit = (coords / mpp, PIXELS) if mpp else (coords, MICROMETRES)
    size = _patch_size(coords, info, mpp, patch_size, notes)
    if unit == MICROMETRES:
        notes.append(
            "Coordinates are in micrometres. With --slide-images, the resolution of the slide "
            "turns them into pixels."
        )
    return PatchPlaces(rows, coords, size, unit, tuple(notes), _level0_mpp(info, cohort) or mpp)


def _level0_mpp(info: SlideInfo | None, cohort: Cohort) -> float | None:
    """Micrometres per pixel of level 0 by the feature file, which a user may have corrected."""
    if info is None or not info.patch_size_level0:
        return None
    mpp, side = info.mpp or cohort.mpp, info.patch_size or cohort.patch_size
    return mpp * side / info.patch_size_level0 if mpp and side else None


def _is_stamp(info: SlideInfo | None) -> bool:
    return info is not None and info.format.startswith("stamp")


def _file_rows(
    entry: SlideEntry,
    cohort: Cohort,
    coords: np.ndarray | None,
    info: SlideInfo | None,
    notes: list[str],
) -> np.ndarray | None:
    chosen = entry.rows.permutation if isinstance(entry.rows, FileRows) else None
    if chosen is not None:
        return chosen.astype(np.int64)
    if isinstance(entry.rows, FileRows) or cohort.patch_order == "file":
        return np.arange(entry.num_patches)
    # A packed store keeps the order but not the row numbers; they follow from the file.
    if info is not None and coords is not None and info.num_patches == entry.num_patches:
        with open_slide(entry.path) as file:
            stored = file.coords()
        if stored is not None:
            rows = patch_order(stored, cohort.patch_order).astype(np.int64)
            if np.array_equal(stored[rows, :2], np.asarray(coords)[:, :2]):
                return rows
    notes.append("Rows of the feature file are unknown: it is gone, or has changed since packing.")
    return None


def _patch_size(
    coords: np.ndarray,
    info: SlideInfo | None,
    mpp: float | None,
    asked: float | None,
    notes: list[str],
) -> float:
    """Side of a patch in the unit of the coordinates: asked for, recorded, or their spacing."""
    if asked is not None:
        return float(asked)
    if _is_stamp(info) and info.mpp and info.patch_size:
        side = info.mpp * info.patch_size
        return side / mpp if mpp else side
    if info is not None and info.patch_size_level0:
        return float(info.patch_size_level0)
    spacing = grid_spacing(coords)
    if spacing is None:
        notes.append(f"The patch size is not recorded; {_FALLBACK_SIZE:.0f} pixels are assumed.")
        return _FALLBACK_SIZE
    notes.append(f"The patch size is not recorded; the spacing of patches is used, {spacing:g}.")
    return spacing


def grid_spacing(coords: np.ndarray) -> float | None:
    """The commonest distance between neighbours in a row or column; None without neighbours.

    Pieces of tissue may have grids of their own (CLAM's contours), but neighbours in a piece have
    the same distance.
    """
    gaps = []
    for along, across in ((0, 1), (1, 0)):
        order = np.lexsort((coords[:, along], coords[:, across]))
        step = np.diff(coords[order], axis=0)
        gaps.append(step[(step[:, across] == 0) & (step[:, along] > 0), along])
    values, counts = np.unique(np.round(np.concatenate(gaps), 3), return_counts=True)
    return float(values[counts.argmax()]) if len(values) else None
