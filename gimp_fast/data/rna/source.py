"""A source of RNA-seq: its samples, and the expression that reading them gives."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from gimp_fast.data.names import DUPLICATE_GENES, MISSING_VALUES, TRANSFORMS
from gimp_fast.data.rna.dates import note_dates
from gimp_fast.data.rna.repairs import check_genes, drop_unnamed, merge_duplicates, settle
from gimp_fast.data.rna.samples import Sample
from gimp_fast.data.rna.values import Expression
from gimp_fast.errors import Faults, GimpError, Read


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
        duplicate_genes: what to do with a gene on several rows, one of ``DUPLICATE_GENES``.
    """

    kind: str
    paths: tuple[Path, ...]
    samples: tuple[Sample, ...]
    load: Callable[[list[Sample]], Read[Expression]] = field(repr=False)
    unit: str = "as in the file"
    column: str | None = None
    duplicate_genes: str = DUPLICATE_GENES[0]

    @property
    def path(self) -> str:
        """The folder or file; of joined sources, the names of all."""
        return ", ".join(map(str, self.paths))

    def stored(self, samples: list[Sample]) -> Read[Expression]:
        """The values of samples as stored, each gene once and with a name."""
        read = self.load(samples)
        if read.faults and not read.value.genes:
            return read
        stored = note_dates(drop_unnamed(read.value, self.path), self.path)
        stored = merge_duplicates(stored, self.path, self.duplicate_genes)
        return Read(stored, (*read.faults, *check_genes(self.path, stored.genes)))

    def read(
        self,
        samples: Iterable[Sample],
        transform: str | None = None,
        *,
        choose: Callable[[Expression], Expression] = lambda expression: expression,
        missing_values: str = MISSING_VALUES[0],
    ) -> Expression:
        """Read, check and transform samples.

        Args:
            samples: some of ``samples``.
            transform: a value of ``TRANSFORMS``; by default ``log2(x+1)`` for GDC's linear units
                and ``as given`` for everything else, which was transformed by its authors.
            choose: keeps some of the genes; the others are not checked.
            missing_values: what to do with genes that have no value in some of the samples, one of
                ``MISSING_VALUES``.

        Raises:
            FaultError: every unreadable file, other gene list, and missing, infinite or negative
                value; or a gene that appears twice with other values.
            GimpError: no such transform.
        """
        samples, faults = list(samples), Faults()
        transform = transform or ("log2(x+1)" if self.column else "as given")
        if transform not in TRANSFORMS.values():
            expected = ", ".join(TRANSFORMS.values())
            raise GimpError(f"no transform '{transform}'; there are {expected}")
        stored = faults.take(self.stored(samples))
        stored = replace(stored, provenance=self._provenance(stored, transform), places=())
        with faults.collect():
            stored = choose(stored)
            linear = bool(self.column) or transform != "as given"
            stored = faults.take(settle(stored, samples, missing_values, linear=linear))
        faults.stop(self.path)
        values = stored.values
        if transform != "as given":
            # In place: there is memory for one copy of a large cohort, not for three.
            np.log1p(values, out=values)
        if transform == "log2(x+1)":
            values /= np.float32(np.log(2.0))
        return replace(stored, transform=transform)

    def _provenance(self, stored: Expression, transform: str) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "paths": [str(path) for path in self.paths],
            "column": self.column,
            "transform": transform,
            "gene_model": None,
            "ignored_columns": [],
            "filters": [],
            **stored.provenance,
        }
