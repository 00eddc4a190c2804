"""From slides to feature files, with an encoder that costs nothing."""

from __future__ import annotations

import threading
from dataclasses import replace

import h5py
import numpy as np
import pytest
from builders.slides import MeanColour

from gimp_fast.data.slides import open_slide
from gimp_fast.wsi.extraction import Outcome, extract
from gimp_fast.wsi.options import ExtractOptions, GridOptions
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
    assert (options.out / "h5_files" / "slide.h5").stat() == before


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"grid": GridOptions(min_tissue=0.5)}, "min_tissue"),
        ({"overrides": read_overrides("0.5", None)}, "override_mpp None (now 0.5)"),
    ],
    ids=["min_tissue", "override"],
)
def test_a_file_of_other_settings_is_not_finished(slide_file, options, mean_colour, change, named):
    path = slide_file()
    one(path, options, mean_colour)
    outcome = one(path, replace(options, **change), Never())
    assert kinds(outcome) == ["other-settings"]
    assert named in outcome.faults[0].found
    assert one(path, replace(options, overwrite=True, **change), mean_colour).status == "done"


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
