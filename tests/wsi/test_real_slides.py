"""Two real slides of public test sets, checked against OpenSlide's own reading.

TCGA-CR-7395 (JPEG 2000, two levels, its resolution was not kept) and CMU-1-Small-Region (JPEG in
tiles of 240 pixels, one level).
"""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from PIL import Image

from gimp_fast.data.slides import open_slide
from gimp_fast.data.slides.scan import scan_slide
from gimp_fast.wsi.encoder import load_encoder
from gimp_fast.wsi.extraction import extract
from gimp_fast.wsi.options import EncoderOptions, ExtractOptions, GridOptions
from gimp_fast.wsi.resolution import read_overrides
from gimp_fast.wsi.slide_files import find_slides

CMU, TCGA = "cmu-1-small-region", "tcga-cr-7395-01a-01-ts1"
OVERRIDES = read_overrides("0.25", None)


@pytest.fixture(scope="module")
def made(real_slides, tmp_path_factory):
    """Features of random weights, and overlays; the outcome of each slide."""
    out = tmp_path_factory.mktemp("real")
    options = ExtractOptions(out=out, overrides=OVERRIDES, batch_size=16)
    encoder = load_encoder(EncoderOptions(random_weights=True))
    outcomes = list(extract(find_slides([real_slides]), options, encoder))
    return out, {outcome.slide_id: outcome for outcome in outcomes}


@pytest.mark.parametrize("slide_id", [CMU, TCGA])
def test_facts_are_openslide_s(real_slides, made, slide_id):
    import openslide

    out, outcomes = made
    assert outcomes[slide_id].status == "done"
    with (
        openslide.OpenSlide(real_slides / f"{slide_id}.svs") as slide,
        h5py.File(out / "h5_files" / f"{slide_id}.h5") as file,
    ):
        recorded = slide.properties.get("openslide.mpp-x")
        level0_mpp = float(recorded or 0.25)
        side = int(file.attrs["patch_size_level0"])
        assert file.attrs["level0_mpp"] == level0_mpp
        assert file.attrs["mpp"] == pytest.approx(level0_mpp * side / 256)
        assert file.attrs["mpp"] == pytest.approx(0.5, rel=0.01)
        assert file.attrs["mpp_source"] == (
            "mpp of the slide" if recorded else "--mpp-override 0.25"
        )
        said = file["coords"].attrs
        assert (said["level0_width"], said["level0_height"]) == slide.dimensions
        coords = file["coords"][:]
        assert (coords % side == 0).all()
        assert (coords < slide.dimensions).all()


@pytest.mark.parametrize(
    ("slide_id", "side", "level"), [(CMU, 256, 0), (TCGA, 512, 1)], ids=["cmu", "tcga"]
)
def test_patches_are_where_the_slide_is_coloured(real_slides, made, slide_id, side, level):
    """The count, from a plain look at every place of the grid through OpenSlide alone."""
    import openslide

    out, outcomes = made
    assert outcomes[slide_id].plan.level == level
    with open_slide(out / "h5_files" / f"{slide_id}.h5") as file:
        taken = {tuple(xy) for xy in file.coords().tolist()}
    sure, doubtful = set(), set()
    with openslide.OpenSlide(real_slides / f"{slide_id}.svs") as slide:
        width, height = slide.dimensions
        for y in range(0, height, side):
            for x in range(0, width, side):
                region = slide.read_region((x, y), 0, (side, side))
                white = Image.new("RGBA", region.size, (255, 255, 255, 255))
                small = Image.alpha_composite(white, region).convert("RGB").resize((8, 8), 4)
                pixels = np.asarray(small).astype(float)
                spread = pixels.max(-1) - pixels.min(-1)
                tissue = (255 * spread / pixels.max(-1) > 30).mean()
                if tissue > 0.5:
                    sure.add((x, y))
                elif tissue > 0.1:
                    doubtful.add((x, y))
    assert sure <= taken <= sure | doubtful
    assert len(sure) > 25


@pytest.mark.parametrize("slide_id", [CMU, TCGA])
def test_features_are_those_of_openslide_s_patches(real_slides, made, slide_id):
    import openslide

    out, outcomes = made
    plan = outcomes[slide_id].plan
    with open_slide(out / "h5_files" / f"{slide_id}.h5") as file:
        coords, features, info = file.coords(), file.read(), file.info
    assert features.shape == (len(coords), 1024)
    assert info.encoder == "RANDOM-WEIGHTS-resnet50_trunc-seed0"
    with openslide.OpenSlide(real_slides / f"{slide_id}.svs") as slide:
        whole = (coords + plan.size_level0 <= slide.dimensions).all(-1)
        rows = np.flatnonzero(whole)[::9]
        patches = [
            np.asarray(slide.read_region(tuple(xy), plan.level, (256, 256)).convert("RGB"))
            for xy in coords[rows].tolist()
        ]
    expected = load_encoder(EncoderOptions(random_weights=True))(np.stack(patches))
    np.testing.assert_allclose(features[rows], expected, rtol=1e-3, atol=1e-3)


def test_the_package_s_own_checks_pass(made):
    out, _ = made
    for path in sorted((out / "h5_files").iterdir()):
        scan = scan_slide(path)
        assert scan.faults == ()
        assert scan.info.mpp == pytest.approx(0.5, rel=0.01)


def test_overlays_are_pictures(made):
    out, _ = made
    for name in (CMU, TCGA):
        with Image.open(out / "overlays" / f"{name}.png") as picture:
            assert max(picture.size) >= 1000


def test_a_slide_without_a_resolution_is_a_fault(real_slides, tmp_path):
    outcome = next(extract([real_slides / f"{TCGA}.svs"], ExtractOptions(out=tmp_path), None))
    assert [fault.kind for fault in outcome.faults] == ["resolution-unknown"]


def test_half_the_magnification_gives_a_quarter_of_the_patches(real_slides, tmp_path):
    options = ExtractOptions(out=tmp_path, grid=GridOptions(target_mpp=1.0), overrides=OVERRIDES)
    outcomes = list(extract(find_slides([real_slides]), options, None))
    assert [outcome.plan.size_level0 for outcome in outcomes] == [512, 1024]
    assert all(10 <= outcome.patches <= 16 for outcome in outcomes)


@pytest.mark.parametrize("slide_id", [CMU])
def test_tifffile_reads_the_same_pixels_where_it_has_the_codec(real_slides, slide_id):
    pytest.importorskip("imagecodecs")
    from gimp_fast.wsi import open_wsi
    from gimp_fast.wsi.tiff_file import TiffSlide

    path = real_slides / f"{slide_id}.svs"
    with open_wsi(path) as one, TiffSlide(path) as other:
        assert other.facts.levels == one.facts.levels
        assert (other.facts.mpp, other.facts.magnification) == (0.499, 20)
        a, b = (slide.read(700, 1000, 0, 300, 300).astype(int) for slide in (one, other))
    # Two JPEG decoders differ by rounding.
    assert np.abs(a - b).max() <= 4


def test_real_coordinates_of_clam_are_read(real_data):
    from gimp_fast.wsi.feature_file import read_coords

    files = sorted((real_data / "clam_coords").glob("*.h5"))
    assert files
    for path in files:
        coords, said = read_coords(path)
        assert coords.shape[1] == 2
        assert said["patch_size"] >= 256
