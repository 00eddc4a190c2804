"""Tiles put together again are the slide, at every level."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from builders.synthetic_slide import GLASS, TISSUE, write_synthetic_slide
from PIL import Image

from gimp_fast.viewer.tiles import TILE, SlidePictures
from gimp_fast.wsi.images import SlideImages


def put_together(pictures: SlidePictures, number: int, level: int) -> np.ndarray:
    """(h, w, 3) of all tiles of a level."""
    info = pictures.info(number)
    step = 2 ** (info["max_level"] - level)
    width, height = math.ceil(info["width"] / step), math.ceil(info["height"] / step)
    whole = np.zeros((height, width, 3))
    for top in range(0, height, TILE):
        for left in range(0, width, TILE):
            tile = pictures.tile(number, level, left // TILE, top // TILE)
            pixels = np.asarray(Image.open(io.BytesIO(tile)), float)
            whole[top : top + TILE, left : left + TILE] = pixels
    return whole


@pytest.mark.parametrize("below", [0, 1, 3, 10])
def test_every_level_is_the_whole_picture(image_folder, below):
    pictures = SlidePictures(SlideImages(image_folder), ["A-1"])
    level = pictures.info(0)["max_level"] - below
    whole = put_together(pictures, 0, level)
    with Image.open(image_folder / "A-1.png") as image:
        expected = image.resize(whole.shape[1::-1], Image.Resampling.BOX)
    assert np.abs(whole - np.asarray(expected, float)).max() < 12
    assert np.abs(whole - np.asarray(expected, float)).mean() < 2


def test_a_slide_of_several_levels(tmp_path):
    pytest.importorskip("tifffile")
    box = (1000, 600, 3100, 1400)
    write_synthetic_slide(tmp_path / "s.tif", (5000, 2000), [box])
    pictures = SlidePictures(SlideImages(tmp_path), ["s"])
    info = pictures.info(0)
    assert (info["width"], info["height"], info["max_level"]) == (5000, 2000, 13)
    assert info["mpp"] == pytest.approx(0.5)
    for below in (1, 2, 4):
        whole, step = put_together(pictures, 0, 13 - below), 2**below
        middle = whole[1000 // step, 2000 // step]
        np.testing.assert_allclose(middle, TISSUE, atol=16)
        np.testing.assert_allclose(whole[1700 // step, 4000 // step], GLASS, atol=16)


@pytest.mark.parametrize(
    "place",
    [(0, -1, 0, 0), (0, 11, 0, 0), (0, 10, 4, 0), (0, 10, 0, 3), (1, 5, 0, 0), (7, 5, 0, 0)],
)
def test_there_is_nothing_beyond_a_slide(image_folder, place):
    pictures = SlidePictures(SlideImages(image_folder), ["A-1", "unknown"])
    assert pictures.tile(*place) is None


def test_without_a_folder_there_is_no_picture():
    pictures = SlidePictures(None, ["A-1"])
    assert "--slide-images" in pictures.info(0)["missing"]
    assert pictures.tile(0, 0, 0, 0) is None
    assert pictures.patch(0, 0, 0, 10, 10) is None


def test_a_damaged_slide_is_missing_by_its_cause(tmp_path):
    (tmp_path / "s.png").write_bytes(b"not a picture")
    info = SlidePictures(SlideImages(tmp_path), ["s"]).info(0)
    assert "s.png: cannot be read as a picture" in info["missing"]
