"""Synthetic slides, and an encoder that costs nothing."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
from builders.synthetic_slide import write_synthetic_slide

from gimp_fast.wsi.slide import Level, SlideFacts, WholeSlide

SIZE = (2048, 1792)
TISSUE = [(512, 512, 1536, 1280)]  # 4 × 3 patches


def write_slide(folder: Path, name: str = "slide.tif", **settings) -> Path:
    """A slide in a folder, which need not exist yet; see ``write_synthetic_slide``."""
    folder.mkdir(exist_ok=True)
    settings = {"size": SIZE, "tissue": TISSUE} | settings
    return write_synthetic_slide(folder / name, **settings)


def slide_facts(
    size=(40_000, 30_000), downsamples=(1,), mpp=None, magnification=None, remark=""
) -> SlideFacts:
    """The header of a slide that does not exist."""
    levels = tuple(Level(int(size[0] / n), int(size[1] / n), n) for n in downsamples)
    return SlideFacts(Path("a.svs"), "test", levels, mpp, magnification, remark)


class MeanColour:
    """An encoder: the mean red, green and blue of a patch, and a constant."""

    name, dim, weights, precision = "mean-colour", 4, "none", "fp32"
    facts: ClassVar[dict[str, str]] = {}

    def __call__(self, patches: np.ndarray) -> np.ndarray:
        means = patches.reshape(len(patches), -1, 3).mean(1, dtype=np.float64)
        return np.concatenate([means, np.ones((len(patches), 1))], 1).astype(np.float32)


class InMemory(WholeSlide):
    """Levels that are arrays; notes which levels and how large regions were read."""

    def __init__(self, pixels: np.ndarray, downsamples=(1,)):
        height, width, _ = pixels.shape
        self.pixels = [
            pixels.reshape(height // n, n, width // n, n, 3).mean((1, 3)).round().astype(np.uint8)
            for n in downsamples
        ]
        super().__init__(slide_facts((width, height), downsamples))
        self.largest, self.levels_read = 0, set()

    def read(self, x, y, level, width, height):
        self.largest = max(self.largest, width, height)
        self.levels_read.add(level)
        scale = self.facts.levels[level].downsample
        left, top = round(x / scale), round(y / scale)
        return self.pixels[level][top : top + height, left : left + width]
