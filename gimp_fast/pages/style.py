"""The look of every figure: sizes, fonts, and colours that colour-blind readers can tell apart."""

from __future__ import annotations

import io
import textwrap
from pathlib import Path

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from gimp_fast.files.atomic import atomic_file

# Pages replace these and ACCENT by their own colours, so that figures follow a dark scheme too.
INK, GRID, SURFACE = "#1c2128", "#dfe3e8", "#fefefe"
TRAIN, VAL, ACCENT = "#0072b2", "#d55e00", "#0072b2"
# Okabe and Ito's palette without black (invisible on dark) and yellow (invisible on white).
CATEGORIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c8c8c")
WIDTH = 4.6  # inches: on a phone, the whole figure fits and 9 pt text is readable
DPI = 200
MAP_DPI = 150  # of heatmaps, of which there are many

_RC = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.labelsize": 9,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.facecolor": SURFACE,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "figure.facecolor": SURFACE,
    "savefig.facecolor": SURFACE,
    "svg.fonttype": "path",
    "svg.hashsalt": "gimp_fast",  # the same run gives the same bytes
}


def rc():
    """A context for drawing and saving figures; it restores matplotlib's settings at the end."""
    return matplotlib.rc_context(_RC)


class _Shown(Figure):
    """A figure that a notebook shows by itself, also where nobody imported pyplot."""

    def _repr_png_(self) -> bytes:
        with rc(), io.BytesIO() as stream:
            self.canvas.print_png(stream)  # in memory, where savefig may name a file
            return stream.getvalue()


def new_figure(width: float = WIDTH, height: float = 3.3) -> Figure:
    """An empty figure, size in inches, with its own canvas, so that pyplot does not keep it."""
    figure = _Shown(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def colours(count: int) -> list[str]:
    """``count`` distinguishable colours; beyond the named ones, steps of viridis.

    Its ends are left out: one is hardly seen on a dark page, the other on a white one.
    """
    if count <= len(CATEGORIES):
        return list(CATEGORIES[:count])
    viridis = matplotlib.colormaps["viridis"]
    return [matplotlib.colors.to_hex(viridis(0.25 + 0.6 * i / (count - 1))) for i in range(count)]


def plain(name: str) -> str:
    """A name from the user's data that matplotlib will neither typeset nor hide in a legend."""
    text = name.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def heading(figure: Figure, text: str, width: int) -> None:
    """Write text above a figure, from its left edge; lines break after ``width`` characters."""
    lines = [textwrap.fill(line, width) for line in text.splitlines()]
    figure.suptitle(plain("\n".join(lines)), fontsize=9, x=0.02, ha="left")


def save(figure: Figure, stem: Path) -> None:
    """Write ``stem.png`` and ``stem.svg``."""
    write(figure, stem.with_suffix(".png"))
    write(figure, stem.with_suffix(".svg"))


def write(figure: Figure, file: Path, dpi: int = DPI) -> None:
    """Write a figure atomically, in the format of the file's ending, png or svg."""
    kind = file.suffix[1:]
    metadata = {"Date": None} if kind == "svg" else None
    with atomic_file(file) as partial:
        figure.savefig(partial, format=kind, metadata=metadata, dpi=dpi)
