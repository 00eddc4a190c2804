"""One patient's genes: the fragments that CLS_ge attends to, and the genes that move the logits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from gimp_fast.heatmaps.attribution import Attribution, only_module
from gimp_fast.heatmaps.protocols import ExplainedModel
from gimp_fast.nn import GroupMSA, fragment_columns
from gimp_fast.pages import style

_LONGEST_NAME = 34
_FRAGMENT_COLUMNS = ["group", "fragment", "fragment_attention", "times_even"]


def gene_table(
    trained: ExplainedModel,
    found: Attribution,
    expression: np.ndarray,
    fragments: pd.DataFrame,
    symbols: Sequence[str],
) -> pd.DataFrame:
    """One row per gene; a gene of several gene sets has a row for each.

    Args:
        trained: the model.
        found: of the patient, with ``gene_gradients``.
        expression: (G,) scaled, as the model read it.
        fragments: of :func:`fragment_table`.
        symbols: of the genes, ``""`` where none is known.

    Returns:
        The columns of ``genes.csv``, sorted by ``rank``: 1 for the largest gradient × input of
        either sign. Groups, fragments and attention are empty for a model without GroupMSA, and
        for genes that no set holds.
    """
    genes = pd.DataFrame(
        {
            "column": np.arange(len(expression)),
            "gene_id": trained.gene_ids,
            "gene_name": symbols,
            "expression_z": expression,
            "gradient_input": found.gene_gradients,
        }
    )
    size = genes["gradient_input"].abs()
    genes["rank"] = size.rank(ascending=False, method="first").astype(int)
    places = fragments.explode("genes").astype({"genes": int})
    table = genes.merge(places, left_on="column", right_on="genes", how="left")
    names = ["gene_id", "gene_name", *_FRAGMENT_COLUMNS, "expression_z", "gradient_input", "rank"]
    return table.sort_values(["rank", "fragment"])[names]


def fragment_table(
    trained: ExplainedModel, found: Attribution, symbols: Sequence[str]
) -> pd.DataFrame:
    """Fragments of GroupMSA by attention; none without it. ``symbols`` as in ``gene_table``.

    Returns:
        ``name``, ``genes`` (their columns), ``group``, ``fragment`` (numbered from 1 within all
        groups), ``fragment_attention`` and ``times_even``, in multiples of an even share.
    """
    encoder = only_module(trained.model, GroupMSA)
    if encoder is None or found.genes is None:
        return pd.DataFrame(columns=["name", "genes", *_FRAGMENT_COLUMNS])
    columns = fragment_columns(encoder)
    used = [slot for slot, genes in enumerate(columns) if len(genes)]
    weights = found.genes.rolled_out()[0].flatten().cpu().numpy()[used]
    groups = _group_names(trained, encoder)
    table = pd.DataFrame(
        {
            "genes": [columns[slot] for slot in used],
            "group": [groups[slot // encoder.group_size] for slot in used],
            "fragment": range(1, len(used) + 1),
            "fragment_attention": weights,
            "times_even": weights / (weights.mean() or 1.0),
        }
    )
    spans = table["genes"].map(lambda genes: _span(trained.gene_ids, symbols, genes))
    table["name"] = table["group"] + ": " + spans
    return table.sort_values("fragment_attention", ascending=False, kind="stable")


def _group_names(trained: ExplainedModel, encoder: GroupMSA) -> list[str]:
    """Names of the gene sets, where the groups are sets; else their numbers."""
    names = list(trained.trained_on.get("gene_sets") or {})
    if encoder.gene_index is not None and len(names) == encoder.num_groups:
        return names
    return [f"group {number}" for number in range(1, encoder.num_groups + 1)]


def _span(gene_ids: Sequence[str], symbols: Sequence[str], columns: np.ndarray) -> str:
    """First and last gene of a fragment, by symbol or else by id, and how many there are.

    ``genes.csv`` has both for each gene; here there is no room.
    """
    first, last = (symbols[column] or gene_ids[column] for column in columns[[0, -1]])
    return first if len(columns) == 1 else f"{first} … {last} ({len(columns)})"


def write_gene_bars(title: str, fragments: pd.Series, genes: pd.Series, file: Path) -> None:
    """Write a PNG of bars, the most important first; the index of each series has the names.

    Args:
        title: the patient and the prediction.
        fragments: attention, in multiples of an even share; none for a model without GroupMSA.
        genes: gradient × input; above zero speaks for the predicted class.
        file: to write.
    """
    panels = 2 if len(fragments) else 1
    longest = max(len(fragments), len(genes), 4)
    with style.rc():
        figure = style.new_figure(4.4 * panels + 0.4, 0.23 * longest + 1.5)
        axes = figure.subplots(1, panels, squeeze=False)[0]
        if panels == 2:
            _bars(axes[0], fragments, [style.ACCENT] * len(fragments))
            axes[0].axvline(1, color=style.INK, lw=0.9, ls=(0, (2, 3)))
            axes[0].set_xlabel("Attention of CLS, times an even share")
            axes[0].set_title("Gene fragments", fontsize=9, loc="left")
        _bars(axes[-1], genes, [style.ACCENT if value >= 0 else style.VAL for value in genes])
        axes[-1].axvline(0, color=style.INK, lw=0.8)
        axes[-1].set_xlabel("Gradient × input (logits)\nblue: for the class, orange: against")
        axes[-1].set_title("Genes", fontsize=9, loc="left")
        style.heading(figure, title, 55 * panels)
        style.write(figure, file, style.MAP_DPI)


def _bars(axes: Axes, values: pd.Series, colours: Sequence[str]) -> None:
    """Horizontal bars, the first name on top."""
    names = [n if len(n) <= _LONGEST_NAME else f"{n[: _LONGEST_NAME - 1]}…" for n in values.index]
    places = np.arange(len(values))
    axes.barh(places, values.to_numpy(float), color=colours, height=0.72)
    axes.set_yticks(places, [style.plain(name) for name in names])
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.margins(y=0.02)
