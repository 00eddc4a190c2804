"""Draws the heatmap of one slide: arrays in, PNG files out."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from gimp_fast.errors import counted
from gimp_fast.files.atomic import atomic_file
from gimp_fast.heatmaps.places import MICROMETRES, PatchPlaces
from gimp_fast.heatmaps.protocols import SlideImage
from gimp_fast.heatmaps.raster import Canvas, blend, rasterise, resample
from gimp_fast.heatmaps.scales import ColourScale
from gimp_fast.pages import style

TISSUE = 0.80  # grey of a patch where there is no image of the slide
THUMBNAIL = 360  # pixels of the longer side
_VIEW = 2400  # pixels of the longer side of the slide behind a map
_MAP_INCHES = 7.2


@dataclass(frozen=True)
class SlideMap:
    """Weights and positions of a slide's N patches, and the texts around them.

    Attributes:
        heading: the slide in one line, the patient and the prediction in another.
        attribution: what the weights are, in words.
        places: with coordinates.
        values: (N,) places of the patches on the colour bar, 0 … 100.
        top: rows of the patches that stand out, the highest first.
        scale: of the colours.
        remark: a sentence about boxes that are missing.
        image: of a slide whose coordinates are in pixels; None draws tissue in grey.
    """

    heading: str
    attribution: str
    places: PatchPlaces
    values: np.ndarray
    top: np.ndarray
    scale: ColourScale
    remark: str = ""
    image: SlideImage | None = None


def colour_steps() -> np.ndarray:
    """(256, 4) plasma, from nearly transparent to nearly opaque: low weights show the tissue."""
    steps = np.linspace(0, 1, 256)
    colours = matplotlib.colormaps["plasma"](steps)
    colours[:, 3] = 0.08 + 0.77 * steps**3  # three quarters of the patches stay faint
    return colours


def write_overlay(slide: SlideMap, file: Path, thumbnail: Path) -> None:
    """Draw the map on the slide, or on grey tissue, with a legend; and a thumbnail without one."""
    coords, size = slide.places.coords, slide.places.size
    canvas = Canvas.around(coords, size)
    values = rasterise(canvas, coords, size, slide.values)
    if slide.image is None:
        ground = np.where(np.isfinite(values), TISSUE, 1.0)[..., None].repeat(3, axis=2)
    else:
        ground = resample(slide.image.thumbnail(_VIEW), canvas, slide.image.size)
    picture = blend(ground, values, colour_steps())
    under = ground[np.isfinite(values)].mean(0)
    with style.rc():
        style.write(_figure(slide, canvas, ground, picture, under), file, style.MAP_DPI)
    small = Image.fromarray(np.round(picture * 255).astype(np.uint8))
    small.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    with atomic_file(thumbnail) as partial:
        small.save(partial, format="png", optimize=True)


def _figure(
    slide: SlideMap, canvas: Canvas, ground: np.ndarray, picture: np.ndarray, under: np.ndarray
) -> Figure:
    """The slide beside its map; without an image of the slide, only the map.

    ``under`` is the mean colour of the slide below the patches, (3,) in 0 … 1.
    """
    panels = [picture] if slide.image is None else [ground, picture]
    longest = max(canvas.width, canvas.height)
    width, height = (_MAP_INCHES * side / longest for side in (canvas.width, canvas.height))
    beside = canvas.height >= canvas.width or len(panels) == 1
    columns, rows = (len(panels), 1) if beside else (1, len(panels))
    figure = style.new_figure(max(columns * width, 4.2) + 0.9, rows * max(height, 1.8) + 1.0)
    axes = np.atleast_1d(figure.subplots(rows, columns))
    for place, pixels in zip(axes, panels, strict=True):
        place.imshow(pixels, interpolation="nearest" if pixels is picture else "antialiased")
        # Room for the scale bar below each, so that both have the same height.
        place.set(xlim=(-0.5, canvas.width - 0.5), ylim=(canvas.height + 0.045 * longest, -0.5))
        place.set_axis_off()
    _outline(axes[-1], slide, canvas)
    _scale_bar(axes[-1], slide, canvas)
    _legend(figure, axes, slide, under)
    return figure


def bar_colours(under: np.ndarray) -> np.ndarray:
    """(256, 3) the colours of the bar as they look in the map, over the mean of what is below it.

    Args:
        under: (3,) in 0 … 1.
    """
    colours = colour_steps()
    return colours[:, :3] * colours[:, 3:] + under * (1 - colours[:, 3:])


def _legend(figure: Figure, axes: Sequence[Axes], slide: SlideMap, under: np.ndarray) -> None:
    scale = ScalarMappable(Normalize(0, 100), ListedColormap(bar_colours(under)))
    bar = figure.colorbar(scale, ax=list(axes), fraction=0.035, pad=0.02, aspect=28, shrink=0.85)
    bar.set_ticks(slide.scale.ticks, labels=slide.scale.texts)
    bar.set_label(slide.scale.label)
    bar.outline.set_edgecolor(style.INK)  # pale colours would not be seen to belong to the bar
    bar.outline.set_linewidth(0.5)
    width = max(40, int(figure.get_figwidth() * 13))
    style.heading(figure, slide.heading, width)
    number = len(slide.values)
    caption = [f"{counted(number, 'patch', 'patches')}; {slide.attribution}"]
    if slide.remark:
        caption.append(slide.remark)
    elif len(slide.top):
        caption.append("boxed: the highest" + (f" {len(slide.top)}" if len(slide.top) > 1 else ""))
    if slide.image is not None:
        caption.append("the bar shows colours over the mean of the tissue")
    text = textwrap.fill("; ".join(caption), width + 8)
    figure.supxlabel(text, fontsize=8, x=0.02, ha="left")


def _outline(axes: Axes, slide: SlideMap, canvas: Canvas) -> None:
    """Boxes around the highest patches, large enough to be seen."""
    least = 0.008 * max(canvas.width, canvas.height)
    for x0, x1, y0, y1 in canvas.boxes(slide.places.coords[slide.top], slide.places.size):
        grow = max(0.0, (least - (x1 - x0)) / 2)
        corner = (x0 - grow - 0.5, y0 - grow - 0.5)
        width, height = x1 - x0 + 2 * grow, y1 - y0 + 2 * grow
        axes.add_patch(Rectangle(corner, width, height, fill=False, ec=style.INK, lw=0.8))


def _scale_bar(axes: Axes, slide: SlideMap, canvas: Canvas) -> None:
    """A bar of 1, 2 or 5 · 10ⁿ µm or pixels, about a fifth of the picture."""
    um_per_unit = 1.0 if slide.places.unit == MICROMETRES else slide.places.mpp
    unit, factor = ("µm", um_per_unit) if um_per_unit else ("px", 1.0)
    wanted = 0.2 * canvas.width / canvas.scale * factor
    power = 10.0 ** np.floor(np.log10(wanted))
    length = max(step * power for step in (1, 2, 5) if step * power <= wanted)
    pixels = length / factor * canvas.scale
    text = f"{length / 1000:g} mm" if unit == "µm" and length >= 1000 else f"{length:,.0f} {unit}"
    left, low = 0.02 * canvas.width, canvas.height + 0.02 * max(canvas.width, canvas.height)
    axes.plot([left, left + pixels], [low, low], color=style.INK, lw=2, clip_on=False)
    axes.text(left + pixels * 1.04, low, text, va="center", fontsize=8, clip_on=False)


def write_montage(
    tiles: Sequence[np.ndarray], captions: Sequence[str], title: str, file: Path
) -> None:
    """Draw patches, (p, p, 3) uint8 each, under their captions; the first at the upper left."""
    columns = min(4, len(tiles))
    rows = -(-len(tiles) // columns)
    with style.rc():
        figure = style.new_figure(1.75 * columns + 0.2, 2.0 * rows + 0.5)
        axes = figure.subplots(rows, columns, squeeze=False).flatten()
        for place in axes:
            place.set_axis_off()
        for place, tile, caption in zip(axes, tiles, captions, strict=False):
            place.imshow(tile)
            place.set_title(caption, fontsize=7.5)
        style.heading(figure, title, 18 * columns)
        style.write(figure, file, style.MAP_DPI)
