"""Resolutions in the description of a TIFF, as OME's writers, Bio-Formats and ImageJ leave them."""

from __future__ import annotations

import numpy as np
import pytest

from gimp_fast.errors import FaultError
from gimp_fast.wsi import open_wsi
from gimp_fast.wsi.tiff_resolution import NONE, resolution_of

openslide = pytest.importorskip("openslide")
tifffile = pytest.importorskip("tifffile")

SIZE = (320, 256)
HEADER = (
    '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/'
    '2016-06" Creator="OME Bio-Formats 6.13.0">'
)


def ome(attributes: str, size=SIZE, prefix: str = "") -> str:
    pixels = f'<Pixels ID="P" SizeX="{size[0]}" SizeY="{size[1]}" Type="uint8" {attributes}/>'
    return f"{HEADER}{prefix}<Image ID='Image:0'>{pixels}</Image></OME>"


def sides(x, y=None, unit=None) -> str:
    y = x if y is None else y
    units = f' PhysicalSizeXUnit="{unit}" PhysicalSizeYUnit="{unit}"' if unit else ""
    return f'PhysicalSizeX="{x}" PhysicalSizeY="{y}"{units}'


@pytest.mark.parametrize(
    "attributes",
    [
        sides(0.25), sides(0.25, unit="µm"), sides(0.25, unit="μm"), sides(0.25, unit="&#181;m"),
        sides(0.25, unit="um"), sides(250, unit="nm"), sides("2.5E-4", unit="mm"),
        sides("0.000025", unit="cm"), sides("2.5e-7", unit="m"), sides(2500, unit="Å"),
    ],
)  # fmt: skip
def test_every_unit_of_length_is_read(attributes):
    (across, down), remark = resolution_of(ome(attributes), SIZE, NONE, None)
    assert (across, down) == pytest.approx((0.25, 0.25))
    assert remark == ""


def test_each_side_has_its_unit():
    text = 'PhysicalSizeX="0.25" PhysicalSizeY="250" PhysicalSizeYUnit="nm"'
    assert resolution_of(ome(text), SIZE, NONE, None)[0] == pytest.approx((0.25, 0.25))


def test_the_image_of_this_size_counts_and_not_the_label():
    label = f'<Image ID="L"><Pixels SizeX="90" SizeY="80" {sides(9)}/></Image>'
    text = ome(sides(0.25), prefix=label)
    assert resolution_of(text, SIZE, NONE, None)[0] == (0.25, 0.25)
    assert resolution_of(text, (5, 5), NONE, None)[0] == NONE


@pytest.mark.parametrize(
    ("text", "remark"),
    [
        (ome(sides(1, unit="pixel")), "PhysicalSizeX 1 in the unit 'pixel'"),
        (ome(""), ""),
        (ome(sides("abc")), ""),
        (ome(sides(0.25))[:-20], "OME-XML that cannot be read"),
        (f"<!DOCTYPE a [<!ENTITY b 'c'>]>{ome(sides(0.25))[38:]}", "a document type"),
    ],
    ids=["pixels", "none", "text", "cut", "entities"],
)
def test_without_a_length_in_the_xml_the_tags_count(text, remark):
    found, said = resolution_of(text, SIZE, (20_000.0, 20_000.0), 3)
    assert found == (0.5, 0.5)
    assert remark in said
    assert bool(said) == bool(remark)


@pytest.mark.parametrize(
    ("unit", "tags", "expected"),
    [
        ("micron", 4, 0.25), ("um", 4, 0.25), (r"\u00B5m", 4, 0.25), ("µm", 4, 0.25),
        ("nm", 0.004, 0.25), ("mm", 4000, 0.25), ("cm", 40_000, 0.25), ("inch", 101_600, 0.25),
    ],
)  # fmt: skip
def test_imagej_s_unit(unit, tags, expected):
    text = f"ImageJ=1.54f\nimages=1\nunit={unit}\nmin=0.0\n"
    found, remark = resolution_of(text, SIZE, (float(tags),) * 2, 1)
    assert found == pytest.approx((expected, expected))
    assert remark == ""


def test_imagej_s_pixels_are_no_length():
    found, remark = resolution_of("ImageJ=1.54f\nunit=pixel\n", SIZE, (1.0, 1.0), 1)
    assert found == NONE
    assert remark == "a resolution in ImageJ's unit 'pixel'"
    assert resolution_of("ImageJ=1.54f\n", SIZE, (4.0, 4.0), 1) == (NONE, "")
    assert resolution_of("ImageJ=1.54f\n", SIZE, (4e4, 4e4), 3)[0] == (0.25, 0.25)


def rgb() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*SIZE[::-1], 3), np.uint8)


def write_ome(path, levels: int, **facts) -> None:
    """As tifffile, QuPath and Bio-Formats write pyramids: levels are SubIFDs."""
    with tifffile.TiffWriter(path, ome=True) as out:
        layout = {"photometric": "rgb", "tile": (64, 64), "compression": "deflate"}
        out.write(rgb(), subifds=levels - 1, metadata={"axes": "YXS", **facts}, **layout)
        for level in range(1, levels):
            out.write(rgb()[:: 2**level, :: 2**level], subfiletype=1, **layout)


@pytest.mark.parametrize("levels", [1, 3])
@pytest.mark.parametrize(("size", "unit"), [(0.25, "µm"), (250, "nm"), (0.00025, "mm")])
def test_ome_tiffs_that_openslide_takes_for_plain_ones(tmp_path, levels, size, unit):
    path = tmp_path / "a.ome.tif"
    facts = {"PhysicalSizeX": size, "PhysicalSizeY": size}
    facts |= {"PhysicalSizeXUnit": unit, "PhysicalSizeYUnit": unit}
    write_ome(path, levels, **facts)
    assert openslide.OpenSlide.detect_format(path) == "generic-tiff"
    with open_wsi(path) as slide:
        assert slide.facts.mpp == pytest.approx(0.25)
        assert [level.downsample for level in slide.facts.levels] == [1, 2, 4][:levels]
        assert (slide.read(0, 0, 0, *SIZE) == rgb()).all()


def test_levels_that_tifffile_cannot_decode_leave_openslide_s(tmp_path, monkeypatch):
    write_ome(tmp_path / "a.ome.tif", 2, PhysicalSizeX=0.25, PhysicalSizeY=0.25)
    monkeypatch.setattr("gimp_fast.wsi.tiff_file.decodes", lambda page: False)
    with open_wsi(tmp_path / "a.ome.tif") as slide:
        assert slide.facts.reader == "openslide generic-tiff"
        assert slide.facts.mpp == 0.25
        assert (slide.read(0, 0, 0, *SIZE) == rgb()).all()


def test_the_largest_image_is_the_slide(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as out:
        small = {"axes": "YXS", "Name": "label", "PhysicalSizeX": 9.0, "PhysicalSizeY": 9.0}
        out.write(rgb()[:40, :50], photometric="rgb", metadata=small)
        facts = {"axes": "YXS", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25}
        out.write(rgb(), photometric="rgb", metadata=facts)
    with open_wsi(tmp_path / "a.ome.tif") as slide:
        assert (slide.facts.width, slide.facts.mpp) == (SIZE[0], 0.25)


@pytest.mark.parametrize("layout", [{"tile": (64, 64)}, {"rowsperstrip": 8}], ids=str)
@pytest.mark.parametrize("unit", ["micron", r"\u00B5m"])
def test_a_tiff_of_imagej(tmp_path, layout, unit):
    text = f"ImageJ=1.54f\nimages=1\nunit={unit}\n"
    tifffile.imwrite(
        tmp_path / "a.tif", rgb(), photometric="rgb", description=text, metadata=None,
        resolution=(4, 4), resolutionunit="NONE", **layout,
    )  # fmt: skip
    with open_wsi(tmp_path / "a.tif") as slide:
        assert slide.facts.mpp == 0.25


@pytest.mark.parametrize("layout", [{"tile": (64, 64)}, {"rowsperstrip": 8}], ids=str)
def test_xml_whose_entities_grow_is_never_expanded(tmp_path, layout, monkeypatch):
    entities = "".join(
        f'<!ENTITY e{n} "{(f"&e{n - 1};" if n else "laugh") * 10}">' for n in range(30)
    )
    text = f'<?xml version="1.0"?><!DOCTYPE OME [{entities}]><OME>&e29;</OME>'
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(
        path, rgb(), photometric="rgb", description=text, metadata=None, **layout,
    )  # fmt: skip
    monkeypatch.setattr("xml.etree.ElementTree.fromstring", None)  # tifffile's parser
    try:
        with open_wsi(path) as slide:
            found = slide.facts.remark
    except FaultError as error:
        found = str(error)
    assert "document type" in found
