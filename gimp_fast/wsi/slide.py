"""The interface of a whole-slide image of any format."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Level:
    """One resolution of a slide."""

    width: int  # pixels
    height: int
    downsample: float  # pixels of level 0 per pixel of this level, along one axis


@dataclass(frozen=True)
class SlideFacts:
    """The header of a slide."""

    path: Path
    reader: str  # the library that reads it, and that library's name of the format
    levels: tuple[Level, ...]  # from the finest (level 0) to the coarsest
    mpp: float | None  # micrometres per pixel of level 0; None unless recorded and plausible
    magnification: float | None  # of the objective; None unless recorded and plausible
    remark: str = ""  # implausible records that were left out
    # Left, top, width and height of the scanned area in pixels of level 0; None where the format
    # records none. QuPath opens only this part of a slide.
    bounds: tuple[int, int, int, int] | None = None

    @property
    def width(self) -> int:
        return self.levels[0].width

    @property
    def height(self) -> int:
        return self.levels[0].height

    def level_for(self, downsample: float) -> int:
        """The coarsest level that is at most this coarse, give or take one percent."""
        fine = [n for n, level in enumerate(self.levels) if level.downsample <= downsample * 1.01]
        return max(fine, key=lambda n: self.levels[n].downsample, default=0)


class WholeSlide(contextlib.AbstractContextManager):
    """An open slide. Use ``open_wsi`` to get one. Threads may share it."""

    def __init__(self, facts: SlideFacts):
        self.facts = facts

    def read(self, x: int, y: int, level: int, width: int, height: int) -> np.ndarray:
        """(height, width, 3) uint8 RGB of a region; white outside the scanned area.

        The top left corner (x, y) is in pixels of level 0, width and height in pixels of ``level``.

        Raises:
            FaultError: the file cannot be read there.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Release the file."""

    def __exit__(self, *exception: object) -> None:
        self.close()
