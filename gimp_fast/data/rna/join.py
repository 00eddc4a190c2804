"""Joins several sources of RNA-seq into one: the projects of TCGA are separate downloads."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from gimp_fast.data.rna.gene_lists import gene_key
from gimp_fast.data.rna.samples import Sample
from gimp_fast.data.rna.source import Expression, ExpressionSource, GeneRows, drop_row
from gimp_fast.errors import Fault, FaultError, Read

# A source, the places of its samples among all, and their values.
Part = tuple[ExpressionSource, list[int], Expression]


def join_sources(sources: Sequence[ExpressionSource]) -> ExpressionSource:
    """One source with the samples of all sources, and the genes that all of them have.

    Raises:
        FaultError: the sources hold other units, or the same file twice.
    """
    if len(sources) == 1:
        return sources[0]
    first, faults = sources[0], []
    for number, source in enumerate(sources[1:], start=1):
        if source.unit != first.unit:
            found = f"{source.kind} with values {source.unit}"
            expected = f"values {first.unit}, as in {first.path}"
            faults.append(Fault("mixed-units", str(source.path), found, expected))
        if source.paths in [other.paths for other in sources[:number]]:
            found = "the same source a second time"
            faults.append(Fault("duplicate-source", str(source.path), found, "each source once"))
    if faults:
        raise FaultError(faults, "expression")
    sources = _where_files_lie(sources)
    paths = tuple(path for source in sources for path in source.paths)
    samples = tuple(sample for source in sources for sample in source.samples)
    load = partial(_load, tuple(sources))
    return ExpressionSource("joined", paths, first.column, samples, load, first.unit)


def _where_files_lie(sources: Sequence[ExpressionSource]) -> list[ExpressionSource]:
    """The sources, each with its own files only: one sheet may list those of several folders."""
    samples = [sample for source in sources for sample in source.samples]
    missing = {sample for sample in samples if not os.path.exists(sample.path)}
    names = {(s.barcode, s.path.name) for s in samples if s not in missing}
    return [
        replace(
            source,
            samples=tuple(
                s
                for s in source.samples
                if s not in missing or (s.barcode, s.path.name) not in names
            ),
        )
        for source in sources
    ]


def _load(sources: tuple[ExpressionSource, ...], samples: list[Sample]) -> Read[Expression]:
    source_of = {s: n for n, source in reversed([*enumerate(sources)]) for s in source.samples}
    parts: list[Part] = []
    faults: list[Fault] = []
    for number, source in enumerate(sources):
        places = [place for place, sample in enumerate(samples) if source_of[sample] == number]
        if places:  # a source without wanted samples does not limit the genes of the others
            read = source.load([samples[place] for place in places])
            faults += read.faults
            parts.append((source, places, read.value))
    nothing = Expression(np.empty((len(samples), 0), np.float32), [])
    if faults or not parts:
        return Read(nothing, tuple(faults))
    columns, faults = _columns(parts)
    if faults:
        return Read(nothing, tuple(faults))
    common = [key for key in columns[0] if all(key in column for column in columns)]
    if not common:
        found = f"no gene of it in {', '.join(str(source.path) for source, _, _ in parts[1:])}"
        fault = Fault("no-genes", str(parts[0][0].path), found, "genes that all sources have")
        return Read(nothing, (fault,))
    values = np.empty((len(samples), len(common)), np.float32)
    for (_, places, loaded), column in zip(parts, columns, strict=True):
        values[places] = np.take(loaded.values, [column[key] for key in common], axis=1)
    dropped = [row for _, _, loaded in parts for row in loaded.dropped_genes]
    dropped += _absent(parts, columns, set(common))
    genes = _gene_rows(parts, columns, common)
    return Read(Expression(values, genes, dropped_genes=dropped, provenance=_facts(parts)))


def _columns(parts: list[Part]) -> tuple[list[dict[str, int]], list[Fault]]:
    """gene_key -> column of each part; a fault for two genes of one key."""
    columns, faults = [], []
    for source, _, loaded in parts:
        column: dict[str, int] = {}
        for place, row in enumerate(loaded.genes):
            earlier = column.setdefault(gene_key(row["gene_id"]), place)
            if earlier != place:
                found = f"genes {loaded.genes[earlier]['gene_id']} and {row['gene_id']}"
                expected = "one version of a gene"
                faults.append(Fault("duplicate-gene", str(source.path), found, expected))
        columns.append(column)
    return columns, faults


def _absent(parts: list[Part], columns: list[dict[str, int]], common: set[str]) -> GeneRows:
    """Genes that some sources have and others lack, each once."""
    rows, seen = [], set(common)
    for (source, _, loaded), column in zip(parts, columns, strict=True):
        for key, place in column.items():
            if key in seen:
                continue
            seen.add(key)
            lacking = zip(parts, columns, strict=True)
            names = ", ".join(str(other.path) for (other, _, _), c in lacking if key not in c)
            gene = loaded.genes[place]
            reason = f"not in every source: absent from {names}"
            rows.append(drop_row(gene["gene_id"], gene["gene_name"], reason, source.path))
    return rows


def _gene_rows(parts: list[Part], columns: list[dict[str, int]], common: list[str]) -> GeneRows:
    """Rows of the first source; cells that are empty there come from the next source."""
    rows = []
    for key in common:
        of_all = [
            loaded.genes[column[key]] for (_, _, loaded), column in zip(parts, columns, strict=True)
        ]
        rows.append(
            {name: next((row[name] for row in of_all if row[name]), "") for name in of_all[0]}
        )
    return rows


def _facts(parts: list[Part]) -> dict[str, object]:
    models = dict.fromkeys(loaded.provenance.get("gene_model") for _, _, loaded in parts)
    ignored = [
        name for _, _, loaded in parts for name in loaded.provenance.get("ignored_columns", [])
    ]
    return {
        "gene_model": ", ".join(filter(None, models)) or None,
        "ignored_columns": list(dict.fromkeys(ignored)),
        "sources": [
            {"kind": s.kind, "path": str(s.path), **loaded.provenance} for s, _, loaded in parts
        ],
    }
