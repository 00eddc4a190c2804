"""Colours that readers can tell from each other and from the page."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb

import gimp_fast.pages
from gimp_fast.pages import style

CSS = (Path(gimp_fast.pages.__file__).parent / "templates/colours.css").read_text("utf-8")


def luminance(colour: str) -> float:
    """Relative luminance as WCAG defines it."""
    part = np.array(to_rgb(colour))
    return float(np.where(part > 0.04045, ((part + 0.055) / 1.055) ** 2.4, part / 12.92)
                 @ [0.2126, 0.7152, 0.0722])  # fmt: skip


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("count", [2, 7, 8, 30])
def test_colours_differ_and_stand_out_from_a_light_and_a_dark_page(count):
    found = style.colours(count)
    assert len(set(found)) == count
    for surface in re.findall(r"--surface: (#\w+)", CSS):
        assert min(contrast(colour, surface) for colour in found) > 1.6
