"""Polygons for QuPath count from where QuPath counts, and say so."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from gimp_fast.heatmaps.options import ORIGINS
from gimp_fast.heatmaps.patch_tables import origin_of, patch_table, write_geojson
from gimp_fast.heatmaps.places import PatchPlaces

COORDS = np.array([[5000, 7000], [5512, 7000]])


class Slide:
    """A slide of a format that records bounds, such as MIRAX."""

    size, mpp, bounds = (80_000, 200_000), 0.25, (4096, 6144, 20_000, 30_000)


class Whole(Slide):
    bounds = (0, 0, 80_000, 200_000)


class Picture(Slide):
    bounds = None


def written(tmp_path, asked, image) -> dict:
    facts = {"attention": [0.6, 0.4], "times_even": [1.2, 0.8], "percentile": [75.0, 25.0]}
    table = patch_table("a", PatchPlaces(None, COORDS, 512.0), pd.DataFrame(facts))
    write_geojson(table, tmp_path / "a.geojson", "detection", origin_of(asked, image))
    return json.loads((tmp_path / "a.geojson").read_text(encoding="utf-8"))


def corners(collection) -> list:
    return [feature["geometry"]["coordinates"][0][0] for feature in collection["features"]]


@pytest.mark.parametrize(
    ("asked", "image", "name", "offset", "said"),
    [
        ("bounds", Slide(), "bounds", (4096, 6144), "bounds at (4096, 6144), as QuPath opens it"),
        ("slide", Slide(), "slide", (0, 0), "corner of the whole slide"),
        ("bounds", Whole(), "bounds", (0, 0), "corner of the slide"),
        ("bounds", Picture(), "unknown", (0, 0), "not known without the slide"),
        ("bounds", None, "unknown", (0, 0), "not known without the slide"),
        ("slide", None, "slide", (0, 0), "corner of the whole slide"),
    ],
    ids=["bounds", "whole asked", "no bounds", "a picture", "no image", "no image, whole asked"],
)
def test_polygons_count_from_the_origin_that_the_file_states(
    tmp_path, asked, image, name, offset, said
):
    collection = written(tmp_path, asked, image)
    assert corners(collection) == (COORDS - offset).tolist()
    properties = collection["properties"]
    assert (properties["origin"], properties["offset"]) == (name, list(offset))
    assert said in properties["about"]


def test_a_patch_has_the_same_id_in_both(tmp_path):
    ids = [[f["id"] for f in written(tmp_path, a, Slide())["features"]] for a in ORIGINS]
    assert ids[0] == ids[1]
    assert len(set(ids[0])) == 2


def test_bounds_of_a_slide_come_from_openslide(tmp_path, monkeypatch):
    """No small slide of such a format is public; its properties are."""
    pytest.importorskip("tifffile")
    openslide = pytest.importorskip("openslide")
    from builders.slides import write_slide

    from gimp_fast.wsi.images import SlideImages

    write_slide(tmp_path / "slides", "a.tif", size=(1024, 1024))
    with_bounds = {
        "openslide.bounds-x": "128", "openslide.bounds-y": "256",
        "openslide.bounds-width": "512", "openslide.bounds-height": "640",
    }  # fmt: skip
    images = SlideImages(tmp_path / "slides")
    image = images.open("a")
    assert image.bounds == (0, 0, 1024, 1024)
    image.close()
    original = openslide.OpenSlide.properties.fget
    monkeypatch.setattr(
        openslide.OpenSlide, "properties", property(lambda s: {**original(s), **with_bounds})
    )
    image = images.open("a")
    assert image.bounds == (128, 256, 512, 640)
    assert origin_of("bounds", image).x == 128
    image.close()
