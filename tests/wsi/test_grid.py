"""At which resolution patches are read, and where they lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gimp_fast.errors import FaultError
from gimp_fast.wsi.grid import GridOptions, Override, foreground, level0_mpp, plan_patches
from gimp_fast.wsi.slide import Level, SlideFacts, checked_resolution


def facts(
    mpp=None, magnification=None, downsamples=(1,), size=(40_000, 30_000), remark=""
) -> SlideFacts:
    levels = tuple(Level(int(size[0] / n), int(size[1] / n), n) for n in downsamples)
    return SlideFacts(Path("a.svs"), "test", levels, mpp, magnification, remark)


APERIO_40X = (1, 4.0001, 16.002, 32.01)


@pytest.mark.parametrize(
    ("mpp", "downsamples", "expected"),
    [
        # level-0 side, level, side read there, mpp
        (0.5, (1, 4), (256, 0, 256, 0.5)),
        (0.4545, (1, 4), (256, 0, 256, 0.4545)),  # Hamamatsu's 20x
        (0.25, APERIO_40X, (512, 0, 512, 0.5)),
        (0.2527, APERIO_40X, (512, 0, 512, 0.5054)),
        (0.2273, APERIO_40X, (512, 0, 512, 0.4546)),
        (0.25, (1, 2.0005), (512, 1, 256, 0.5)),
        (0.25, (1, 2, 4), (512, 1, 256, 0.5)),
        (0.125, (1, 2.0001, 4.003), (1024, 2, 256, 0.5)),
        (0.125, (1, 2.0001), (1024, 1, 512, 0.5)),
        (0.33, (1, 2), (388, 0, 388, 0.33 * 388 / 256)),
    ],
)
def test_the_plan_has_the_wanted_resolution(mpp, downsamples, expected):
    plan = plan_patches(facts(mpp, downsamples=downsamples), GridOptions())
    side, level, read, true_mpp = expected
    assert (plan.size_level0, plan.level, plan.read_size) == (side, level, read)
    assert plan.mpp == pytest.approx(true_mpp)
    assert plan.mpp == pytest.approx(0.5, rel=0.1)
    assert plan.patch_size == 256


def test_without_tolerance_the_resolution_is_met_to_half_a_pixel():
    plan = plan_patches(facts(0.2527, downsamples=APERIO_40X), GridOptions(tolerance=0))
    assert plan.size_level0 == round(256 * 0.5 / 0.2527) == 507
    assert plan.mpp == pytest.approx(0.5, rel=1e-3)


def test_magnification_stands_in_for_mpp():
    plan = plan_patches(facts(magnification=40), GridOptions())
    assert (plan.size_level0, plan.level0_mpp) == (512, 0.25)
    assert plan.mpp_source == "magnification 40 of the slide"


def test_where_the_resolution_comes_from():
    always, default = Override(0.1, "table", True), Override(0.2, "option", False)
    assert level0_mpp(facts(0.5, 40), always) == (0.1, "table")
    assert level0_mpp(facts(0.5, 40), default) == (0.5, "mpp of the slide")
    assert level0_mpp(facts(None, 40), default)[0] == 0.25
    assert level0_mpp(facts(), default) == (0.2, "option")


def test_a_resolution_is_never_assumed():
    with pytest.raises(FaultError, match=r"a\.svs: found neither .* --mpp-override") as caught:
        plan_patches(facts(), GridOptions())
    assert caught.value.faults[0].kind == "resolution-unknown"
    with pytest.raises(FaultError, match="352"):
        plan_patches(facts(remark="a recorded 352.8 µm"), GridOptions())


def test_pixels_are_not_invented():
    with pytest.raises(FaultError, match=r"found 1 µm .*not invented") as caught:
        plan_patches(facts(1.0), GridOptions())
    assert caught.value.faults[0].kind == "resolution-too-low"


def test_a_slide_smaller_than_a_patch_is_a_fault():
    with pytest.raises(FaultError, match=r"found 16 × 16 pixels; expected .* 256 × 256"):
        plan_patches(facts(0.5, size=(16, 16)), GridOptions())


@pytest.mark.parametrize(
    ("mpp", "magnification", "expected", "remark"),
    [
        ((0.5, 0.5), 20, (0.5, 20), ""),
        ((0.5, 0.502), None, (0.501, None), ""),
        ((352.8, 352.8), None, (None, None), "352.8"),
        ((0.5, 0.25), None, (None, None), "not square"),
        ((0.0, 0.0), 40, (None, 40), "0 × 0"),
        ((None, None), 4000, (None, None), "4000"),
        ((0.5, None), None, (None, None), ""),
    ],
)
def test_implausible_records_are_left_out_and_named(mpp, magnification, expected, remark):
    *found, said = checked_resolution(mpp, magnification)
    assert found == [pytest.approx(x) for x in expected]
    assert remark in said


def test_patches_lie_on_one_grid_row_by_row():
    slide = facts(0.5, size=(2048, 1792))
    mask = np.zeros((28, 32), bool)  # 64 pixels of level 0 each
    mask[8:20, 8:24] = True
    coords = foreground(slide, plan_patches(slide, GridOptions()), mask, 0.25)
    assert coords.dtype == np.int64
    assert coords.tolist() == [[x, y] for y in (512, 768, 1024) for x in (512, 768, 1024, 1280)]


@pytest.mark.parametrize("least", [0, 0.25, 0.5, 0.51, 1])
def test_a_patch_needs_enough_tissue(least):
    slide = facts(0.5, size=(1024, 256))
    mask = np.zeros((8, 32), bool)
    mask[:4, :8] = True  # half of the first patch
    mask[:, 8:16] = True  # all of the second
    mask[:2, 16:24] = True  # a quarter of the third
    coords = foreground(slide, plan_patches(slide, GridOptions()), mask, least)
    assert coords[:, 0].tolist() == [
        x for x, part in ((0, 0.5), (256, 1), (512, 0.25)) if part >= least
    ]


def test_what_is_outside_the_slide_is_no_tissue():
    slide = facts(0.5, size=(256 + 128, 256 + 64))
    mask = np.ones((20, 24), bool)
    plan = plan_patches(slide, GridOptions())
    # inside: all, half, a quarter and an eighth
    assert foreground(slide, plan, mask, 0.5).tolist() == [[0, 0], [256, 0]]
    assert foreground(slide, plan, mask, 0.25).tolist() == [[0, 0], [256, 0], [0, 256]]
    assert len(foreground(slide, plan, mask, 0)) == 4


@pytest.mark.parametrize("seed", range(5))
def test_fractions_are_those_of_a_plain_count(seed):
    rng = np.random.default_rng(seed)
    slide = facts(0.5, size=(256 * 5, 256 * 3))
    mask = rng.random((3 * 16, 5 * 16)) < rng.random((3, 5)).repeat(16, 0).repeat(16, 1)
    plan = plan_patches(slide, GridOptions())
    parts = mask.reshape(3, 16, 5, 16).mean((1, 3))
    expected = [[256 * x, 256 * y] for y in range(3) for x in range(5) if parts[y, x] >= 0.4]
    assert foreground(slide, plan, mask, 0.4).tolist() == expected


def test_no_tissue_no_patches():
    slide = facts(0.5, size=(1024, 512))
    coords = foreground(slide, plan_patches(slide, GridOptions()), np.zeros((16, 32), bool), 0)
    assert coords.shape == (0, 2)
