"""Fixtures of the slide tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from builders.slides import MeanColour, write_slide


@pytest.fixture
def slide_file(tmp_path) -> Callable[..., Path]:
    """Writes a synthetic slide of 2048 × 1792 pixels with 4 × 3 patches of tissue."""
    pytest.importorskip("tifffile")

    def write(name: str = "slide.tif", **settings) -> Path:
        return write_slide(tmp_path / "slides", name, **settings)

    return write


@pytest.fixture(scope="session")
def real_slides(real_data) -> Path:
    """Folder of two real slides of public test sets; OpenSlide must be there to read them."""
    pytest.importorskip("openslide")
    folder = real_data / "slides"
    if not folder.is_dir():
        pytest.skip(f"no slides at {folder}")
    return folder


@pytest.fixture
def mean_colour() -> MeanColour:
    return MeanColour()
