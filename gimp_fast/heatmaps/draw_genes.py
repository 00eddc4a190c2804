"""The drawing of a patient's genes: fragments that CLS_ge attends to, genes that move logits."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from gimp_fast.pages import style

_DPI = 150
_LONGEST_NAME = 34


@dataclass(frozen=True)
class GeneBars:
    """What is drawn of a patient's genes, the most important first.

    Attributes:
        title: who the patient is and what was predicted.
        fragments: names of fragments; empty for a model without GroupMSA.
        attention: (fragments,) their weight, in multiples of an even share.
        genes: names of genes.
        gradients: (genes,) gradient × input; above zero, for the predicted class.
        synthetic: whether they are generated.
    """

    title: str
    fragments: Sequence[str]
    attention: np.ndarray
    genes: Sequence[str]
    gradients: np.ndarray
    synthetic: bool = False


def write_gene_bars(bars: GeneBars, file: Path) -> None:
    """Write the bars of fragments, if there are any, and of genes beside them, as PNG."""
    panels = 2 if len(bars.fragments) else 1
    longest = max(len(bars.fragments), len(bars.genes), 4)
    with style.rc():
        figure = style.new_figure(4.4 * panels + 0.4, 0.23 * longest + 1.5)
        axes = figure.subplots(1, panels, squeeze=False)[0]
        if panels == 2:
            _bars(axes[0], bars.fragments, bars.attention, [style.ACCENT] * len(bars.fragments))
            axes[0].axvline(1, color=style.INK, lw=0.9, ls=(0, (2, 3)))
            axes[0].set_xlabel("Attention of CLS, times an even share")
            axes[0].set_title("Gene fragments", fontsize=9, loc="left")
        signs = [style.ACCENT if value >= 0 else style.VAL for value in bars.gradients]
        _bars(axes[-1], bars.genes, bars.gradients, signs)
        axes[-1].axvline(0, color=style.INK, lw=0.8)
        axes[-1].set_xlabel("Gradient × input (logits)\nblue: for the class, orange: against")
        axes[-1].set_title("Genes", fontsize=9, loc="left")
        made_up = "SYNTHETIC · " if bars.synthetic else ""
        heading = style.plain(textwrap.fill(made_up + bars.title, 55 * panels))
        figure.suptitle(heading, fontsize=9, x=0.02, ha="left")
        figure.savefig(file, dpi=_DPI)


def _bars(axes: Axes, names: Sequence[str], values: np.ndarray, colours: Sequence[str]) -> None:
    """Horizontal bars, the first name on top."""
    places = np.arange(len(names))
    axes.barh(places, values, color=colours, height=0.72)
    axes.set_yticks(places, [style.plain(_short(name)) for name in names])
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.margins(y=0.02)


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
