"""The picture for checking an extraction."""

from __future__ import annotations

import numpy as np
from builders.slides import slide_facts
from PIL import Image

from gimp_fast.wsi.grid import PatchPlan, PatchSet
from gimp_fast.wsi.overlay import draw_overlay, write_overlay

PLAN = PatchPlan(256, 500, 0, 500, 0.5, 0.25, "test")


def patches(*coords: tuple[int, int]) -> PatchSet:
    corners = np.array(coords, np.int64).reshape(-1, 2)
    return PatchSet(slide_facts((4000, 2000)), PLAN, corners, "row")


def test_patches_keep_their_colour_and_the_rest_is_grey():
    rgb = np.full((500, 1000, 3), (200, 100, 160), np.uint8)
    # The last one extends beyond the edge.
    picture = draw_overlay(rgb, None, patches((0, 0), (3500, 1500), (3500, 1900)))
    assert picture.shape == rgb.shape
    assert picture[60, 60].tolist() == [200, 100, 160]
    assert picture[440, 940].tolist() == [200, 100, 160]
    red, green, blue = picture[300, 400]
    assert red == green == blue
    assert (picture[0, :125] != (200, 100, 160)).any(-1).all()


def test_tissue_is_outlined():
    rgb = np.full((500, 1000, 3), 240, np.uint8)
    mask = np.zeros((50, 100), bool)
    mask[10:40, 20:80] = True
    picture = draw_overlay(rgb, mask, patches())
    green = (picture == (0, 110, 60)).all(-1)
    assert green[100, 200:800].all()
    assert not green[110:390, 210:790].any()
    assert not green[:100].any()


def test_small_pictures_are_enlarged():
    rgb = np.zeros((10, 20, 3), np.uint8)
    picture = draw_overlay(rgb, None, patches((0, 0)))
    assert picture.shape == (500, 1000, 3)


def test_the_input_is_left_as_it_is():
    rgb = np.full((500, 1000, 3), 200, np.uint8)
    draw_overlay(rgb, None, patches((0, 0)))
    assert (rgb == 200).all()


def test_the_file_is_a_png(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    write_overlay(tmp_path / "overlays" / "a.png", picture)
    assert (np.asarray(Image.open(tmp_path / "overlays" / "a.png")) == picture).all()
