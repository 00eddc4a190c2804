"""The ordered gene list to which new patients are aligned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gimp_fast.data.cohort import open_cohort
from gimp_fast.data.cohort_files import MANIFEST
from gimp_fast.errors import Fault, GimpError, Read

_PLACES = "a cohort folder, a run folder, an exported model or a checkpoint"


@dataclass(frozen=True)
class GeneReference:
    """What the expression of new patients must become.

    Attributes:
        gene_ids: in order.
        gene_names: their symbols; empty if unknown.
        gene_sets: signature -> columns.
        transform: of the values.
        column: unit of GDC files; None if the values came from elsewhere.
    """

    gene_ids: tuple[str, ...]
    gene_names: tuple[str, ...]
    gene_sets: dict[str, tuple[int, ...]]
    transform: str
    column: str | None


def is_cohort(path: Path) -> bool:
    """True if the folder is a cohort."""
    return (path / MANIFEST).is_file()


def read_cohort_genes(path: Path) -> Read[GeneReference | None]:
    """The gene list of a cohort folder; None with a fault if there is none."""
    try:
        cohort = open_cohort(path)
    except GimpError as error:
        return unreadable_genes(path, error)
    facts = {
        "gene_ids": cohort.gene_ids,
        "gene_names": cohort.gene_names,
        "gene_sets": cohort.gene_sets,
        "expression_transform": cohort.expression_transform,
        "expression": cohort.expression_facts,
    }
    return make_gene_reference(path, facts)


def make_gene_reference(path: Path, facts: Mapping[str, Any]) -> Read[GeneReference | None]:
    """The gene list in the facts of a cohort, as a checkpoint also keeps them."""
    try:
        reference = GeneReference(
            tuple(map(str, facts["gene_ids"])),
            tuple(map(str, facts["gene_names"])),
            {name: tuple(columns) for name, columns in facts["gene_sets"].items()},
            str(facts["expression_transform"]),
            facts["expression"].get("column"),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return unreadable_genes(path, error)
    if not reference.gene_ids:
        found = "a model or cohort without genes"
        return Read(None, (Fault("gene-reference", str(path), found, "an ordered gene list"),))
    return Read(reference)


def unreadable_genes(path: Path, error: Exception) -> Read[GeneReference | None]:
    """The fault of a path without a gene list."""
    found = " ".join(str(error).split())
    return Read(None, (Fault("gene-reference", str(path), found, _PLACES),))
