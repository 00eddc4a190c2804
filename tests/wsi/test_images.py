"""Folders of slide images: which file is whose, and what is read of it."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from gimp_fast.errors import GimpError
from gimp_fast.wsi.images import SlideImages


@pytest.fixture
def folder(tmp_path):
    """A picture whose pixels tell their place, in a subfolder."""
    rows, columns = np.mgrid[0:40, 0:80]
    pixels = np.stack([columns, rows, np.zeros_like(rows)], -1).astype(np.uint8)
    (tmp_path / "batch").mkdir()
    Image.fromarray(pixels).save(tmp_path / "batch" / "TCGA-05.0a1b-uuid.png")
    return tmp_path


@pytest.mark.parametrize("slide_id", ["TCGA-05", "TCGA-05.0a1b-uuid", "TCGA-05.another-uuid"])
def test_a_slide_is_found_with_and_without_its_uuid(folder, slide_id):
    images = SlideImages(folder)
    image = images.open(slide_id)
    assert (image.size, image.mpp) == ((80, 40), None)
    image.close()
    assert images.open("TCGA-06") is None


def test_files_of_the_mac_are_no_images(folder):
    (folder / "batch" / "._TCGA-05.0a1b-uuid.png").write_bytes(b"Mac OS X")
    (folder / "batch" / "._TCGA-06.png").write_bytes(b"Mac OS X")
    images = SlideImages(folder)
    images.open("TCGA-05").close()
    assert images.open("TCGA-06") is None
    assert images.open("._TCGA-06") is None


def test_what_is_read_of_a_picture(folder):
    image = SlideImages(folder).open("TCGA-05")
    assert image.thumbnail(20).shape == (10, 20, 3)
    region = image.region(30, 10, 8, 8)
    assert region[0, 0].tolist() == [30, 10, 0]
    assert region[7, 7].tolist() == [37, 17, 0]
    assert (image.region(100, 100, 8, 4) == 255).all()
    image.close()


def test_folders_and_files_that_cannot_be_used_are_named(tmp_path):
    with pytest.raises(GimpError, match="nowhere: found no such folder"):
        SlideImages(tmp_path / "nowhere")
    with pytest.raises(GimpError, match=r"found no slide image; expected \.svs"):
        SlideImages(tmp_path)
    (tmp_path / "a.png").write_bytes(b"not a picture")
    with pytest.raises(GimpError, match=r"a\.png: cannot be read as a picture"):
        SlideImages(tmp_path).open("a")
