"""Flat attention is told from attention that stands out, and colours mean what the bar says."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from gimp_fast.heatmaps.draw_slide import SlideMap, bar_colours, colour_steps, write_overlay
from gimp_fast.heatmaps.options import EVEN, PERCENTILE
from gimp_fast.heatmaps.places import PatchPlaces
from gimp_fast.heatmaps.raster import blend
from gimp_fast.heatmaps.scales import STANDS_OUT, Spread, colour_scale, even_ticks


def weights_of(times_even) -> pd.DataFrame:
    values = np.asarray(times_even, float)
    percentile = 100 * (pd.Series(values).rank() - 0.5) / len(values)
    return pd.DataFrame({"times_even": values, "percentile": percentile})


RNG = np.random.default_rng(0)
NOISE = 1 + 0.001 * RNG.normal(size=500)
ONE_PATCH = np.array([3.0, *[499.0 / 500 - 2 / 500] * 499])
HALF_ASIDE = np.repeat([0.6, 1.4], 250)


@pytest.mark.parametrize(
    ("times_even", "flat"),
    [
        (NOISE, True),
        (np.ones(1), True),
        (np.zeros(7), True),
        (RNG.uniform(0.7, 1.3, 500), True),
        (ONE_PATCH, False),  # nearly all is even, and one patch stands out
        (HALF_ASIDE, False),  # nothing stands out, and half is left aside
        (RNG.normal(size=500) / 0.8, False),  # signed
        (RNG.lognormal(0, 1, 500), False),
    ],
    ids=["noise", "one", "zero", "30 %", "one stands out", "half aside", "signed", "skewed"],
)
def test_attention_is_flat_if_no_patch_stands_out_and_none_is_left_aside(times_even, flat):
    spread = Spread.of(times_even)
    assert spread.flat is flat
    assert spread.record()["flat"] is flat
    assert spread.highest == times_even.max()


def test_the_effective_share_of_patches():
    assert Spread.of(np.array([4.0, 0, 0, 0])).effective_share == 0.25
    assert Spread.of(np.ones(4)).effective_share == 1
    assert Spread.of(np.array([2.0, 2, 0, 0])).effective_share == 0.5
    assert "1.002 times an even share" in Spread(1.002, 1.0).words


def test_percentiles_have_the_even_shares_beside_them():
    weights = weights_of(RNG.lognormal(0, 1, 500))
    scale = colour_scale(PERCENTILE, Spread.of(weights["times_even"].to_numpy()), weights)
    assert (scale.name, scale.ticks) == (PERCENTILE, (0, 25, 50, 75, 100))
    middle = np.median(weights["times_even"])
    assert scale.texts[2] == f"50 %  ({middle:.2g} ×)"
    assert (scale.places(weights) == weights["percentile"]).all()


def test_the_absolute_scale_has_the_same_colours_for_every_patient():
    weights = weights_of([-3.0, 0.1, 0.5, 1.0, 2.0, 4.0, 8.0, 30.0])
    scale = colour_scale(EVEN, Spread(30.0, 0.3), weights)
    assert scale.places(weights).tolist() == [0, 0, 0, 25, 50, 75, 100, 100]
    assert scale.ticks == (0, 25, 50, 75, 100)
    assert [text.split("  ")[0] for text in scale.texts] == [
        "≤ 0.5 ×",
        "1 ×",
        "2 ×",
        "4 ×",
        "≥ 8 ×",
    ]
    assert scale.texts[2].endswith("(50 % below)")


def test_ticks_of_the_absolute_scale_are_doublings():
    places, texts = even_ticks()
    assert places == [0, 25, 50, 75, 100]
    assert texts == ["≤ 0.5 ×", "1 ×", "2 ×", "4 ×", "≥ 8 ×"]


def test_a_flat_map_is_never_painted_by_percentiles():
    weights = weights_of(NOISE)
    scale = colour_scale(PERCENTILE, Spread.of(NOISE), weights)
    assert scale.name == EVEN
    colours = blend(np.full((1, 500, 3), 0.8), scale.places(weights)[None], colour_steps())
    assert np.ptp(colours, axis=1).max() < 0.01


@pytest.mark.parametrize("under", [(0.8, 0.8, 0.8), (0.75, 0.45, 0.62)], ids=["grey", "tissue"])
def test_the_bar_has_the_colours_of_the_map(under):
    ground = np.broadcast_to(np.array(under), (1, 256, 3))
    painted = blend(ground, np.linspace(0, 100, 256)[None], colour_steps())
    np.testing.assert_allclose(bar_colours(np.array(under)), painted[0], atol=1e-9)


def test_the_picture_has_the_colours_of_its_bar(tmp_path):
    """Pixels of the file: a patch at each end of the bar, and the bar's ends."""
    places = PatchPlaces(None, np.array([[0.0, 0.0], [500.0, 0.0]]), 500.0)
    weights = weights_of([0.01, 1.99])
    scale = colour_scale(PERCENTILE, Spread(1.99, 0.6), weights)
    drawn = SlideMap("a", "b", places, np.array([0.0, 100.0]), np.arange(0), scale)
    write_overlay(drawn, tmp_path / "map.png", tmp_path / "small.png")
    pixels = np.asarray(Image.open(tmp_path / "map.png").convert("RGB")).reshape(-1, 3)
    found, counts = np.unique(pixels, axis=0, return_counts=True)
    common = found[np.argsort(-counts)][:4].astype(int)
    expected = np.round(255 * bar_colours(np.full(3, 0.8))[[0, -1]])
    for colour in expected:
        assert np.abs(common - colour).max(1).min() <= 2


def test_a_patch_that_stands_out_has_half_as_much_again():
    assert STANDS_OUT == 1.5
