"""The ordered gene list to which new patients are aligned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gimp_fast.data.cohort import open_cohort
from gimp_fast.data.names import RNA_COLUMNS, order_alike
from gimp_fast.errors import FaultError, GimpError


@dataclass(frozen=True)
class GeneReference:
    """What the expression of new patients must become; see ``Cohort`` for the names.

    Attributes:
        column: unit of GDC files; None if the values came from elsewhere.
        harmonised: whether the model reads the order of a patient's genes alone, so that other
            units and transforms with the same order will do.
    """

    gene_ids: tuple[str, ...]
    gene_names: tuple[str, ...]
    gene_sets: dict[str, tuple[int, ...]]
    transform: str
    column: str | None
    harmonised: bool = False

    def takes(self, option: str, value: str) -> bool:
        """Whether expression may have another ``"column"`` or ``"transform"`` than the model's."""
        own = getattr(self, option)
        if not self.harmonised or own is None:
            return own in (None, value)
        return option == "transform" or order_alike(own, value)


def read_cohort_genes(path: Path) -> GeneReference:
    """The gene list of a cohort folder; FaultError if there is none."""
    try:
        cohort = open_cohort(path)
    except GimpError as error:
        raise no_gene_list(path, error) from error
    return make_gene_reference(path, {**vars(cohort), "expression": cohort.expression_facts})


def make_gene_reference(
    path: Path, facts: Mapping[str, Any], *, harmonised: bool = False
) -> GeneReference:
    """The gene list in the facts of a cohort, as a checkpoint also keeps them.

    Raises:
        FaultError: the facts are not complete, or hold no genes.
    """
    try:
        column = facts["expression"].get("column")
        if column is not None and column not in tuple(RNA_COLUMNS):
            raise ValueError(f"found the RNA column {column!r:.60}")
        reference = GeneReference(
            tuple(map(str, facts["gene_ids"])),
            tuple(map(str, facts["gene_names"])),
            {name: tuple(columns) for name, columns in facts["gene_sets"].items()},
            str(facts["expression_transform"]),
            column,
            harmonised,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise no_gene_list(path, error) from error
    if not reference.gene_ids:
        found = "a model or cohort without genes"
        raise FaultError.of("gene-reference", path, found, "an ordered gene list")
    return reference


def no_gene_list(path: Path, error: Exception) -> FaultError:
    """The fault of a path without a gene list."""
    expected = "a cohort folder, a run folder, an exported model or a checkpoint"
    return FaultError.of("gene-reference", path, " ".join(str(error).split()), expected)
