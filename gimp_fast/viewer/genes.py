"""The genes of a patient that a page shows, from ``genes.csv``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gimp_fast.errors import FaultError, one_line
from gimp_fast.heatmaps.gene_symbols import with_symbol

SHOWN = 25  # genes, and fragments
_NUMBERS = ("fragment", "times_even", "expression_z", "gradient_input", "rank")
_TEXTS = ("gene_id", "gene_name", "group")


def read_genes(file: Path) -> dict[str, list[dict[str, Any]]]:
    """The first genes by gradient × input, and the first fragments by attention.

    Returns:
        ``genes``: name, gradient × input, scaled expression. ``fragments``: the name of the gene
        set, the genes with the largest gradient × input, attention in multiples of an even share;
        none for a model without groups of genes.

    Raises:
        FaultError: a column is missing, or holds text for a number.
    """
    kinds = dict.fromkeys(_NUMBERS, float) | dict.fromkeys(_TEXTS, str)
    try:
        table = pd.read_csv(file, usecols=list(kinds), dtype=kinds)
    except (ValueError, OSError) as error:
        expected = "the table of genes that `gimp-fast heatmap` wrote"
        raise FaultError.of("unreadable-table", file, one_line(error), expected) from error
    table[list(_TEXTS)] = table[list(_TEXTS)].fillna("")
    names = zip(table["gene_id"], table["gene_name"], strict=True)
    table["name"] = [with_symbol(*gene) for gene in names]
    table = table.sort_values("rank", kind="stable").replace([np.inf, -np.inf], np.nan)
    genes = table.drop_duplicates("gene_id").head(SHOWN)
    placed = table.dropna(subset=["fragment", "times_even"])
    fragments = [
        {
            "name": rows["group"].iloc[0],
            "genes": rows["name"].head(4).tolist(),
            "count": len(rows),
            "times_even": float(rows["times_even"].iloc[0]),
        }
        for _, rows in placed.groupby("fragment")
    ]
    return {
        "genes": [
            {
                "name": gene.name,
                "gradient": _number(gene.gradient_input),
                "z": _number(gene.expression_z),
            }
            for gene in genes.itertuples()
        ],
        "fragments": sorted(fragments, key=lambda one: -one["times_even"])[:SHOWN],
    }


def _number(value: float) -> float | None:
    """For JSON, which has no NaN."""
    return None if np.isnan(value) else float(value)
