"""Pages that open anywhere: complete, small, and nothing in them is loaded from outside."""

from __future__ import annotations

import base64
import gzip
import json
import re
import shutil
from importlib.resources import files

import numpy as np
import pytest
from builders import maps
from PIL import Image

from gimp_fast.errors import GimpError
from gimp_fast.viewer import offline, write_pages
from gimp_fast.viewer.page import STATIC
from gimp_fast.viewer.patches import read_patches
from gimp_fast.wsi.images import SlideImages


def content_of(page: str) -> dict:
    return json.loads(re.search(r'id="inline">(.*?)</script>', page, re.DOTALL)[1])


@pytest.fixture
def folder(map_folder, tmp_path):
    return shutil.copytree(map_folder, tmp_path / "maps")


def test_a_page_holds_its_slide_alone(folder, image_folder):
    said = []
    written = write_pages(folder, SlideImages(image_folder), log=said.append)
    assert [page.parent.name for page in written] == ["A-1", "B-1", "B-2"]
    assert said == ["pages: 3 pages that can be mailed, view.html beside each map"]
    page = written[0].read_text(encoding="utf-8")
    content = content_of(page)
    assert [case["case_id"] for case in content["catalogue"]["cases"]] == ["A"]
    data = gzip.decompress(base64.b64decode(content["patches"]))
    assert data == read_patches(folder / "A-1" / "patches.csv").to_bytes()
    assert content["slide"]["width"] == 900
    assert content["genes"]["genes"][0]["name"] == "TP53 (G1)"
    assert set(content["crops"]) == set(map(str, range(9)))
    assert str(folder) not in page
    second = content_of(written[2].read_text(encoding="utf-8"))
    assert second["catalogue"]["slides"] == ["B-2"]
    assert "missing" in second["slide"]


def test_nothing_in_a_page_comes_from_outside(folder):
    page = write_pages(folder)[0].read_text(encoding="utf-8")
    ours = re.sub(r"<script>\n//! openseadragon.*?</script>", "", page, flags=re.DOTALL)
    assert len(ours) < len(page) - 100_000
    assert not re.search(r"https?:|src=|<link[^>]*stylesheet|@import|url\(", ours)
    assert "default-src 'none'" in ours


def test_finished_pages_are_kept(folder):
    first = write_pages(folder)
    before = [page.stat().st_mtime_ns for page in first]
    first[1].unlink()
    assert write_pages(folder) == [first[1]]
    assert [page.stat().st_mtime_ns for page in first][::2] == before[::2]
    assert write_pages(folder, log=pytest.fail) == []


def test_a_damaged_table_does_not_stop_the_other_pages(folder):
    (folder / "B-1" / "patches.csv").write_text("x,y\n")
    with pytest.raises(GimpError, match=r"1 slide without a page:\n  B-1  .*patches\.csv"):
        write_pages(folder)
    assert [page.parent.name for page in sorted(folder.glob("*/view.html"))] == ["A-1", "B-2"]


@pytest.mark.parametrize("name", STATIC)
def test_scripts_can_be_written_into_a_page(name):
    text = files("gimp_fast.viewer").joinpath("static", name).read_text(encoding="utf-8")
    assert not re.search(r"</(script|style)|<!--", text, re.IGNORECASE)


def test_a_name_cannot_become_markup(tmp_path):
    nasty = '</script><script>alert("x")</script><!--'
    table = maps.patch_table("s", maps.blob(2, 2, 4), np.arange(1.0, 5.0))
    slide = maps.slide_map(tmp_path, "s", table) | {"slide_id": nasty}
    maps.write_maps(tmp_path, [maps.case(nasty, [slide])], cohort=nasty)
    (page,) = write_pages(tmp_path)
    text = page.read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert content_of(text)["catalogue"]["slides"] == [nasty]


def test_a_large_picture_is_made_smaller_until_the_page_fits(tmp_path, monkeypatch):
    monkeypatch.setattr(offline, "LARGEST", 900_000)
    noise = np.random.default_rng(0).integers(0, 255, (2600, 2600, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "s.png")
    table = maps.patch_table("s", maps.blob(2, 2, 4), np.arange(1.0, 5.0))
    maps.write_maps(tmp_path / "m", [maps.case("A", [maps.slide_map(tmp_path / "m", "s", table)])])
    (page,) = write_pages(tmp_path / "m", SlideImages(tmp_path))
    text = page.read_text(encoding="utf-8")
    url = content_of(text)["slide"]["url"]
    assert url.startswith("data:image/jpeg;base64,")
    assert content_of(text)["slide"]["width"] == 2600
    assert len(text) < 2_000_000


def test_openseadragon_comes_with_its_licence():
    folder = files("gimp_fast.viewer").joinpath("static", "openseadragon")
    licence = folder.joinpath("LICENSE.txt").read_text(encoding="utf-8")
    assert "Redistributions in binary form must reproduce" in licence
    assert (
        folder.joinpath("openseadragon.min.js").read_text("utf-8").startswith("//! openseadragon")
    )
