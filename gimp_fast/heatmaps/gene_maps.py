"""One patient's genes: the fragments that CLS_ge attends to, and the genes that move the logits."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from gimp_fast.heatmaps.attribution import Attribution, only_module
from gimp_fast.heatmaps.protocols import ExplainedModel
from gimp_fast.nn import GroupMSA, fragment_columns
from gimp_fast.pages import style

_DPI = 150
_LONGEST_NAME = 34
_FRAGMENT_COLUMNS = ["group", "fragment", "fragment_attention", "times_even"]


def gene_table(trained: ExplainedModel, found: Attribution, expression: np.ndarray) -> pd.DataFrame:
    """One row per gene; a gene of several gene sets has a row for each.

    Args:
        trained: the model.
        found: of the patient, with ``gene_gradients``.
        expression: (G,) scaled, as the model read it.

    Returns:
        ``gene_id``, ``gene_name``, ``group``, ``fragment`` (numbered from 1 within all groups),
        ``fragment_attention``, ``times_even``, ``expression_z``, ``gradient_input`` and ``rank``,
        1 for the largest gradient × input of either sign; sorted by it. Groups, fragments and
        attention are empty for a model without GroupMSA, and for genes that no set holds.
    """
    places = _places(trained, found)
    genes = pd.DataFrame(
        {
            "column": np.arange(len(expression)),
            "gene_id": trained.gene_ids,
            "gene_name": trained.gene_names or [""] * len(expression),
            "expression_z": expression,
            "gradient_input": found.gene_gradients,
        }
    )
    size = genes["gradient_input"].abs()
    genes["rank"] = size.rank(ascending=False, method="first").astype(int)
    table = genes.merge(places, on="column", how="left").sort_values(["rank", "fragment"])
    return table[
        ["gene_id", "gene_name", *_FRAGMENT_COLUMNS, "expression_z", "gradient_input", "rank"]
    ]


def fragment_table(trained: ExplainedModel, found: Attribution) -> pd.DataFrame:
    """Fragments of GroupMSA by attention: ``name``, ``group``, ``fragment``, ``genes``,
    ``fragment_attention``, ``times_even``; empty without it.
    """
    encoder = only_module(trained.model, GroupMSA)
    if encoder is None or found.genes is None:
        return pd.DataFrame(columns=["name", "genes", *_FRAGMENT_COLUMNS])
    weights = found.genes.rolled_out()[0].flatten().cpu().numpy()  # (slots,)
    columns, groups = fragment_columns(encoder), _group_names(trained, encoder)
    used = [slot for slot, genes in enumerate(columns) if len(genes)]
    even = weights[used].mean() or 1.0
    rows = []
    for number, slot in enumerate(used, start=1):
        group = groups[slot // encoder.group_size]
        rows.append(
            {
                "name": f"{group}: {_span(trained, columns[slot])}",
                "group": group,
                "fragment": number,
                "genes": columns[slot],
                "fragment_attention": weights[slot],
                "times_even": weights[slot] / even,
            }
        )
    return pd.DataFrame(rows).sort_values("fragment_attention", ascending=False, kind="stable")


def gene_label(trained: ExplainedModel, column: int) -> str:
    """The symbol of a gene, or its id where it has none."""
    name = trained.gene_names[column] if trained.gene_names else ""
    return name or trained.gene_ids[column]


def _places(trained: ExplainedModel, found: Attribution) -> pd.DataFrame:
    """The groups and fragments of each column, one row for each place."""
    table = fragment_table(trained, found)
    long = table[["genes", *_FRAGMENT_COLUMNS]].explode("genes").rename(columns={"genes": "column"})
    return long.astype({"column": int})


def _group_names(trained: ExplainedModel, encoder: GroupMSA) -> list[str]:
    """Names of the gene sets, where the groups are sets; else their numbers."""
    names = list(trained.trained_on.get("gene_sets") or {})
    if encoder.gene_index is not None and len(names) == encoder.num_groups:
        return names
    return [f"group {number}" for number in range(1, encoder.num_groups + 1)]


def _span(trained: ExplainedModel, columns: np.ndarray) -> str:
    """First and last gene of a fragment, and how many there are."""
    first, last = gene_label(trained, columns[0]), gene_label(trained, columns[-1])
    return first if len(columns) == 1 else f"{first} … {last} ({len(columns)})"


@dataclass(frozen=True)
class GeneBars:
    """The bars of a patient's genes, the most important first.

    Attributes:
        title: the patient and the prediction.
        fragments: names of fragments; empty for a model without GroupMSA.
        attention: (fragments,) their attention, in multiples of an even share.
        genes: names of genes.
        gradients: (genes,) gradient × input; above zero speaks for the predicted class.
        synthetic: whether the model or the patient is generated.
    """

    title: str
    fragments: Sequence[str]
    attention: np.ndarray
    genes: Sequence[str]
    gradients: np.ndarray
    synthetic: bool = False


def write_gene_bars(bars: GeneBars, file: Path) -> None:
    """Write a PNG: bars of fragments, if there are any, and bars of genes beside them."""
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
