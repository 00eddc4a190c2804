"""Joins several sources of RNA-seq into one: the projects of TCGA are separate downloads."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from gimp_fast.data.rna.dates import DATES
from gimp_fast.data.rna.gene_lists import gene_key
from gimp_fast.data.rna.repairs import merge_duplicates
from gimp_fast.data.rna.samples import Sample
from gimp_fast.data.rna.source import ExpressionSource
from gimp_fast.data.rna.values import Expression, GeneRows, drop_row
from gimp_fast.errors import FaultError, Faults, Read

_OF_PATIENTS = ("renamed_samples", "cautions")  # facts that may name patients, kept once


@dataclass(frozen=True)
class _Part:
    """A source, the places of its samples among all, and their values."""

    source: ExpressionSource
    places: list[int]
    expression: Expression
    column_of: dict[str, int]  # gene_key -> column

    def gene(self, key: str) -> dict[str, str]:
        return self.expression.genes[self.column_of[key]]


def join_sources(sources: Sequence[ExpressionSource]) -> ExpressionSource:
    """One source with the samples of all sources, and the genes that all of them have.

    Raises:
        FaultError: the sources hold other units, or the same file twice.
    """
    if len(sources) == 1:
        return sources[0]
    first, faults = sources[0], Faults()
    for number, source in enumerate(sources[1:], start=1):
        if source.unit != first.unit:
            found = f"{source.kind} with values {source.unit}"
            expected = f"values {first.unit}, as in {first.path}"
            faults.add("mixed-units", source.path, found, expected)
        if source.paths in [other.paths for other in sources[:number]]:
            found = "the same source a second time"
            faults.add("duplicate-source", source.path, found, "each source once")
    faults.stop("expression")
    sources = _where_files_lie(sources)
    paths = tuple(path for source in sources for path in source.paths)
    samples = tuple(sample for source in sources for sample in source.samples)
    load = partial(_load, sources)
    return ExpressionSource(
        "joined", paths, samples, load, first.unit, first.column, first.duplicate_genes
    )


def _where_files_lie(sources: Sequence[ExpressionSource]) -> list[ExpressionSource]:
    """The sources, each with its own files only: one sheet may list those of several folders."""
    samples = [sample for source in sources for sample in source.samples]
    missing = {sample for sample in samples if not os.path.exists(sample.path)}
    present = {(s.barcode, s.path.name) for s in samples if s not in missing}
    elsewhere = {s for s in missing if (s.barcode, s.path.name) in present}
    return [
        replace(source, samples=tuple(s for s in source.samples if s not in elsewhere))
        for source in sources
    ]


def _load(sources: Sequence[ExpressionSource], samples: list[Sample]) -> Read[Expression]:
    try:
        return Read(_join(_read_parts(sources, samples), len(samples)))
    except FaultError as error:
        return Read(Expression(np.empty((len(samples), 0), np.float32), []), error.faults)


def _read_parts(sources: Sequence[ExpressionSource], samples: list[Sample]) -> list[_Part]:
    """What each source has of the samples."""
    source_of = {s: n for n, source in reversed([*enumerate(sources)]) for s in source.samples}
    parts, faults = [], Faults()
    for number, source in enumerate(sources):
        places = [place for place, sample in enumerate(samples) if source_of[sample] == number]
        if places:  # a source without wanted samples does not limit the genes of the others
            expression = faults.take(source.stored([samples[place] for place in places]))
            # Sources name other versions of a gene; a source with two of them has it twice.
            expression = merge_duplicates(
                expression, source.path, source.duplicate_genes, key=gene_key
            )
            rows = enumerate(expression.genes)
            column_of = {gene_key(row["gene_id"]): column for column, row in rows}
            parts.append(_Part(source, places, expression, column_of))
    faults.stop("expression")
    return parts


def _join(parts: list[_Part], num_samples: int) -> Expression:
    first, *others = parts
    common = [key for key in first.column_of if all(key in part.column_of for part in others)]
    if not common:
        found = f"no gene of it in {', '.join(part.source.path for part in others)}"
        raise FaultError.of("no-genes", first.source.path, found, "genes that all sources have")
    values = np.empty((num_samples, len(common)), np.float32)
    for part in parts:
        columns = [part.column_of[key] for key in common]
        values[part.places] = np.take(part.expression.values, columns, axis=1)
    genes = [_first_known([part.gene(key) for part in parts]) for key in common]
    dropped = [row for part in parts for row in part.expression.dropped_genes]
    dropped += _absent(parts, set(common))
    conflicts = _conflicts(parts, dict(zip(common, genes, strict=True)))
    return Expression(
        values, genes, dropped_genes=dropped, provenance=_facts(parts), conflicts=conflicts
    )


def _conflicts(parts: list[_Part], genes: dict[str, dict[str, str]]) -> dict[str, str]:
    """What is wrong with genes of some source, under the id that the joined gene has."""
    found: dict[str, str] = {}
    for part in parts:
        for id, what in part.expression.conflicts.items():
            if gene := genes.get(gene_key(id)):
                found.setdefault(gene["gene_id"], f"{what} in {part.source.path}")
    return found


def _first_known(rows: GeneRows) -> dict[str, str]:
    """The first row; cells that are empty there come from the next."""
    return {name: next((row[name] for row in rows if row[name]), "") for name in rows[0]}


def _absent(parts: list[_Part], seen: set[str]) -> GeneRows:
    """Genes that some sources have and others lack, each once."""
    rows = []
    for part in parts:
        for key in part.column_of:
            if key not in seen:
                seen.add(key)
                lacking = [other.source.path for other in parts if key not in other.column_of]
                gene, reason = part.gene(key), "not in every source: absent from "
                reason += ", ".join(lacking)
                rows.append(drop_row(gene["gene_id"], gene["gene_name"], reason, part.source.path))
    return rows


def _facts(parts: list[_Part]) -> dict[str, object]:
    facts = [part.expression.provenance for part in parts]
    models = dict.fromkeys(filter(None, (fact.get("gene_model") for fact in facts)))
    ignored = dict.fromkeys(name for fact in facts for name in fact.get("ignored_columns", []))
    renamed = {new: old for fact in facts for new, old in fact.get("renamed_samples", {}).items()}
    dates = {name: genes for fact in facts for name, genes in fact.get(DATES, {}).items()}
    return {
        "gene_model": ", ".join(models) or None,
        "ignored_columns": list(ignored),
        "renamed_samples": renamed,
        "cautions": [text for fact in facts for text in fact.get("cautions", [])],
        DATES: dates,
        "sources": [
            {
                "kind": part.source.kind,
                "path": part.source.path,
                **{k: v for k, v in part.expression.provenance.items() if k not in _OF_PATIENTS},
            }
            for part in parts
        ],
    }
