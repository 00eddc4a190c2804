"""Where patches lie: at one physical resolution, on one grid, where there is tissue."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gimp_fast.errors import FaultError
from gimp_fast.wsi.slide import SlideFacts

MPP_AT_1X = 10.0  # by convention 20x is 0.5 µm a pixel and 40x is 0.25


@dataclass(frozen=True)
class GridOptions:
    """Which patches are wanted.

    Attributes:
        target_mpp: micrometres per pixel of a patch; 20x is 0.5.
        patch_size: side in pixels, P.
        tolerance: a whole-numbered reduction of level 0 is taken as it is if its resolution
            deviates by no more than this fraction.
        min_tissue: least fraction of a patch that is tissue.
    """

    target_mpp: float = 0.5
    patch_size: int = 256
    tolerance: float = 0.1
    min_tissue: float = 0.25


@dataclass(frozen=True)
class PatchPlan:
    """How patches of a slide are read.

    Attributes:
        patch_size: side P in pixels as encoded.
        size_level0: the same side in pixels of level 0; also the step of the grid.
        level: to read from.
        read_size: the same side in pixels of that level; other than P, it is resampled.
        mpp: micrometres per pixel of the encoded patch.
        level0_mpp: of level 0.
        mpp_source: where that comes from.
    """

    patch_size: int
    size_level0: int
    level: int
    read_size: int
    mpp: float
    level0_mpp: float
    mpp_source: str


@dataclass(frozen=True)
class Override:
    """What the user says of a slide: micrometres per pixel of level 0.

    Attributes:
        mpp: the number.
        source: where the user says it.
        always: also where the slide has its own; else only where it has none.
    """

    mpp: float
    source: str
    always: bool


def level0_mpp(facts: SlideFacts, override: Override | None = None) -> tuple[float, str]:
    """(micrometres per pixel of level 0, where that comes from).

    Raises:
        FaultError: neither the slide nor the user tells. It is never assumed.
    """
    if override and override.always:
        return override.mpp, override.source
    if facts.mpp is not None:
        return facts.mpp, "mpp of the slide"
    if facts.magnification is not None:
        return (
            MPP_AT_1X / facts.magnification,
            f"magnification {facts.magnification:g} of the slide",
        )
    if override:
        return override.mpp, override.source
    found = facts.remark or "neither micrometres per pixel nor a magnification"
    expected = "one of them; tell it with --mpp-override or --magnification-override"
    raise FaultError.of("resolution-unknown", facts.path, found, expected)


def plan_patches(
    facts: SlideFacts, options: GridOptions, override: Override | None = None
) -> PatchPlan:
    """Read patches of the wanted resolution, from the coarsest level that has all of it.

    Level 0 reduced by a whole number k is preferred where it comes near the wanted resolution:
    patches of a 40x slide at 20x are then 512 pixels of level 0, as CLAM's are, whether the scanner
    calls 0.2485 or 0.2527 µm 40x.

    Raises:
        FaultError: the resolution is unknown, too low, or the slide is smaller than one patch.
    """
    base, source = level0_mpp(facts, override)
    factor = options.target_mpp / base
    whole = max(1, round(factor))
    if abs(whole / factor - 1) <= options.tolerance:
        factor = whole
    if factor < 1:
        found = f"{base:g} µm a pixel at level 0 ({source})"
        expected = f"{options.target_mpp:g} µm or finer: pixels are not invented"
        raise FaultError.of("resolution-too-low", facts.path, found, expected)
    size = round(options.patch_size * factor)
    return plan_of_size(facts, size, options.patch_size, base, source)


def plan_of_size(
    facts: SlideFacts, size: int, patch_size: int, base: float, source: str
) -> PatchPlan:
    """The plan for patches of ``size`` pixels of level 0, encoded as ``patch_size`` pixels."""
    if facts.width < size or facts.height < size:
        found = f"{facts.width} × {facts.height} pixels"
        expected = f"one patch or more, {size} × {size} pixels of level 0"
        raise FaultError.of("slide-too-small", facts.path, found, expected)
    level = facts.level_for(size / patch_size)
    read_size = max(1, round(size / facts.levels[level].downsample))
    return PatchPlan(patch_size, size, level, read_size, base * size / patch_size, base, source)


def foreground(
    facts: SlideFacts, plan: PatchPlan, mask: np.ndarray, min_tissue: float
) -> np.ndarray:
    """Patches with enough tissue, of a grid that begins at the corner of the slide.

    Those that reach over its right or lower edge are white there, as CLAM pads them; what is
    outside counts as no tissue.

    Args:
        facts: the slide's.
        plan: gives the step of the grid.
        mask: (h, w) bool over the whole slide; True is tissue.
        min_tissue: least fraction; 0 keeps every patch with any tissue.

    Returns:
        (N, 2) int64 x, y of the top left corners in pixels of level 0, row by row.
    """
    size = plan.size_level0
    x = np.arange(-(-facts.width // size), dtype=np.int64) * size
    y = np.arange(-(-facts.height // size), dtype=np.int64) * size
    left, right = _to_mask(x, size, facts.width, mask.shape[1])
    top, bottom = _to_mask(y, size, facts.height, mask.shape[0])
    # Sum of the mask over any rectangle, from the sums over those that begin at the corner.
    total = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), np.int32)
    np.cumsum(mask, 0, out=total[1:, 1:])
    np.cumsum(total, 1, out=total)
    tissue = total[bottom][:, right] - total[bottom][:, left]
    tissue -= total[top][:, right] - total[top][:, left]
    whole = mask.shape[1] / facts.width, mask.shape[0] / facts.height
    area = (
        np.maximum(right - left, size * whole[0])
        * np.maximum(bottom - top, size * whole[1])[:, None]
    )
    rows, columns = np.nonzero((tissue >= min_tissue * area) & (tissue > 0))
    return np.stack([x[columns], y[rows]], -1)


def _to_mask(start: np.ndarray, size: int, length: int, pixels: int) -> tuple:
    """First pixel of the mask, and one past the last, under each patch along an axis."""
    scale = pixels / length
    first = np.clip(np.rint(start * scale).astype(np.int64), 0, pixels - 1)
    last = np.clip(np.rint((start + size) * scale).astype(np.int64), first + 1, pixels)
    return first, last
