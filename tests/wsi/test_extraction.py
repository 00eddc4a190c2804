"""From slides to feature files, with an encoder that costs nothing."""

from __future__ import annotations

import re
import threading
import unittest.mock
from dataclasses import replace

import h5py
import numpy as np
import pytest
from builders.slides import MeanColour

from gimp_fast.data.slides import open_slide
from gimp_fast.wsi import extraction, open_wsi
from gimp_fast.wsi.extraction import Outcome, extract
from gimp_fast.wsi.options import ExtractOptions, GridOptions, TissueOptions
from gimp_fast.wsi.resolution import read_overrides

pytest.importorskip("openslide")
tifffile = pytest.importorskip("tifffile")

COORDS = [[x, y] for y in (512, 768, 1024) for x in (512, 768, 1024, 1280)]


@pytest.fixture
def options(tmp_path) -> ExtractOptions:
    return ExtractOptions(out=tmp_path / "out", batch_size=5, workers=2, overlay=False)


def run(slides, options, encoder) -> list[Outcome]:
    return list(extract(slides, options, encoder))


def one(path, options, encoder) -> Outcome:
    return run([path], options, encoder)[0]


def kinds(outcome: Outcome) -> list[str]:
    return [fault.kind for fault in outcome.faults]


def test_features_are_those_of_the_patches_at_their_coordinates(slide_file, options, mean_colour):
    path = slide_file()
    outcome = one(path, options, mean_colour)
    assert (outcome.status, outcome.patches, outcome.faults) == ("done", 12, ())
    whole = tifffile.imread(path, level=0)
    expected = [whole[y : y + 256, x : x + 256].reshape(-1, 3).mean(0) for x, y in COORDS]
    with open_slide(options.out / "h5_files" / "slide.h5") as slide:
        assert slide.coords().tolist() == COORDS
        np.testing.assert_allclose(slide.read()[:, :3], expected, rtol=1e-6)
        assert slide.info.encoder == "mean-colour"
        assert slide.info.mpp == pytest.approx(0.5)
        assert slide.info.patch_order == "row"


@pytest.mark.parametrize(
    ("mpp", "downsamples", "side"), [(0.25, (1,), 512), (0.25, (1, 2), 512), (0.33, (1,), 388)]
)
def test_patches_cover_the_same_micrometres_at_any_scan(
    slide_file, options, mean_colour, mpp, downsamples, side
):
    path = slide_file(mpp=mpp, downsamples=downsamples, tissue=[(0, 0, 1536, 1536)])
    outcome = one(path, options, mean_colour)
    assert outcome.plan.size_level0 == side
    assert outcome.plan.level == len(downsamples) - 1
    with h5py.File(options.out / "h5_files" / "slide.h5") as file:
        assert (file["coords"][:] % side == 0).all()
        assert file.attrs["mpp"] == pytest.approx(0.5, rel=0.01)
        assert file.attrs["level0_mpp"] == pytest.approx(mpp)
        assert file["coords"].attrs["patch_size_level0"] == side
        whole = tifffile.imread(path, level=0)
        x, y = file["coords"][0]
        mean = whole[y : y + side, x : x + side].reshape(-1, 3).mean(0)
        np.testing.assert_allclose(file["features"][0, :3], mean, atol=1)


def test_a_level_0_of_40x_gives_as_many_patches_as_20x(slide_file, options, mean_colour):
    box = (512, 512, 1536, 1280)
    single = slide_file("a.tif", mpp=0.5, tissue=[box])
    double = slide_file(
        "b.tif", mpp=0.25, size=(4096, 3584), tissue=[tuple(2 * side for side in box)]
    )
    assert [o.patches for o in run([single, double], options, mean_colour)] == [12, 12]


def test_a_bad_slide_does_not_stop_the_others(slide_file, options, mean_colour):
    slides = [
        slide_file("good-1.tif"),
        slide_file("blank.tif", tissue=[]),
        slide_file("no-mpp.tif", mpp=None),
        slide_file("tiny.tif", size=(16, 16), tissue=[(0, 0, 16, 16)], tile=16),
        slide_file("coarse.tif", mpp=2.0),
        slide_file("cut.tif"),
        slide_file("no-slide.tif"),
        slide_file("good-2.tif"),
    ]
    data = slides[5].read_bytes()
    slides[5].write_bytes(data[: len(data) // 2])
    slides[6].write_bytes(b"no slide")
    outcomes = run(slides, options, mean_colour)
    assert [outcome.status for outcome in outcomes] == ["done", *["failed"] * 6, "done"]
    assert [kinds(outcome) for outcome in outcomes[1:-1]] == [
        ["no-tissue"], ["resolution-unknown"], ["slide-too-small"], ["resolution-too-low"],
        ["unreadable-slide"], ["unknown-format"],
    ]  # fmt: skip
    written = sorted(path.name for path in (options.out / "h5_files").iterdir())
    assert written == ["good-1.h5", "good-2.h5"]


def test_a_blank_slide_is_drawn_so_that_one_can_see_why(slide_file, options, mean_colour):
    outcome = one(slide_file(tissue=[]), replace(options, overlay=True), mean_colour)
    assert kinds(outcome) == ["no-tissue"]
    assert (options.out / "overlays" / "slide.png").is_file()


def test_a_resolution_from_the_user(slide_file, options, mean_colour):
    options = replace(options, overrides=read_overrides("0.5", None))
    outcome = one(slide_file(mpp=None), options, mean_colour)
    assert (outcome.patches, outcome.plan.mpp_source) == (12, "--mpp-override 0.5")


class Never(MeanColour):
    """An encoder that must not be called."""

    def __call__(self, patches):
        raise AssertionError("a finished slide was made again")


def test_finished_slides_are_skipped(slide_file, options, mean_colour):
    path = slide_file()
    one(path, options, mean_colour)
    before = (options.out / "h5_files" / "slide.h5").stat()
    outcome = one(path, options, Never())
    assert (outcome.status, outcome.patches) == ("present", 12)
    after = (options.out / "h5_files" / "slide.h5").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"grid": GridOptions(min_tissue=0.5)}, "grid.min_tissue 0.25 (now 0.5)"),
        ({"tissue": TissueOptions(skip_pens=False)}, "tissue.skip_pens True (now False)"),
    ],
    ids=["min_tissue", "pens"],
)
def test_a_file_of_other_settings_is_not_finished(slide_file, options, mean_colour, change, named):
    path = slide_file()
    one(path, options, mean_colour)
    outcome = one(path, replace(options, **change), Never())
    assert kinds(outcome) == ["other-settings"]
    assert outcome.faults[0].found == named
    assert one(path, replace(options, overwrite=True, **change), mean_colour).status == "done"


def table_of(path, text) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_resolution_for_one_slide_leaves_the_finished_ones(slide_file, options, mean_colour):
    slides = [slide_file("a.tif"), slide_file("b.tif", mpp=None)]
    first, second = run(slides, options, mean_colour)
    assert (first.status, kinds(second)) == ("done", ["resolution-unknown"])
    given = replace(options, overrides=read_overrides(None, "20"))
    assert [o.status for o in run(slides, given, mean_colour)] == ["present", "done"]
    assert [o.status for o in run(slides, given, Never())] == ["present", "present"]
    # Without it, nobody says another resolution.
    assert [o.status for o in run(slides, options, Never())] == ["present", "present"]
    other = replace(options, overrides=read_overrides("0.4", None))
    first, second = run(slides, other, Never())
    assert (first.status, kinds(second)) == ("present", ["other-settings"])
    assert "0.5 µm per pixel of level 0 from --magnification-override 20 (now 0.4)" in (
        second.faults[0].found
    )


@pytest.mark.parametrize(("mpp", "status"), [(0.5, "present"), (0.4, "failed")])
def test_a_table_of_resolutions_counts_for_the_slides_in_it(
    slide_file, options, mean_colour, tmp_path, mpp, status
):
    slides = [slide_file("a.tif"), slide_file("b.tif")]
    run(slides, options, mean_colour)
    table = table_of(tmp_path / "mpp.csv", f"slide_id,mpp\na,{mpp}\n")
    given = replace(options, overrides=read_overrides(table, None))
    assert [o.status for o in run(slides, given, Never())] == [status, "present"]


def test_a_value_for_a_slide_that_a_table_had_is_compared_with_its_own(
    slide_file, options, mean_colour, tmp_path
):
    """The table replaced a recorded 0.5; a number does not replace it."""
    path = slide_file()
    table = table_of(tmp_path / "mpp.csv", "slide_id,mpp\nslide,0.4\n")
    one(path, replace(options, overrides=read_overrides(table, None)), mean_colour)
    outcome = one(path, replace(options, overrides=read_overrides("0.4", None)), Never())
    assert kinds(outcome) == ["other-settings"]
    assert "(now 0.5)" in outcome.faults[0].found


def test_an_odd_resolution_is_used_with_a_caution(slide_file, options, mean_colour):
    given = replace(options, overrides=read_overrides("0.05", None))
    outcome = one(slide_file(mpp=None, tissue=[(0, 0, 2048, 1792)]), given, mean_colour)
    # 0.05 is ten times too small: a patch of 128 µm would be 2,560 pixels.
    assert kinds(outcome) == ["slide-too-small"]
    given = replace(given, grid=GridOptions(0.1), tissue=TissueOptions(min_part_um2=0))
    outcome = one(slide_file("b.tif", mpp=None), given, mean_colour)
    assert outcome.status == "done"
    assert "0.05 µm per pixel (--mpp-override 0.05) is unusual" in outcome.cautions[0]
    outcome = one(slide_file("c.tif", mpp=0.05), options, mean_colour)
    assert kinds(outcome) == ["resolution-unknown"]
    assert "0.05 × 0.05 µm per pixel, which is implausible" in outcome.faults[0].found


PALE, PEN = (236, 222, 233), (20, 60, 160)


@pytest.mark.parametrize("pen", [PEN, (20, 20, 20), (30, 140, 60), (200, 25, 35), (70, 110, 215)])
def test_pale_tissue_beside_a_pen_is_found_and_the_pen_is_not(options, mean_colour, tmp_path, pen):
    outcome = one(painted(tmp_path / "a.tif", PALE, pen), options, mean_colour)
    assert outcome.status == "done"
    with open_slide(options.out / "h5_files" / "a.h5") as slide:
        found = {tuple(xy) for xy in slide.coords().tolist()}
    assert found == {(x, y) for x in range(256, 1024, 256) for y in range(256, 1024, 256)}
    assert 1 < outcome.tissue.pens / (300 * 1336 / 1536**2) < 1.6  # with its rim


def test_pale_tissue_beside_what_is_no_pen_is_named(options, mean_colour, tmp_path):
    """A violet smear lifts the threshold above the tissue."""
    outcome = one(painted(tmp_path / "a.tif", PALE, (120, 40, 150)), options, mean_colour)
    assert any("--saturation 8 takes them" in caution for caution in outcome.cautions)
    lower = replace(options, tissue=TissueOptions(saturation=8), overwrite=True)
    outcome = one(tmp_path / "a.tif", lower, mean_colour)
    assert outcome.patches >= 9
    assert outcome.cautions == ()


def test_tissue_in_small_parts_alone_says_what_would_keep_it(options, mean_colour, slide_file):
    path = slide_file(tissue=[(600, 600, 900, 900)])
    outcome = one(path, options, mean_colour)
    least = re.search(r"--min-part ([\d.]+), for this slide alone", outcome.faults[0].expected)
    kept = TissueOptions(min_part_um2=float(least[1]) * 1e6)
    assert one(path, replace(options, tissue=kept), mean_colour).status == "done"


def painted(path, tissue, stroke):
    """A slide of 1536 pixels with a square of tissue and a broad stroke."""
    pixels = np.full((1536, 1536, 3), 243, np.uint8)
    pixels[256:1024, 256:1024] = tissue
    pixels[1150:1450, 100:1436] = stroke
    pixels += np.random.default_rng(0).integers(0, 5, pixels.shape, np.uint8)
    tifffile.imwrite(
        path, pixels, tile=(256, 256), photometric="rgb", metadata=None, resolution=(2e4, 2e4),
        resolutionunit="CENTIMETER",
    )  # fmt: skip
    return path


def test_files_that_something_else_made_are_kept(slide_file, options, mean_colour):
    target = options.out / "h5_files" / "slide.h5"
    target.parent.mkdir(parents=True)
    with h5py.File(target, "w") as file:
        file["features"] = np.zeros((2, 4), np.float32)
    outcome = one(slide_file(), options, mean_colour)
    assert kinds(outcome) == ["other-settings"]
    with h5py.File(target) as file:
        assert file["features"].shape == (2, 4)


def test_batch_size_and_threads_change_no_feature(slide_file, options, mean_colour):
    path, made = slide_file(), []
    for batch_size, workers in ((1, 1), (5, 3), (64, 2)):
        changed = replace(options, batch_size=batch_size, workers=workers, overwrite=True)
        one(path, changed, mean_colour)
        with open_slide(options.out / "h5_files" / "slide.h5") as slide:
            made.append(slide.read())
    assert all((features == made[0]).all() for features in made)


def test_patches_alone_and_then_their_features(slide_file, options, mean_colour):
    path = slide_file()
    outcome = one(path, options, None)
    assert (outcome.status, outcome.patches) == ("done", 12)
    assert not (options.out / "h5_files").exists()
    assert one(path, options, None).status == "present"
    one(path, options, mean_colour)
    with open_slide(options.out / "h5_files" / "slide.h5") as slide:
        expected = slide.read()
    given = replace(options, coords=options.out / "patches", out=options.out / "again")
    assert one(path, given, mean_colour).patches == 12
    with open_slide(options.out / "again" / "h5_files" / "slide.h5") as slide:
        assert (slide.read() == expected).all()
        assert slide.coords().tolist() == COORDS
        assert slide.info.patch_order == "file"


def test_coordinates_of_clam(slide_file, options, mean_colour, tmp_path):
    path = slide_file(mpp=0.25, downsamples=(1, 2))
    given = [[700, 600], [512, 512]]  # an order of its own, kept
    with h5py.File(tmp_path / "slide.h5", "w") as file:
        file["coords"] = np.array(given)
        file["coords"].attrs.update({"patch_size": 256, "patch_level": 1})
    outcome = one(path, replace(options, coords=tmp_path), mean_colour)
    assert (outcome.plan.size_level0, outcome.plan.level, outcome.plan.read_size) == (512, 1, 256)
    with open_slide(options.out / "h5_files" / "slide.h5") as slide:
        assert slide.coords().tolist() == given


@pytest.mark.parametrize(
    ("coords", "attributes", "said"),
    [
        ([[0, 0]], {}, "attributes"),
        ([[0, 0]], {"patch_size": "None"}, "attributes"),
        ([[0, 0]], {"patch_size_level0": 224}, "224 pixels of level 0"),
        ([[0, 0]], {"patch_size": 256, "patch_level": 7}, "patch_level 7"),
        ([[0, 0], [9000, 0]], {"patch_size_level0": 256}, "row 1 at"),
        ([[-1, 0]], {"patch_size_level0": 256}, "row 0 at"),
        (np.empty((0, 2), int), {"patch_size_level0": 256}, "no coordinates"),
        (np.zeros((9, 2), int), {"patch_size_level0": 256}, "9 rows with 1 corner among them"),
    ],
)
def test_coordinates_with_faults(slide_file, options, tmp_path, coords, attributes, said):
    with h5py.File(tmp_path / "slide.h5", "w") as file:
        file["coords"] = np.array(coords)
        file["coords"].attrs.update(attributes)
    outcome = one(slide_file(), replace(options, coords=tmp_path), Never())
    assert said in outcome.faults[0].found


def test_features_that_are_not_finite_fail_the_slide(slide_file, options):
    class Overflowing(MeanColour):
        def __call__(self, patches):
            return super().__call__(patches) * np.float32(np.inf)

    outcome = one(slide_file(), options, Overflowing())
    assert kinds(outcome) == ["features-not-finite"]
    assert list((options.out / "h5_files").iterdir()) == []


def test_an_interruption_leaves_nothing_that_looks_finished(slide_file, options, mean_colour):
    class Interrupted(MeanColour):
        def __call__(self, patches):
            raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        one(slide_file(), options, Interrupted())
    assert list((options.out / "h5_files").iterdir()) == []
    assert threading.active_count() == before
    assert one(slide_file(), options, mean_colour).status == "done"


def test_progress_counts_patches(slide_file, options, mean_colour):
    sizes = []
    list(extract([slide_file()], options, mean_colour, sizes.append))
    assert sizes == [5, 5, 2]


def test_stages_are_told_before_they_begin(slide_file, options, mean_colour):
    said = []
    list(extract([slide_file()], options, mean_colour, on_stage=lambda *what: said.append(what)))
    assert said == [("slide", "looking for tissue"), ("slide", "encoding 12 patches")]


def test_the_next_slide_is_prepared_while_one_is_encoded(
    slide_file, options, mean_colour, monkeypatch
):
    begun = threading.Event()
    choose = extraction.choose_patches

    def choose_and_tell(slide, *arguments):
        if slide.facts.path.name == "b.tif":
            begun.set()
        return choose(slide, *arguments)

    class Waiting(MeanColour):
        def __call__(self, patches):
            assert begun.wait(60), "the next slide was not begun"
            return super().__call__(patches)

    monkeypatch.setattr(extraction, "choose_patches", choose_and_tell)
    outcomes = run([slide_file("a.tif"), slide_file("b.tif")], options, Waiting())
    assert [outcome.status for outcome in outcomes] == ["done", "done"]


def test_a_slide_that_was_prepared_in_vain_is_closed(slide_file, options, mean_colour, monkeypatch):
    opened = []

    def open_and_note(path):
        opened.append(open_wsi(path))
        opened[-1].close = unittest.mock.Mock(wraps=opened[-1].close)
        return opened[-1]

    monkeypatch.setattr(extraction, "open_wsi", open_and_note)
    before = threading.active_count()
    slides = [slide_file(f"{name}.tif") for name in "abc"]
    outcomes = extract(slides, options, mean_colour)
    assert next(outcomes).status == "done"
    outcomes.close()
    assert threading.active_count() == before
    assert 1 <= len(opened) <= 2
    assert all(slide.close.called for slide in opened)
