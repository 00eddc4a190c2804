"""The small picture of a whole slide."""

from __future__ import annotations

import numpy as np
import pytest
from builders.slides import InMemory

from gimp_fast.wsi import overview
from gimp_fast.wsi.overview import read_overview, reduce


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("block", [100, 2048])
def test_pixels_are_means_of_what_lies_under_them(monkeypatch, block):
    monkeypatch.setattr(overview, "_BLOCK", block)
    monkeypatch.setattr(overview, "_LEAST_SIDE", 1)
    pixels = noise(640, 960)
    slide = InMemory(pixels)
    picture, finer = read_overview(slide, 0.5, 16.0)
    assert (picture.shape, finer) == ((20, 30, 3), 1)
    expected = pixels.reshape(20, 32, 30, 32, 3).mean((1, 3))
    assert np.abs(picture - expected).max() <= 1
    assert slide.largest <= max(block, 32)


def test_blocks_make_no_seams_at_uneven_sizes(monkeypatch):
    monkeypatch.setattr(overview, "_LEAST_SIDE", 1)
    ramp = np.add.outer(np.arange(611), np.arange(953)) // 7  # without a jump
    pixels = np.repeat(ramp[..., None], 3, 2).astype(np.uint8)
    whole = read_overview(InMemory(pixels), 0.5, 7.3)[0]
    monkeypatch.setattr(overview, "_BLOCK", 64)
    in_blocks = read_overview(InMemory(pixels), 0.5, 7.3)[0]
    assert np.abs(whole.astype(int) - in_blocks).max() <= 1


def test_the_coarsest_level_that_is_fine_enough_is_read(monkeypatch):
    monkeypatch.setattr(overview, "_LEAST_SIDE", 1)
    slide = InMemory(noise(1024, 1024), (1, 4, 16, 64))
    read_overview(slide, 0.5, 16.0)
    assert slide.levels_read == {2}


def test_small_slides_get_a_finer_picture_that_reduces():
    picture, finer = read_overview(InMemory(noise(640, 960)), 0.5, 16.0)
    assert finer == 32
    assert picture.shape == (640, 960, 3)
    assert reduce(picture, finer).shape == (20, 30, 3)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (33, 2)])
def test_slides_of_a_few_pixels(shape):
    picture, finer = read_overview(InMemory(noise(*shape)), 0.5, 16.0)
    assert min(reduce(picture, finer).shape[:2]) >= 1
