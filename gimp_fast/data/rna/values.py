"""Expression of samples in memory: values, genes, and what was left out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

GeneRows = list[dict[str, str]]
# Rows that aligners add below or above the genes, for reads outside genes.
_SUMMARY = re.compile(r"__.*|N_(?:unmapped|multimapping|noFeature|ambiguous)")
SUMMARY_REASON = "summary row of the aligner, not a gene"


@dataclass(frozen=True)
class Expression:
    """Expression of n samples.

    Attributes:
        values: (n, G) float32, one row per sample in the order asked for.
        genes: G rows gene_id, gene_name, gene_type.
        transform: what was applied to the values of the files.
        dropped_genes: genes that were left out: rows gene_id, gene_name, reason, source.
        provenance: kind, paths, column, transform, gene_model, ignored_columns, filters, cautions,
            and further facts of the source, such as the layer. Can be written as JSON.
        places: where each gene is in its source, e.g. ``row 7``; empty if nobody would look there.
        conflicts: gene_id -> what is wrong with that gene, a fault if it is kept.
    """

    values: np.ndarray
    genes: GeneRows
    transform: str = "as given"
    dropped_genes: GeneRows = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)
    places: Sequence[str] = ()
    conflicts: dict[str, str] = field(default_factory=dict)


def is_summary(gene_id: str) -> bool:
    """True for the name of a row that an aligner adds for reads outside genes."""
    return _SUMMARY.fullmatch(gene_id) is not None


def gene_row(gene_id: str, gene_name: str = "", gene_type: str = "") -> dict[str, str]:
    """One row of a gene table."""
    return {"gene_id": gene_id, "gene_name": gene_name, "gene_type": gene_type}


def drop_row(gene_id: str, gene_name: str, reason: str, source: object) -> dict[str, str]:
    """One row of ``dropped_genes``."""
    return dict(gene_id=gene_id, gene_name=gene_name, reason=reason, source=str(source))
