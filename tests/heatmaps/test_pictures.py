"""Pictures of heatmaps: a patch is drawn where it lies, whatever the number and size of patches."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from PIL import Image

from gimp_fast.errors import GimpError
from gimp_fast.heatmaps.draw_slide import SlideMap, colour_steps, write_montage, write_overlay
from gimp_fast.heatmaps.gene_maps import write_gene_bars
from gimp_fast.heatmaps.places import PatchPlaces
from gimp_fast.heatmaps.raster import LONGEST, Canvas, blend, rasterise, resample
from gimp_fast.heatmaps.scales import ColourScale
from gimp_fast.report import write_report


def pixel_of(canvas, point):
    x, y = (np.asarray(point, float) - (canvas.left, canvas.top)) * canvas.scale
    return int(y), int(x)


@pytest.mark.parametrize("size", [1.0, 64.0, 256.0, 1000.0])
@pytest.mark.parametrize("side", [1, 3, 40, 300])
def test_every_patch_has_its_value_at_its_centre(side, size):
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2)
    grid = rng.permutation(grid)[: max(1, len(grid) // 2)] * size + 5000.0
    canvas = Canvas.around(grid, size)
    values = rng.uniform(0, 100, len(grid)).astype(np.float32)
    raster = rasterise(canvas, grid, size, values)
    assert max(raster.shape) <= LONGEST + 1
    found = [raster[pixel_of(canvas, corner + size / 2)] for corner in grid]
    np.testing.assert_allclose(found, values, rtol=1e-5)
    assert np.isnan(raster[0, 0])


def test_patches_that_overlap_give_their_mean():
    coords = np.array([[0.0, 0.0], [50.0, 0.0]])
    canvas = Canvas.around(coords, 100.0)
    raster = rasterise(canvas, coords, 100.0, np.array([10.0, 30.0]))
    assert raster[pixel_of(canvas, (25, 50))] == 10
    assert raster[pixel_of(canvas, (75, 50))] == 20
    assert raster[pixel_of(canvas, (125, 50))] == 30


def test_two_patches_far_apart_are_both_seen():
    coords = np.array([[0.0, 0.0], [1e6, 1e6]])
    canvas = Canvas.around(coords, 10.0)
    assert np.isfinite(rasterise(canvas, coords, 10.0, np.array([1.0, 2.0]))).sum() == 2


def test_the_slide_lies_under_its_patches():
    """A thumbnail at a fourth of level 0 whose pixels tell where they are from."""
    rows, columns = np.mgrid[0:100, 0:200]
    image = np.stack([columns, rows, np.zeros_like(rows)], -1).astype(np.uint8)
    canvas = Canvas.around(np.array([[400.0, 80.0], [500.0, 200.0]]), 20.0)
    ground = resample(image, canvas, (800, 400))
    for x, y in ((405, 85), (519, 219), (450, 150)):
        red, green, _ = ground[pixel_of(canvas, (x, y))] * 255
        assert abs(red - x / 4) <= 1
        assert abs(green - y / 4) <= 1
    beyond = resample(image, Canvas(-50.0, -50.0, 1.0, 20, 20), (800, 400))
    assert (beyond == 1).all()


def test_blending_leaves_the_ground_where_nothing_is():
    ground = np.full((1, 3, 3), 0.5)
    mixed = blend(ground, np.array([[np.nan, 0.0, 100.0]]), colour_steps())
    assert (mixed[0, 0] == 0.5).all()
    top = colour_steps()[-1]
    np.testing.assert_allclose(mixed[0, 2], 0.5 * (1 - top[3]) + top[:3] * top[3])


class GreySlide:
    """An image of 1100 × 600 pixels."""

    size, mpp, bounds = (1100, 600), 0.5, None

    def thumbnail(self, longest):
        return np.full((60, 110, 3), 200, np.uint8)


def slide_map(count=50, unit="px", **changes) -> SlideMap:
    coords = np.stack(np.divmod(np.arange(count), 10), 1) * 100.0
    facts = {
        "heading": "_S $x$\nCASE: predicted A (0.9)", "attribution": "attention",
        "places": PatchPlaces(None, coords, 100.0, unit),
        "values": np.linspace(0, 100, count), "top": np.arange(count)[::-1][:5],
        "scale": ColourScale("percentile", "label", (0.0, 100.0), ("low", "high")),
    }  # fmt: skip
    return SlideMap(**(facts | changes))


@pytest.mark.parametrize(
    "changes",
    [{}, {"image": GreySlide()}, {"unit": "um"}, {"count": 1}, {"top": np.arange(0)}],
    ids=["grey", "slide", "micrometres", "one patch", "no boxes"],
)
def test_overlay_and_thumbnail_are_pictures(tmp_path, changes):
    write_overlay(slide_map(**changes), tmp_path / "map.png", tmp_path / "small.png")
    with Image.open(tmp_path / "map.png") as whole, Image.open(tmp_path / "small.png") as small:
        assert whole.width > 500
        assert max(small.size) <= 360


@pytest.mark.parametrize(
    ("unit", "mpp", "size", "expected"),
    [
        ("px", 0.5, 1000.0, "1 mm"), ("px", 0.25, 256.0, "100 µm"), ("um", None, 128.0, "200 µm"),
        ("px", None, 256.0, "500 px"),
    ],
)  # fmt: skip
def test_the_scale_bar_has_a_round_length(tmp_path, monkeypatch, unit, mpp, size, expected):
    texts = []
    original = Axes.text
    monkeypatch.setattr(Axes, "text", lambda *a, **k: texts.append(a[3]) or original(*a, **k))
    coords = np.stack(np.divmod(np.arange(100), 10), 1) * size
    places = PatchPlaces(None, coords, size, unit, (), mpp)
    drawn = slide_map(100, places=places)
    write_overlay(drawn, tmp_path / "map.png", tmp_path / "small.png")
    assert expected in texts


def test_montage_and_gene_bars_are_pictures(tmp_path):
    tiles = [np.full((20, 20, 3), shade, np.uint8) for shade in range(0, 100, 20)]
    write_montage(tiles, ["#1"] * 5, "title", tmp_path / "top.png")
    fragments, genes = pd.Series({"g: _A … $B$": 1.0}), pd.Series({"A": 1.0, "B": -1.0})
    write_gene_bars("title", fragments, genes, tmp_path / "genes.png")
    assert all(f.read_bytes().startswith(b"\x89PNG") for f in tmp_path.glob("*.png"))


def heatmaps(run, folders=("a slide",)):
    """What `gimp-fast heatmap` leaves of the first cases of a run."""
    cases = [line.split(",")[0] for line in (run / "predictions.csv").read_text().splitlines()[1:]]
    patients = []
    for case, folder in zip(cases, folders, strict=False):
        (run / "heatmaps" / folder).mkdir(parents=True)
        files = {"overlay": "overlay.png", "thumbnail": "thumbnail.png"}
        for name in files.values():
            Image.new("RGB", (8, 8), "red").save(run / "heatmaps" / folder / name)
        slides = [{"slide_id": folder, "folder": folder, "files": files}]
        genes = {"folder": f"genes/{case}", "files": {"figure": "genes.png"}}
        patients.append({"case_id": case, "slides": slides, "genes": genes})
    summary = {"attribution": "attention", "patients": patients}
    (run / "heatmaps" / "heatmaps.json").write_text(json.dumps(summary))
    return cases


def test_the_page_links_maps_and_shows_the_first_few(make_run):
    run = make_run()
    folders = [f"slide {number}%20" for number in range(8)]
    heatmaps(run, folders)
    html = write_report(run).read_text(encoding="utf-8")
    assert html.count("data:image/png;base64,") == 6
    assert html.count('/overlay.png"') == 8 + 6
    assert 'href="heatmaps/slide%200%2520/overlay.png"' in html
    assert "genes/genes.png" not in html
    assert html.count('/genes.png"') == 8


def test_the_page_says_which_maps_are_flat(make_run):
    run = make_run()
    heatmaps(run, ["one", "two"])
    file = run / "heatmaps" / "heatmaps.json"
    summary = json.loads(file.read_text())
    for patient, highest in zip(summary["patients"], (1.002, 7.0), strict=True):
        patient["attention"] = {"highest_times_even": highest, "flat": highest < 1.5}
    summary["colours"] = "multiples of an even share"
    file.write_text(json.dumps(summary))
    html = write_report(run).read_text(encoding="utf-8")
    assert html.count("effectively flat: the highest patch has 1.002 times an even share") == 1
    assert html.count("effectively flat") == 1
    assert "multiples of an even share" in html


@pytest.mark.parametrize(
    ("folder", "thumbnail"), [("../..", "secret.png"), ("one", "../../secret.png"), ("/", "x")]
)
def test_the_page_embeds_no_file_from_elsewhere(make_run, folder, thumbnail):
    run = make_run()
    heatmaps(run, ["one"])
    Image.new("RGB", (8, 8), "blue").save(run / "secret.png")
    file = run / "heatmaps" / "heatmaps.json"
    summary = json.loads(file.read_text())
    slide = summary["patients"][0]["slides"][0]
    slide |= {"folder": folder, "files": slide["files"] | {"thumbnail": thumbnail}}
    file.write_text(json.dumps(summary))
    with pytest.raises(GimpError, match=r"heatmaps\.json: found the file .* \[outside-file\]"):
        write_report(run)


@pytest.mark.parametrize("text", ["", "[1]", '{"patients": []}', '{"patients": 1}'])
def test_a_damaged_or_empty_summary_leaves_the_page_without_maps(make_run, text):
    run = make_run()
    (run / "heatmaps").mkdir()
    (run / "heatmaps" / "heatmaps.json").write_text(text)
    html = write_report(run).read_text(encoding="utf-8")
    assert "Heatmaps" not in html
    assert "with maps" not in html
