"""The interface of a whole-slide image of any format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np


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
    """The header of a slide.

    Attributes:
        path: the file.
        reader: the library that reads it, and that library's name of the format.
        levels: from the finest (level 0) to the coarsest.
        mpp: micrometres per pixel of level 0; None unless recorded and plausible.
        magnification: of the objective; None unless recorded and plausible.
        remark: implausible records that were left out; empty if there are none.
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
        """The coarsest level that is at most this coarse, give or take one percent."""
        fine = [n for n, level in enumerate(self.levels) if level.downsample <= downsample * 1.01]
        return max(fine, key=lambda n: self.levels[n].downsample, default=0)


class WholeSlide:
    """An open slide; a context manager. Use ``open_wsi`` to get one. Threads may share it."""

    def __init__(self, facts: SlideFacts):
        self.facts = facts

    def read(self, x: int, y: int, level: int, width: int, height: int) -> np.ndarray:
        """Pixels of a region; white outside the scanned area.

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
