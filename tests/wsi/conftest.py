"""What the tests of slides share: synthetic slides, and an encoder that costs nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

TISSUE = [(512, 512, 1536, 1280)]


@pytest.fixture
def slide_file(tmp_path) -> Callable[..., Path]:
    """Writes a synthetic slide of 2048 × 1792 pixels with 4 × 3 patches of tissue."""
    pytest.importorskip("tifffile")
    from gimp_fast.wsi.synthetic import write_synthetic_slide

    def write(name: str = "slide.tif", *, size=(2048, 1792), tissue=TISSUE, **settings) -> Path:
        path = tmp_path / "slides" / name
        path.parent.mkdir(exist_ok=True)
        return write_synthetic_slide(path, size, tissue, **settings)

    return write


@pytest.fixture(scope="session")
def real_slides(real_data) -> Path:
    """Folder of two real slides of public test sets; OpenSlide must be there to read them."""
    pytest.importorskip("openslide")
    folder = real_data / "slides"
    if not folder.is_dir():
        pytest.skip(f"no slides at {folder}")
    return folder


class MeanColour:
    """Channels are the mean red, green and blue, and a constant: what it saw can be told."""

    name, dim, weights, precision = "mean-colour", 4, "none", "fp32"

    def __call__(self, patches: np.ndarray) -> np.ndarray:
        means = patches.reshape(len(patches), -1, 3).mean(1, dtype=np.float64)
        return np.concatenate([means, np.ones((len(patches), 1))], 1).astype(np.float32)


@pytest.fixture
def mean_colour() -> MeanColour:
    return MeanColour()
