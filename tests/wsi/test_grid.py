"""At which resolution patches are read, and where they lie."""

from __future__ import annotations

import numpy as np
import pytest
from builders.slides import slide_facts

from gimp_fast.errors import FaultError
from gimp_fast.wsi.grid import foreground, plan_patches
from gimp_fast.wsi.options import GridOptions

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
    plan = plan_patches(slide_facts(mpp=mpp, downsamples=downsamples), GridOptions())
    side, level, read, true_mpp = expected
    assert (plan.size_level0, plan.level, plan.read_size) == (side, level, read)
    assert plan.mpp == pytest.approx(true_mpp)
    assert plan.mpp == pytest.approx(0.5, rel=0.1)
    assert plan.patch_size == 256


def test_without_tolerance_the_resolution_is_met_to_half_a_pixel():
    plan = plan_patches(slide_facts(mpp=0.2527, downsamples=APERIO_40X), GridOptions(tolerance=0))
    assert plan.size_level0 == round(256 * 0.5 / 0.2527) == 507
    assert plan.mpp == pytest.approx(0.5, rel=1e-3)


def test_magnification_stands_in_for_mpp():
    plan = plan_patches(slide_facts(magnification=40), GridOptions())
    assert (plan.size_level0, plan.level0_mpp) == (512, 0.25)
    assert plan.mpp_source == "magnification 40 of the slide"


def test_patches_are_never_enlarged():
    with pytest.raises(FaultError, match=r"found 1 µm .*never enlarged") as caught:
        plan_patches(slide_facts(mpp=1.0), GridOptions())
    assert caught.value.faults[0].kind == "resolution-too-low"


def test_a_slide_smaller_than_a_patch_is_a_fault():
    with pytest.raises(FaultError, match=r"found 16 × 16 pixels of .*; expected .* 256 × 256"):
        plan_patches(slide_facts(mpp=0.5, size=(16, 16)), GridOptions())


def test_patches_lie_on_one_grid_row_by_row():
    slide = slide_facts(mpp=0.5, size=(2048, 1792))
    mask = np.zeros((28, 32), bool)  # 64 pixels of level 0 each
    mask[8:20, 8:24] = True
    coords = foreground(slide, plan_patches(slide, GridOptions()), mask, 0.25)
    assert coords.dtype == np.int64
    assert coords.tolist() == [[x, y] for y in (512, 768, 1024) for x in (512, 768, 1024, 1280)]


@pytest.mark.parametrize("least", [0, 0.25, 0.5, 0.51, 1])
def test_a_patch_needs_enough_tissue(least):
    slide = slide_facts(mpp=0.5, size=(1024, 256))
    mask = np.zeros((8, 32), bool)
    mask[:4, :8] = True  # half of the first patch
    mask[:, 8:16] = True  # all of the second
    mask[:2, 16:24] = True  # a quarter of the third
    coords = foreground(slide, plan_patches(slide, GridOptions()), mask, least)
    assert coords[:, 0].tolist() == [
        x for x, part in ((0, 0.5), (256, 1), (512, 0.25)) if part >= least
    ]


def test_what_is_outside_the_slide_is_no_tissue():
    slide = slide_facts(mpp=0.5, size=(256 + 128, 256 + 64))
    mask = np.ones((20, 24), bool)
    plan = plan_patches(slide, GridOptions())
    # inside: all, half, a quarter and an eighth
    assert foreground(slide, plan, mask, 0.5).tolist() == [[0, 0], [256, 0]]
    assert foreground(slide, plan, mask, 0.25).tolist() == [[0, 0], [256, 0], [0, 256]]
    assert len(foreground(slide, plan, mask, 0)) == 4


@pytest.mark.parametrize("seed", range(5))
def test_fractions_are_those_of_a_plain_count(seed):
    rng = np.random.default_rng(seed)
    slide = slide_facts(mpp=0.5, size=(256 * 5, 256 * 3))
    mask = rng.random((3 * 16, 5 * 16)) < rng.random((3, 5)).repeat(16, 0).repeat(16, 1)
    plan = plan_patches(slide, GridOptions())
    parts = mask.reshape(3, 16, 5, 16).mean((1, 3))
    expected = [[256 * x, 256 * y] for y in range(3) for x in range(5) if parts[y, x] >= 0.4]
    assert foreground(slide, plan, mask, 0.4).tolist() == expected


def test_no_tissue_no_patches():
    slide = slide_facts(mpp=0.5, size=(1024, 512))
    coords = foreground(slide, plan_patches(slide, GridOptions()), np.zeros((16, 32), bool), 0)
    assert coords.shape == (0, 2)
