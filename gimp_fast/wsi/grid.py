"""Where patches lie: at one physical resolution, on a grid, where there is tissue."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gimp_fast.errors import FaultError
from gimp_fast.wsi.options import GridOptions
from gimp_fast.wsi.resolution import Override, level0_mpp
from gimp_fast.wsi.slide import SlideFacts


@dataclass(frozen=True)
class PatchPlan:
    """How to read the patches of a slide."""

    patch_size: int  # side P in pixels, as encoded
    size_level0: int  # the same side in pixels of level 0; also the step of the grid
    level: int  # to read
    read_size: int  # the same side in pixels of that level; resampled to P if it differs
    mpp: float  # micrometres per pixel of the encoded patch
    level0_mpp: float  # micrometres per pixel of level 0
    mpp_source: str  # where level0_mpp comes from


@dataclass(frozen=True)
class PatchSet:
    """The patches that are taken from a slide."""

    facts: SlideFacts
    plan: PatchPlan
    coords: np.ndarray  # (N, 2) int64 x, y of the top left corners in pixels of level 0
    order: str  # of the rows, as `prepare --order` names it


def plan_patches(
    facts: SlideFacts, options: GridOptions, override: Override | None = None
) -> PatchPlan:
    """Patches of the requested resolution, read from the coarsest level that has all their detail.

    If level 0 reduced by a whole number is near enough, that resolution is used: patches of a 40x
    slide at 20x are then 512 pixels of level 0, as in CLAM, whether the scanner records 0.2485 or
    0.2527 µm.

    Raises:
        FaultError: the resolution is unknown, too low, or the slide is smaller than one patch.
    """
    base, source = level0_mpp(facts, override)
    factor = options.target_mpp / base
    whole = max(1, round(factor))
    if abs(whole / factor - 1) <= options.tolerance:
        factor = whole
    if factor < 1:
        found = f"{base:g} µm per pixel at level 0 ({source})"
        expected = f"{options.target_mpp:g} µm or finer: patches are never enlarged"
        raise FaultError.of("resolution-too-low", facts.path, found, expected)
    size = round(options.patch_size * factor)
    return plan_of_size(facts, size, options.patch_size, base, source)


def plan_of_size(
    facts: SlideFacts, size: int, patch_size: int, base: float, source: str
) -> PatchPlan:
    """The plan for patches of ``size`` pixels of level 0, encoded as ``patch_size`` pixels."""
    if facts.width < size or facts.height < size:
        found = f"{facts.width} × {facts.height} pixels of {base:.4g} µm ({source})"
        expected = f"one patch or more, {size} × {size} pixels of level 0"
        raise FaultError.of("slide-too-small", facts.path, found, expected)
    level = facts.level_for(size / patch_size)
    read_size = max(1, round(size / facts.levels[level].downsample))
    return PatchPlan(patch_size, size, level, read_size, base * size / patch_size, base, source)


def foreground(
    facts: SlideFacts, plan: PatchPlan, mask: np.ndarray, min_tissue: float
) -> np.ndarray:
    """(N, 2) int64 x, y of the patches with enough tissue, in pixels of level 0, row by row.

    The grid starts at the top left corner of the slide. Patches may extend beyond the right or
    lower edge: the part outside is white, as in CLAM, and counts as glass. The mask is (h, w) bool
    over the whole slide, True for tissue; ``min_tissue`` 0 keeps every patch that has any.
    """
    size = plan.size_level0
    x, left, right, width = _under_patches(size, facts.width, mask.shape[1])
    y, top, bottom, height = _under_patches(size, facts.height, mask.shape[0])
    # Summed-area table: the sum over any rectangle is a difference of four entries.
    total = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), np.int32)
    np.cumsum(mask, 0, out=total[1:, 1:])
    np.cumsum(total, 1, out=total)
    tissue = total[bottom][:, right] - total[bottom][:, left]
    tissue -= total[top][:, right] - total[top][:, left]
    rows, columns = np.nonzero((tissue >= min_tissue * (width * height[:, None])) & (tissue > 0))
    return np.stack([x[columns], y[rows]], -1)


def _under_patches(size: int, length: int, pixels: int) -> tuple[np.ndarray, ...]:
    """Along an axis, of each patch: start; first pixel of the mask under it, end, side."""
    scale = pixels / length
    start = np.arange(0, length, size, dtype=np.int64)
    first = np.minimum(np.rint(start * scale).astype(np.int64), pixels - 1)
    end = np.clip(np.rint((start + size) * scale).astype(np.int64), first + 1, pixels)
    return start, first, end, np.maximum(end - first, size * scale)
