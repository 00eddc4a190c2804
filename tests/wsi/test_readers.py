"""OpenSlide, tifffile, and files that are none."""

from __future__ import annotations

import contextlib
import subprocess
import sys

import numpy as np
import pytest
from builders.slides import slide_facts

from gimp_fast.errors import FaultError, GimpError
from gimp_fast.wsi import open_wsi

pytest.importorskip("openslide")
tifffile = pytest.importorskip("tifffile")


def random_rgb(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def kinds(caught) -> list[str]:
    return [fault.kind for fault in caught.value.faults]


def test_openslide_gives_facts_and_pixels(slide_file):
    path = slide_file(mpp=0.25, downsamples=(1, 2))
    with open_wsi(path) as slide:
        assert slide.facts.reader == "openslide generic-tiff"
        assert slide.facts.mpp == pytest.approx(0.25)
        assert [level.width for level in slide.facts.levels] == [2048, 1024]
        whole = tifffile.imread(path, level=0)
        region = slide.read(500, 400, 0, 100, 120)
        assert region.shape == (120, 100, 3)
        assert (region == whole[400:520, 500:600]).all()


@pytest.mark.parametrize(
    "layout",
    [
        {"tile": (64, 48)},
        {"rowsperstrip": 7},
        {"rowsperstrip": 200},
        {"tile": (64, 48), "compression": "deflate"},
        {"rowsperstrip": 7, "compression": "deflate", "predictor": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("channels", [3, 4])
def test_tifffile_reads_any_region(tmp_path, layout, channels):
    from gimp_fast.wsi.tiff_file import TiffSlide

    rgb = np.dstack([random_rgb(150, 131), np.full((150, 131), 255, np.uint8)])[..., :channels]
    extra = {"extrasamples": ["unassalpha"]} if channels == 4 else {}
    tifffile.imwrite(tmp_path / "a.tif", rgb, photometric="rgb", **layout, **extra)
    padded = np.full((400, 400, 3), 255, np.uint8)
    padded[100:250, 100:231] = rgb[..., :3]
    with TiffSlide(tmp_path / "a.tif") as slide:
        for x, y, w, h in [(0, 0, 131, 150), (50, 60, 1, 1), (47, 63, 3, 2), (120, 140, 64, 64),
                           (-20, -30, 70, 80), (131, 150, 5, 5), (-50, 10, 300, 20),
                           (140, 20, 9, 9), (20, 160, 9, 9), (-90, -90, 9, 9)]:  # fmt: skip
            expected = padded[100 + y : 100 + y + h, 100 + x : 100 + x + w]
            assert (slide.read(x, y, 0, w, h) == expected).all(), (x, y, w, h)


def test_both_readers_see_the_same_pyramid(slide_file):
    from gimp_fast.wsi.tiff_file import TiffSlide

    # In OpenSlide's own format levels are pages; tifffile shows them as levels of a series.
    path = slide_file(downsamples=(1, 2))
    with open_wsi(path) as one, TiffSlide(path) as other:
        assert other.facts.mpp == pytest.approx(one.facts.mpp)
        assert (one.read(640, 512, 0, 64, 64) == other.read(640, 512, 0, 64, 64)).all()


def test_tifffile_reads_levels_of_subifds(tmp_path):
    from gimp_fast.wsi.tiff_file import TiffSlide

    rgb = random_rgb(256, 320)
    small = rgb[::2, ::2]
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as out:
        facts = {"axes": "YXS", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25}
        out.write(rgb, photometric="rgb", tile=(64, 64), subifds=1, metadata=facts)
        out.write(small, photometric="rgb", tile=(64, 64), subfiletype=1)
    with TiffSlide(tmp_path / "a.ome.tif") as slide:
        assert slide.facts.mpp == 0.25
        assert [level.downsample for level in slide.facts.levels] == [1, 2]
        assert (slide.read(64, 32, 1, 50, 40) == small[16:56, 32:82]).all()


def test_a_cache_of_tiles_is_bounded(tmp_path, monkeypatch):
    from gimp_fast.wsi import tiff_file

    monkeypatch.setattr(tiff_file, "CACHE_BYTES", 3 * 64 * 64 * 3)
    rgb = random_rgb(512, 512)
    tifffile.imwrite(tmp_path / "a.tif", rgb, photometric="rgb", tile=(64, 64))
    with tiff_file.TiffSlide(tmp_path / "a.tif") as slide:
        for _ in range(2):
            assert (slide.read(0, 0, 0, 512, 512) == rgb).all()
        assert slide._tile.cache_info().currsize == 3


def test_an_aperio_description_is_understood(tmp_path):
    from gimp_fast.wsi.tiff_file import TiffSlide

    header = "Aperio Image Library v11\r\n64x64 |AppMag = 40|StripeWidth = 2040|MPP = 0.2498"
    rgb = random_rgb(64, 64)
    tifffile.imwrite(tmp_path / "a.svs", rgb, photometric="rgb", description=header, metadata=None)
    with TiffSlide(tmp_path / "a.svs") as slide:
        assert (slide.facts.mpp, slide.facts.magnification) == (0.2498, 40)


def test_72_dpi_is_no_resolution(tmp_path):
    from gimp_fast.wsi.tiff_file import TiffSlide

    rgb = random_rgb(64, 64)
    tifffile.imwrite(
        tmp_path / "a.tif", rgb, photometric="rgb", resolution=(72, 72), resolutionunit="INCH"
    )
    with TiffSlide(tmp_path / "a.tif") as slide:
        assert slide.facts.mpp is None
        assert "352.778 × 352.778 µm" in slide.facts.remark


def test_what_was_never_scanned_is_white():
    from PIL import Image

    from gimp_fast.wsi.openslide_file import over_white

    pixels = np.array([[[10, 20, 30, 255], [0, 0, 0, 0], [100, 0, 200, 51]]], np.uint8)
    expected = [[[10, 20, 30], [255, 255, 255], [224, 204, 244]]]
    assert over_white(Image.fromarray(pixels, "RGBA")).tolist() == expected


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.svs", b"", "unknown-format"),
        ("a.svs", b"no slide", "unknown-format"),
        ("a.tif", b"II*\0\x08\0\0\0", "unreadable-slide"),
        ("a.tif", b"II*\0" + bytes(100), "unreadable-slide"),
        ("a.ndpi", bytes(1000), "unknown-format"),
    ],
)
def test_what_is_no_slide_is_named(tmp_path, name, content, kind):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FaultError, match=name) as caught:
        open_wsi(tmp_path / name)
    assert kinds(caught) == [kind]


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FaultError, match="no such file"):
        open_wsi(tmp_path / "a.svs")


def read_all(path) -> None:
    with open_wsi(path) as slide:
        for x in range(0, min(slide.facts.width, 4096), 256):
            for y in range(0, min(slide.facts.height, 4096), 256):
                slide.read(x, y, 0, 256, 256)


@pytest.mark.parametrize("part", [0.1, 0.3, 0.6, 0.9])
@pytest.mark.parametrize(
    "layout", [{}, {"tile": None, "downsamples": (1,)}], ids=["tiles", "strips"]
)
def test_a_truncated_slide_fails_by_name(slide_file, layout, part):
    path = slide_file(**layout)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(FaultError, match=r"slide\.tif") as caught:
        read_all(path)
    assert kinds(caught) == ["unreadable-slide"]


@pytest.mark.parametrize("seed", range(40))
def test_damaged_slides_fail_as_faults_or_not_at_all(slide_file, seed):
    rng = np.random.default_rng(seed)
    path = slide_file(size=(600, 500), tissue=[(0, 0, 300, 300)], tile=(None, 128)[seed % 2])
    data = bytearray(path.read_bytes())
    for place in rng.integers(0, len(data), 30):
        data[place] = rng.integers(256)
    path.write_bytes(data)
    with contextlib.suppress(FaultError):
        read_all(path)


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (np.zeros((64, 64), np.uint8), r"\(64, 64\)"),
        (np.zeros((64, 64, 3), np.uint16), "uint16"),
    ],
    ids=["grey", "16 bits"],
)
def test_pixels_must_be_rgb_of_8_bits(tmp_path, array, found):
    tifffile.imwrite(tmp_path / "a.tif", array)
    with pytest.raises(FaultError, match=found) as caught:
        open_wsi(tmp_path / "a.tif")
    assert kinds(caught) == ["pixel-format"]


def test_without_a_reader_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (tmp_path / "a.svs").write_bytes(b"x")
    with pytest.raises(GimpError, match=r"gimp-fast\[wsi\]"):
        open_wsi(tmp_path / "a.svs")


def test_the_level_for_a_downsample_is_the_coarsest_that_is_fine_enough():
    facts = slide_facts(downsamples=(1, 4.0001, 16.01, 32.02))
    found = [facts.level_for(n) for n in (0.5, 1, 2, 4, 15.9, 16, 31, 32, 1000)]
    assert found == [0, 0, 0, 1, 2, 2, 2, 3, 3]


def test_the_options_import_neither_a_reader_nor_numpy():
    code = "import sys, gimp_fast.wsi; print({'openslide', 'tifffile', 'torch'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
