"""The genes of a cohort: those that the options name, or those of a model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from gimp_fast.data.prepare.audits.sex import sex_genes_of
from gimp_fast.data.prepare.gene_reference import GeneReference
from gimp_fast.data.prepare.options import RnaOptions
from gimp_fast.data.rna.dates import describe_dates, describe_losses
from gimp_fast.data.rna.gene_lists import list_rows, read_gene_list, read_gene_sets
from gimp_fast.data.rna.genes import (
    NOT_MEASURED,
    align_expression,
    columns_of,
    filter_genes,
    keep_aligned,
    lost_genes,
    measured_as,
)
from gimp_fast.data.rna.values import Expression
from gimp_fast.errors import GimpError


@dataclass
class Choice:
    """Chooses genes before their values are checked, and finishes when they have been.

    Attributes:
        sets: signature -> ids of its genes.
        measured: the measured id of each gene of the reference.
        sex_genes: symbol -> values as stored, of those that the source has, kept or not.
    """

    rna: RnaOptions
    reference: GeneReference | None
    sets: dict[str, list[str]] = field(default_factory=dict)
    measured: list[str | None] = field(default_factory=list)
    sex_genes: dict[str, np.ndarray] = field(default_factory=dict)

    def choose(self, expression: Expression) -> Expression:
        """The genes asked for, as stored.

        Raises:
            GimpError: ``keep_other_genes`` without gene sets.
            FaultError: as ``filter_genes`` and the readers of gene lists.
        """
        rna, reference = self.rna, self.reference
        self.sex_genes = sex_genes_of(expression)
        if reference is not None:
            ids, names = reference.gene_ids, reference.gene_names
            self.measured = measured_as(expression.genes, ids, names)
            return keep_aligned(expression, self.measured)
        if rna.keep_other_genes and not rna.gene_sets:
            raise GimpError("--keep-other-genes: needs --gene-sets, which say what others are")
        if not (rna.gene_types or rna.genes or rna.gene_sets):
            return expression
        gene_sets = rna.gene_sets and read_gene_sets(rna.gene_sets)
        before = len(expression.dropped_genes)
        expression, columns = filter_genes(
            expression,
            gene_types=rna.gene_types,
            gene_list=rna.genes and read_gene_list(rna.genes),
            gene_sets=gene_sets,
            keep_others=rna.keep_other_genes,
        )
        ids = [row["gene_id"] for row in expression.genes]
        self.sets = {title: [ids[n] for n in places] for title, places in columns.items()}
        cautions = []
        if rna.genes:
            rows, names = zip(*list_rows(rna.genes), strict=True)
            cautions.append(describe_dates(rna.genes, names, rows))
        if gene_sets:
            members = [(f"signature {t}", gene) for t, genes in gene_sets.items() for gene in genes]
            titles, names = zip(*members, strict=True)
            cautions.append(describe_dates(rna.gene_sets, names, titles))
        lost = [
            (row["source"], row["gene_id"], row["reason"].removeprefix(NOT_MEASURED).strip(" ()"))
            for row in expression.dropped_genes[before:]
            if row["reason"].startswith(NOT_MEASURED)
        ]
        cautions.append(describe_losses(rna.gene_sets or rna.genes or "the genes", lost))
        return _with_cautions(expression, cautions)

    def finish(
        self, expression: Expression
    ) -> tuple[Expression, dict[str, tuple[int, ...]], tuple[str, ...]]:
        """The expression after checks; signature -> columns; ids of genes that are not measured.

        Raises:
            FaultError: a signature without genes, or most of the reference is missing.
        """
        reference = self.reference
        if reference is None:
            return expression, columns_of(expression.genes, self.sets), ()
        ids, names = reference.gene_ids, reference.gene_names
        absent = [symbol or id for id, symbol, found in self._reference() if found is None]
        lost = [("the model", *of_gene) for of_gene in lost_genes(expression, absent)]
        expression = _with_cautions(expression, [describe_losses(self.rna.genes_of, lost)])
        expression, missing = align_expression(expression, ids, names, self.measured)
        return expression, reference.gene_sets, missing

    def _reference(self) -> Iterable[tuple[str, str, str | None]]:
        ids, names = self.reference.gene_ids, self.reference.gene_names
        return zip(ids, names or ("",) * len(ids), self.measured, strict=True)


def _with_cautions(expression: Expression, texts: Iterable[str]) -> Expression:
    cautions = [*expression.provenance.get("cautions", []), *filter(None, texts)]
    return replace(expression, provenance=expression.provenance | {"cautions": cautions})
