"""One patient's genes: which fragments CLS_ge attends to, and how each gene moves the answer."""

from __future__ import annotations

import numpy as np
import pandas as pd

from gimp_fast.heatmaps.attribution import Attribution, only_module
from gimp_fast.inference.model import TrainedModel
from gimp_fast.nn import GroupMSA, fragment_columns


def gene_table(trained: TrainedModel, found: Attribution, expression: np.ndarray) -> pd.DataFrame:
    """A row for each gene, or for each place of a gene that stands in several gene sets.

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
        [
            *("gene_id", "gene_name", "group", "fragment", "fragment_attention", "times_even"),
            *("expression_z", "gradient_input", "rank"),
        ]
    ]


def fragment_table(trained: TrainedModel, found: Attribution) -> pd.DataFrame:
    """Fragments of GroupMSA by attention: ``name``, ``group``, ``fragment``, ``genes``,
    ``fragment_attention``, ``times_even``; empty without it.
    """
    encoder = only_module(trained.model, GroupMSA)
    if encoder is None or found.genes is None:
        columns = ("name", "group", "fragment", "genes", "fragment_attention", "times_even")
        return pd.DataFrame(columns=list(columns))
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


def gene_label(trained: TrainedModel, column: int) -> str:
    """The symbol of a gene, or its id where it has none."""
    name = trained.gene_names[column] if trained.gene_names else ""
    return name or trained.gene_ids[column]


def _places(trained: TrainedModel, found: Attribution) -> pd.DataFrame:
    """Of each column: the groups and fragments that hold it."""
    kept = ["group", "fragment", "fragment_attention", "times_even"]
    table = fragment_table(trained, found)
    if table.empty:
        return pd.DataFrame(columns=["column", *kept]).astype({"column": int})
    long = table[["genes", *kept]].explode("genes").rename(columns={"genes": "column"})
    return long.astype({"column": int})


def _group_names(trained: TrainedModel, encoder: GroupMSA) -> list[str]:
    """Names of the gene sets, where the groups are sets; else their numbers."""
    names = list(trained.trained_on.get("gene_sets") or {})
    if encoder.gene_index is not None and len(names) == encoder.num_groups:
        return names
    return [f"group {number}" for number in range(1, encoder.num_groups + 1)]


def _span(trained: TrainedModel, columns: np.ndarray) -> str:
    """First and last gene of a fragment, and how many there are."""
    first, last = gene_label(trained, columns[0]), gene_label(trained, columns[-1])
    return first if len(columns) == 1 else f"{first} … {last} ({len(columns)})"
