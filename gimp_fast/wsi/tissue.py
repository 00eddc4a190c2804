"""Tissue and glass, told apart by colour saturation (CLAM's method; Lu et al., Nature BME 2021).

GiMP section 3.1 discards the background with CLAM's preprocessing. Stained tissue is coloured and
glass is grey: HSV saturation passes a median filter and a threshold, gaps are closed, small parts
dropped and small holes filled. Areas are in square micrometres; their defaults are multiples of a
256-pixel patch at 20x (128 µm), which is CLAM's unit of 512 pixels at 40x. CLAM's settings for TCGA
keep holes of 4 units or more, as here, and parts of 16 or more, which would lose small biopsies.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from gimp_fast.wsi.options import TissueOptions
from gimp_fast.wsi.pens import find_pens

_ROWS = 256  # at a time: temporaries of a whole large picture would be larger than the picture


@dataclass(frozen=True)
class Tissue:
    """Where the tissue of a slide is."""

    mask: np.ndarray  # (h, w) bool over the whole slide
    threshold: float  # of the saturation
    dropped: float = 0.0  # fraction of the slide in coloured parts that were too small
    largest_dropped_um2: float = 0.0  # area of the largest of them
    pens: float = 0.0  # fraction of the slide under marks of a pen, which were left out
    pale: float = 0.0  # fraction that only CLAM's lower threshold takes, where glass is below it

    @property
    def fraction(self) -> float:
        return float(self.mask.mean()) if self.mask.size else 0.0


def find_tissue(rgb: np.ndarray, mpp: float, options: TissueOptions) -> Tissue:
    """The tissue in a picture of a whole slide, (h, w, 3) uint8 of ``mpp`` µm per pixel."""
    saturation = saturation_of(rgb, options.darkest)
    pens = np.zeros(saturation.shape, bool)
    if options.skip_pens:
        pens = find_pens(rgb, options.min_part_um2 / mpp**2)
        saturation[pens] = 0
    threshold = options.saturation
    if threshold is None:
        # A pen is more saturated than any tissue: with it, the threshold would lie above pale ones.
        threshold = min(max(otsu(saturation[~pens]), options.lowest), options.highest)
    mask, small = _parts(saturation > threshold, mpp, options)
    fraction, pale = mask.mean(), 0.0
    # Glass of a colour is above the lowest threshold all over the slide.
    is_glass_grey = np.percentile(saturation, 5) < options.lowest
    if options.saturation is None and threshold > options.lowest and is_glass_grey:
        pale = _parts(saturation > options.lowest, mpp, options)[0].mean() - fraction
    return Tissue(
        mask,
        float(threshold),
        dropped=float(small.mean()),
        largest_dropped_um2=_largest(small) * mpp**2,
        pens=float(pens.mean()),
        pale=max(0.0, float(pale)),
    )


def _parts(
    coloured: np.ndarray, mpp: float, options: TissueOptions
) -> tuple[np.ndarray, np.ndarray]:
    """The tissue among coloured pixels, and the parts that are too small for it, (h, w) bool."""
    coloured = _close(_majority(coloured, options.median), options.close)
    mask = _drop_small(coloured, options.min_part_um2 / mpp**2)
    small = coloured & ~mask
    return ~_drop_small(~mask, options.min_hole_um2 / mpp**2, holes=True), small


def _largest(mask: np.ndarray) -> int:
    """Pixels of the largest part of a mask."""
    labels, count = ndimage.label(mask, np.ones((3, 3), bool))
    return int(_count(labels, count + 1)[1:].max(initial=0))


def saturation_of(rgb: np.ndarray, darkest: int = 0) -> np.ndarray:
    """HSV saturation, (h, w) uint8: 255 · (max − min) / max; 0 where max is below ``darkest``."""
    saturation = np.empty(rgb.shape[:2], np.uint8)
    for top in range(0, len(rgb), _ROWS):
        rows = rgb[top : top + _ROWS]
        largest, smallest = rows.max(-1), rows.min(-1)
        spread = (largest - smallest).astype(np.float32)
        spread[largest < max(darkest, 1)] = 0
        saturation[top : top + _ROWS] = np.rint(255 * spread / np.maximum(largest, 1))
    return saturation


def otsu(values: np.ndarray) -> int:
    """The threshold that splits uint8 values best into those up to it and those above it.

    Maximises the variance between the two classes (Otsu, IEEE TSMC 1979). 0 if all are equal.
    """
    count = _count(values, 256).astype(np.float64)
    below = count.cumsum()
    mass = (count * np.arange(256)).cumsum()
    above = below[-1] - below
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (mass / below - (mass[-1] - mass) / above) ** 2
    between = np.nan_to_num(between, nan=0.0, posinf=0.0)
    # All thresholds between two clusters are equally good: take the middle one.
    best = np.flatnonzero(between >= between.max() * (1 - 1e-12)) if between.any() else [0]
    return int(best[len(best) // 2])


def _count(values: np.ndarray, number: int) -> np.ndarray:
    """How often each of 0 … number − 1 occurs, without a copy of the values as ``bincount`` has."""
    return np.histogram(values, number, (0, number))[0]


def _majority(mask: np.ndarray, side: int) -> np.ndarray:
    """The median filter of the saturation: it commutes with the threshold, so it comes after it."""
    return ndimage.uniform_filter(mask.astype(np.float32), side, mode="nearest") > 0.5


def _close(mask: np.ndarray, side: int) -> np.ndarray:
    if side <= 1:
        return mask
    # Padded with its own edge, or closing would erode tissue there.
    padded = np.pad(mask, side, mode="edge")
    closed = ndimage.binary_closing(padded, np.ones((side, side), bool))
    return closed[side:-side, side:-side] | mask


def _drop_small(mask: np.ndarray, pixels: float, *, holes: bool = False) -> np.ndarray:
    """The mask without parts of fewer pixels. Diagonal neighbours do not connect holes."""
    labels, count = ndimage.label(mask, None if holes else np.ones((3, 3), bool))
    keep = _count(labels, count + 1) >= pixels
    if holes:  # glass that reaches the edge is not enclosed by tissue
        for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
            keep[edge] = True
    keep[0] = False
    return keep[labels]
