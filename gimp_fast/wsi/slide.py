"""What every whole-slide image has, whatever its format."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# Beyond these a number is no microscope's: scanners give 0.1 to 1, and 72 dpi would be 353.
PLAUSIBLE_MPP = (0.04, 20.0)
PLAUSIBLE_MAGNIFICATION = (0.5, 250.0)


@dataclass(frozen=True)
class Level:
    """One resolution of a slide.

    Attributes:
        width, height: pixels.
        downsample: pixels of level 0 per pixel of this level, along one axis.
    """

    width: int
    height: int
    downsample: float


@dataclass(frozen=True)
class SlideFacts:
    """What the header of a slide says.

    Attributes:
        path: the file.
        reader: library that reads it, and the format as the library names it.
        levels: from the finest (level 0) to the coarsest.
        mpp: micrometres per pixel of level 0, where recorded and plausible.
        magnification: of the objective, where recorded and plausible.
        remark: what was recorded but is not plausible; empty if nothing.
    """

    path: Path
    reader: str
    levels: tuple[Level, ...]
    mpp: float | None
    magnification: float | None
    remark: str = ""

    @property
    def width(self) -> int:
        return self.levels[0].width

    @property
    def height(self) -> int:
        return self.levels[0].height

    def level_for(self, downsample: float) -> int:
        """The coarsest level that is not coarser than this (by more than a percent)."""
        fine = [n for n, level in enumerate(self.levels) if level.downsample <= downsample * 1.01]
        return max(fine, key=lambda n: self.levels[n].downsample, default=0)


class WholeSlide:
    """An open slide; a context manager. Use ``open_wsi`` to get one. Threads may share it."""

    def __init__(self, facts: SlideFacts):
        self.facts = facts

    def read(self, x: int, y: int, level: int, width: int, height: int) -> np.ndarray:
        """Pixels of a region; what lies outside the scanned area is white.

        Args:
            x, y: top left corner in pixels of level 0.
            level: to read from.
            width, height: in pixels of that level.

        Returns:
            (height, width, 3) uint8 RGB.

        Raises:
            FaultError: the file cannot be read there.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Release the file."""

    def __enter__(self) -> WholeSlide:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def checked_resolution(
    mpp: tuple[float | None, float | None], magnification: float | None
) -> tuple[float | None, float | None, str]:
    """(mpp, magnification, remark): recorded numbers that cannot be true are left out and named."""
    remarks = []
    across, down = mpp
    value = None
    if across is not None and down is not None:
        value = (across + down) / 2
        low, high = PLAUSIBLE_MPP
        if not (low <= across <= high and low <= down <= high):
            remarks.append(f"a recorded {across:g} × {down:g} µm a pixel, which is no microscope's")
            value = None
        elif abs(across - down) > 0.05 * value:
            remarks.append(f"recorded pixels that are not square, {across:g} × {down:g} µm")
            value = None
    if magnification is not None:
        low, high = PLAUSIBLE_MAGNIFICATION
        if not low <= magnification <= high:
            remarks.append(f"a recorded magnification of {magnification:g}")
            magnification = None
    return value, magnification, "; ".join(remarks)


def number(text: object) -> float | None:
    """A recorded number; None where it is none, or not finite."""
    try:
        value = float(str(text).replace(",", "."))
    except ValueError:
        return None
    return value if math.isfinite(value) else None
