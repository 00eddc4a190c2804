"""Colours of pens and of stains are told apart."""

from __future__ import annotations

import numpy as np
import pytest

from gimp_fast.wsi.options import TissueOptions
from gimp_fast.wsi.pens import find_pens
from gimp_fast.wsi.tissue import find_tissue

PENS = {
    "blue": (20, 60, 160), "light blue": (70, 110, 215), "green": (30, 140, 60),
    "light green": (120, 200, 150), "red": (200, 25, 35), "black": (25, 25, 28),
    "grey of a black pen": (70, 70, 75),
}  # fmt: skip
STAINS = {
    "eosin": (230, 150, 190), "haematoxylin and eosin": (190, 90, 160), "nuclei": (95, 60, 140),
    "dark nuclei": (60, 30, 100), "haematoxylin alone": (150, 150, 165),
    "strong haematoxylin": (90, 95, 160), "DAB": (140, 90, 50), "dark DAB": (80, 40, 20),
    "blood": (190, 60, 70), "glass": (243, 243, 243), "yellow glass": (240, 236, 215),
    "greenish glass": (225, 240, 228), "anthracotic pigment": (95, 85, 95),
}  # fmt: skip


def stroke(colour) -> np.ndarray:
    rgb = np.full((40, 60, 3), 243, np.uint8)
    rgb[10:30, 10:50] = colour
    return rgb


@pytest.mark.parametrize("colour", PENS.values(), ids=PENS)
def test_a_stroke_of_a_pen_is_found_with_its_rim(colour):
    found = find_pens(stroke(colour), 16)
    assert found[8:32, 8:52].all()
    assert found.sum() == 24 * 44


@pytest.mark.parametrize("colour", STAINS.values(), ids=STAINS)
def test_stains_and_glass_are_no_pen(colour):
    assert not find_pens(stroke(colour), 16).any()


def test_small_marks_may_be_anything():
    assert not find_pens(stroke(PENS["blue"]), 801).any()
    assert find_pens(stroke(PENS["blue"]), 800).any()


def test_a_pen_is_tissue_if_one_asks_for_it():
    rgb = stroke((60, 120, 190))  # the collagen of Masson's trichrome, say
    assert not find_tissue(rgb, 16.0, TissueOptions()).mask.any()
    kept = find_tissue(rgb, 16.0, TissueOptions(skip_pens=False))
    assert kept.mask.any()
    assert kept.pens == 0


def test_a_slide_of_pen_alone():
    found = find_tissue(np.full((30, 30, 3), PENS["blue"], np.uint8), 16.0, TissueOptions())
    assert (found.fraction, found.pens) == (0, 1)
