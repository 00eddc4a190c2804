"""A source of RNA-seq: its samples, and the expression that reading them gives."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from gimp_fast.data.names import TRANSFORMS
from gimp_fast.data.rna.samples import Sample
from gimp_fast.errors import Fault, Faults, GimpError, Read

GeneRows = list[dict[str, str]]
# Rows that aligners add below or above the genes, for reads outside genes.
_SUMMARY = re.compile(r"__.*|N_(?:unmapped|multimapping|noFeature|ambiguous)")
_WRONG_VALUES = {
    "expression-not-finite": ("missing or not finite", "a number for every gene"),
    "negative-expression": ("negative", "linear values of 0 or more"),
}
SUMMARY_REASON = "summary row of the aligner, not a gene"


@dataclass(frozen=True)
class Expression:
    """Expression of n samples.

    Attributes:
        values: (n, G) float32, one row per sample in the order asked for.
        genes: G rows gene_id, gene_name, gene_type.
        transform: what was applied to the values of the files.
        dropped_genes: genes that were left out: rows gene_id, gene_name, reason, source.
        provenance: kind, paths, column, transform, gene_model, ignored_columns, filters, and
            further facts of the source, such as the layer. Can be written as JSON.
    """

    values: np.ndarray
    genes: GeneRows
    transform: str = "as given"
    dropped_genes: GeneRows = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ExpressionSource:
    """The samples of one source, whose values have not been read.

    Attributes:
        kind: ``gdc``, ``matrix`` (genes in rows), ``table`` (samples in rows), ``mcat``,
            ``cbioportal``, ``h5ad``, or ``joined``.
        paths: folders or files.
        samples: all samples.
        load: samples -> their values as stored, in a new array that the caller may change.
        unit: what the numbers are, as far as the source says; sources of two units cannot be
            joined.
        column: unit of GDC files; None for others, which do not record it.
    """

    kind: str
    paths: tuple[Path, ...]
    samples: tuple[Sample, ...]
    load: Callable[[list[Sample]], Read[Expression]] = field(repr=False)
    unit: str = "as in the file"
    column: str | None = None

    @property
    def path(self) -> str:
        """The folder or file; of joined sources, the names of all."""
        return ", ".join(map(str, self.paths))

    def read(self, samples: Iterable[Sample], transform: str | None = None) -> Expression:
        """Read, check and transform samples.

        Args:
            samples: some of ``samples``.
            transform: a value of ``TRANSFORMS``; by default ``log2(x+1)`` for GDC's linear units
                and ``as given`` for everything else, which was transformed by its authors.

        Raises:
            FaultError: every unreadable file, other gene list, and non-finite or negative value.
            GimpError: no such transform.
        """
        samples, faults = list(samples), Faults()
        transform = transform or ("log2(x+1)" if self.column else "as given")
        if transform not in TRANSFORMS.values():
            expected = ", ".join(TRANSFORMS.values())
            raise GimpError(f"no transform '{transform}'; there are {expected}")
        stored = faults.take(self.load(samples))
        linear = bool(self.column) or transform != "as given"
        _check_values(samples, stored, linear, faults)
        faults.stop(self.path)
        values = stored.values
        if transform != "as given":
            # In place: there is memory for one copy of a large cohort, not for three.
            np.log1p(values, out=values)
        if transform == "log2(x+1)":
            values /= np.float32(np.log(2.0))
        provenance = {
            "kind": self.kind,
            "paths": [str(path) for path in self.paths],
            "column": self.column,
            "transform": transform,
            "gene_model": None,
            "ignored_columns": [],
            "filters": [],
            **stored.provenance,
        }
        return replace(stored, transform=transform, provenance=provenance)


def is_summary(gene_id: str) -> bool:
    """True for the name of a row that an aligner adds for reads outside genes."""
    return _SUMMARY.fullmatch(gene_id) is not None


def gene_row(gene_id: str, gene_name: str = "", gene_type: str = "") -> dict[str, str]:
    """One row of a gene table."""
    return {"gene_id": gene_id, "gene_name": gene_name, "gene_type": gene_type}


def drop_row(gene_id: str, gene_name: str, reason: str, source: object) -> dict[str, str]:
    """One row of ``dropped_genes``."""
    return dict(gene_id=gene_id, gene_name=gene_name, reason=reason, source=str(source))


def check_genes(source: object, genes: GeneRows) -> tuple[Fault, ...]:
    """Faults of a gene list: empty, a gene without id, or a gene that appears twice."""
    ids, faults = [row["gene_id"] for row in genes], Faults()
    if not ids:
        faults.add("no-genes", source, "no genes", "one gene or more")
    if "" in ids:
        found = f"{ids.count('')} genes without id, the first at place {ids.index('') + 1}"
        faults.add("gene-without-id", source, found, "an id for every gene")
    repeated = [id for id, count in Counter(ids).items() if count > 1 and id]
    if repeated:
        more = f" (and {len(repeated) - 1} other genes)" if len(repeated) > 1 else ""
        found = f"gene {repeated[0]} more than once{more}"
        faults.add("duplicate-gene", source, found, "each gene once")
    return tuple(faults.items)


def _check_values(
    samples: Sequence[Sample], stored: Expression, linear: bool, faults: Faults
) -> None:
    """Add a fault for each file with values that are not finite, or linear and negative."""
    wrong: dict[tuple[str, Path], list[tuple[Sample, np.ndarray]]] = defaultdict(list)
    for sample, row in zip(samples, stored.values, strict=True):
        kind, places = "expression-not-finite", np.flatnonzero(~np.isfinite(row))
        if linear and not len(places):
            kind, places = "negative-expression", np.flatnonzero(row < 0)
        if len(places):
            wrong[kind, sample.path].append((sample, places))
    for (kind, path), rows in wrong.items():
        what, expected = _WRONG_VALUES[kind]
        sample, first = rows[0][0].barcode, stored.genes[rows[0][1][0]]["gene_id"]
        places = np.concatenate([of_sample for _, of_sample in rows])
        count = f"{len(places)} values of {len(np.unique(places))} of {len(stored.genes)} genes"
        if len(rows) > 1:
            count += f", in {len(rows)} samples,"
        where = path if len(rows) > 1 else f"{path} ({sample})"
        faults.add(kind, where, f"{count} {what}, first gene {first} of {sample}", expected)
