"""Tissue and glass."""

from __future__ import annotations

import colorsys
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from gimp_fast.wsi.options import TissueOptions
from gimp_fast.wsi.tissue import _majority, find_tissue, otsu, saturation_of

PINK, GLASS = (200, 110, 160), (240, 240, 242)
# At 16 µm a pixel: parts from 4 pixels, holes from 9; neither filter.
PLAIN = TissueOptions(median=1, close=1, min_part_um2=4 * 256, min_hole_um2=9 * 256)


def picture(height: int = 40, width: int = 50, fill=GLASS) -> np.ndarray:
    return np.full((height, width, 3), fill, np.uint8)


def test_saturation_is_that_of_hsv():
    rgb = np.random.default_rng(0).integers(0, 256, (7, 9, 3), np.uint8)
    expected = [
        [round(255 * colorsys.rgb_to_hsv(*(pixel / 255))[1]) for pixel in row] for row in rgb
    ]
    assert np.abs(saturation_of(rgb).astype(int) - expected).max() <= 1


def test_dark_edges_of_a_scan_have_no_saturation():
    rgb = np.array([[[1, 0, 0], [31, 0, 0], [32, 0, 0], [0, 0, 0]]], np.uint8)
    assert saturation_of(rgb, 32).tolist() == [[0, 0, 255, 0]]
    assert saturation_of(rgb).tolist() == [[255, 255, 255, 0]]


def test_otsu_maximises_the_variance_between_classes():
    values = np.random.default_rng(1).integers(0, 40, 300).astype(np.uint8)
    values[:90] += 60

    def between(threshold: int) -> float:
        low, high = values[values <= threshold], values[values > threshold]
        if not len(low) or not len(high):
            return 0.0
        return len(low) * len(high) * (low.mean() - high.mean()) ** 2

    assert between(otsu(values)) == pytest.approx(max(between(n) for n in range(256)))


@pytest.mark.parametrize("value", [0, 7, 255])
def test_otsu_of_one_value_is_zero(value):
    assert otsu(np.full((5, 5), value, np.uint8)) == 0


def test_tissue_is_found_and_glass_is_not():
    rgb = picture()
    rgb[10:30, 5:25] = PINK
    found = find_tissue(rgb, 16.0, PLAIN)
    expected = np.zeros((40, 50), bool)
    expected[10:30, 5:25] = True
    assert (found.mask == expected).all()
    assert found.fraction == 400 / 2000


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_noise_of_blank_glass_is_no_tissue(seed):
    noise = np.random.default_rng(seed).integers(-3, 4, (60, 60, 3))
    rgb = (picture(60, 60).astype(int) + noise).astype(np.uint8)
    found = find_tissue(rgb, 16.0, TissueOptions())
    assert not found.mask.any()
    assert found.threshold == 8


def test_a_slide_full_of_pale_and_dark_tissue_is_all_tissue():
    rgb = picture(fill=(215, 180, 200))
    rgb[:, 25:] = (120, 30, 110)
    found = find_tissue(rgb, 16.0, TissueOptions())
    assert found.threshold == 30
    assert found.mask.all()


def test_a_given_threshold_is_used_as_it_is():
    rgb = picture()
    rgb[10:30, 5:25] = PINK  # saturation 115
    assert find_tissue(rgb, 16.0, replace(PLAIN, saturation=114)).mask.any()
    assert not find_tissue(rgb, 16.0, replace(PLAIN, saturation=115)).mask.any()


def test_small_parts_are_dropped_and_small_holes_filled():
    rgb = picture()
    rgb[2:4, 2:4] = PINK  # 4 pixels: kept
    rgb[2, 8:11] = PINK  # 3 pixels: dropped
    rgb[10:34, 10:44] = PINK
    rgb[12:14, 12:16] = GLASS  # 8 pixels: filled
    rgb[20:23, 20:23] = GLASS  # 9 pixels: kept
    found = find_tissue(rgb, 16.0, PLAIN)
    mask = found.mask
    assert found.dropped == pytest.approx(3 / 2000)
    assert mask[2:4, 2:4].all()
    assert not mask[2, 8:11].any()
    assert mask[12:14, 12:16].all()
    assert not mask[20:23, 20:23].any()


def test_areas_are_physical():
    rgb = picture()
    rgb[2:4, 2:4] = PINK
    assert find_tissue(rgb, 16.0, PLAIN).mask.any()
    assert not find_tissue(rgb, 8.0, PLAIN).mask.any()


def test_glass_at_the_edge_is_no_hole():
    rgb = picture(fill=PINK)
    rgb[0:2, 5:7] = GLASS
    assert not find_tissue(rgb, 16.0, PLAIN).mask[0:2, 5:7].any()


def test_closing_joins_across_gaps_and_keeps_the_edges():
    rgb = picture(fill=PINK)
    rgb[:, 20:23] = GLASS
    assert find_tissue(rgb, 16.0, replace(PLAIN, close=4)).mask.all()
    assert not find_tissue(rgb, 16.0, replace(PLAIN, close=3)).mask[:, 20:23].any()


@pytest.mark.parametrize("side", [3, 5, 7])
def test_a_median_commutes_with_a_threshold(side):
    values = np.random.default_rng(side).integers(0, 256, (30, 41), np.uint8)
    blurred = ndimage.median_filter(values, side, mode="nearest")
    assert (_majority(values > 128, side) == (blurred > 128)).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 3)])
def test_pictures_of_a_few_pixels(shape):
    found = find_tissue(np.full((*shape, 3), PINK, np.uint8), 16.0, TissueOptions(min_part_um2=0))
    assert found.mask.shape == shape
    assert found.mask.all()
