"""Choosing genes by biotype, list or signature; aligning them to the gene list of a model."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from gimp_fast.data.rna.dates import DATES, why_lost
from gimp_fast.data.rna.gene_lists import gene_key
from gimp_fast.data.rna.values import Expression, GeneRows, drop_row, gene_row
from gimp_fast.errors import FaultError, Faults

_PAR_Y = "_PAR_Y"
NOT_MEASURED = "not measured"


class _Finder:
    """Columns of an expression by gene id (without version) or name."""

    def __init__(self, genes: GeneRows):
        self.genes = genes
        self._by_key: dict[str, list[int]] = defaultdict(list)
        self._by_name: dict[str, list[int]] = defaultdict(list)
        for place, row in enumerate(genes):
            self._by_key[gene_key(row["gene_id"])].append(place)
            self._by_name[row["gene_name"]].append(place)

    def by_id(self, gene_id: str) -> list[int]:
        """Columns of this id; of the same version if there are several versions."""
        places = self._by_key.get(gene_key(gene_id), [])
        same = [place for place in places if self.genes[place]["gene_id"] == gene_id]
        return same or places

    def by_name(self, name: str) -> list[int]:
        """Columns of this name; without the copy on Y if there is one on X."""
        places = self._by_name.get(name, []) if name else []
        return [n for n in places if not self.genes[n]["gene_id"].endswith(_PAR_Y)] or places

    def find(self, names: Sequence[str], what: str) -> dict[str, int]:
        """name -> column of the ids or names found; FaultError for ambiguous ones, or none."""
        found, faults = {}, Faults()
        for name in names:
            places = self.by_id(name) or self.by_name(name)
            if len(places) > 1:
                ids = ", ".join(self.genes[place]["gene_id"] for place in places[:5])
                expected = "a name of one gene; give its id instead"
                faults.add("ambiguous-gene", what, f"'{name}', which is {ids}", expected)
            elif places:
                found[name] = places[0]
        if not found and not faults.items:
            measured = ", ".join(row["gene_id"] for row in self.genes[:3])
            have = f"none of {len(names)} genes, e.g. {', '.join(names[:3])}"
            faults.add("no-genes", what, have, f"ids or names as measured, e.g. {measured}")
        faults.stop(what)
        return found


def lost_genes(expression: Expression, names: Iterable[str]) -> list[tuple[str, str]]:
    """(gene, where it may be in the table) of genes that were asked for and are not found."""
    dates = expression.provenance.get(DATES, {})
    measured = {row[column] for row in expression.genes for column in ("gene_id", "gene_name")}
    return [(name, why_lost(name, measured, dates)) for name in names]


def _lost_rows(expression: Expression, names: Iterable[str], source: str) -> GeneRows:
    return [
        drop_row(name, "", f"{NOT_MEASURED} ({why})" if why else NOT_MEASURED, source)
        for name, why in lost_genes(expression, names)
    ]


def filter_genes(
    expression: Expression,
    *,
    gene_types: Sequence[str] = (),
    gene_list: Sequence[str] | None = None,
    gene_sets: Mapping[str, Sequence[str]] | None = None,
    keep_others: bool = False,
) -> tuple[Expression, dict[str, tuple[int, ...]]]:
    """Keep genes by biotype, then by list, then by signature.

    Args:
        expression: values (n, G).
        gene_types: biotypes to keep, e.g. ``protein_coding``.
        gene_list: ids (of any version) or names to keep, in this order.
        gene_sets: signatures, whose union is kept in order of first appearance.
        keep_others: keep genes of no signature too, after those.

    Returns:
        The expression, with everything dropped in ``dropped_genes`` and the filters in
        ``provenance["filters"]``; and signature -> columns of it.

    Raises:
        FaultError: no gene types in the source, nothing kept, a name of several genes, or a
            signature without a measured gene.
    """
    columns: dict[str, tuple[int, ...]] = {}
    if gene_types:
        expression = _keep_types(expression, gene_types)
    if gene_list is not None:
        names = list(dict.fromkeys(gene_list))
        found = _Finder(expression.genes).find(names, "the gene list")
        note = {"filter": "gene_list", "genes": len(names)}
        lost = _lost_rows(expression, (n for n in names if n not in found), "the gene list")
        expression = _keep(expression, found.values(), "not in the gene list", note, lost)
    if gene_sets:
        expression, columns = _keep_sets(expression, gene_sets, keep_others)
    return expression, columns


def _keep_types(expression: Expression, gene_types: Sequence[str]) -> Expression:
    source = _source(expression)
    if not any(row["gene_type"] for row in expression.genes):
        found, expected = "genes without types", "a source with gene types, such as GDC STAR"
        raise FaultError.of("no-gene-types", source, found, expected)
    places = [n for n, row in enumerate(expression.genes) if row["gene_type"] in gene_types]
    if not places:
        found = "types " + ", ".join(sorted({row["gene_type"] for row in expression.genes}))[:200]
        raise FaultError.of("no-genes", source, found, f"genes of {', '.join(gene_types)}")
    note = {"filter": "gene_types", "types": list(gene_types)}
    return _keep(expression, places, "gene type not kept", note)


def _keep_sets(
    expression: Expression, gene_sets: Mapping[str, Sequence[str]], keep_others: bool
) -> tuple[Expression, dict[str, tuple[int, ...]]]:
    names = list(dict.fromkeys(name for genes in gene_sets.values() for name in genes))
    found = _Finder(expression.genes).find(names, "the gene sets")
    faults, lost = Faults(), []
    for title, genes in gene_sets.items():
        absent = [name for name in genes if name not in found]
        lost += _lost_rows(expression, absent, f"gene set {title}")
        if len(absent) == len(genes):
            first = [f"{n} ({why})" if why else n for n, why in lost_genes(expression, genes[:3])]
            have = f"none of {len(genes)} genes, e.g. {', '.join(first)}"
            faults.add("empty-gene-set", title, have, "genes that are measured and kept")
    faults.stop("the gene sets")
    column_of = {place: column for column, place in enumerate(dict.fromkeys(found.values()))}
    columns = {
        title: tuple(dict.fromkeys(column_of[found[name]] for name in genes if name in found))
        for title, genes in gene_sets.items()
    }
    note = {"filter": "gene_sets", "sets": len(gene_sets), "genes": len(names)}
    if keep_others:
        note["others"] = "kept"
    others = [place for place in range(len(expression.genes)) if place not in column_of]
    kept = [*column_of, *(others if keep_others else ())]
    return _keep(expression, kept, "in no gene set", note, lost), columns


def _keep(
    expression: Expression,
    columns: Iterable[int],
    reason: str,
    note: dict[str, object],
    lost: GeneRows | None = None,
) -> Expression:
    """The expression with these columns only; the other genes are recorded as dropped."""
    kept, source = dict.fromkeys(columns), _source(expression)
    left_out = [row for n, row in enumerate(expression.genes) if n not in kept]
    dropped = [drop_row(row["gene_id"], row["gene_name"], reason, source) for row in left_out]
    filters = [*expression.provenance.get("filters", []), {**note, "kept": len(kept)}]
    return replace(
        expression,
        values=np.take(expression.values, list(kept), axis=1),
        genes=[expression.genes[n] for n in kept],
        dropped_genes=[*expression.dropped_genes, *dropped, *(lost or [])],
        provenance={**expression.provenance, "filters": filters},
    )


def _source(expression: Expression) -> str:
    return ", ".join(expression.provenance.get("paths", [])) or "expression"


def keep_aligned(expression: Expression, measured: Iterable[str | None]) -> Expression:
    """The genes of these ids, without a record of the others."""
    wanted = set(measured)
    kept = [n for n, row in enumerate(expression.genes) if row["gene_id"] in wanted]
    values = np.take(expression.values, kept, axis=1)
    return replace(expression, values=values, genes=[expression.genes[n] for n in kept])


def measured_as(
    genes: GeneRows, gene_ids: Sequence[str], gene_names: Sequence[str] = ()
) -> list[str | None]:
    """The measured id of each gene of a list, as ``find_genes`` finds it."""
    columns = find_genes(genes, gene_ids, gene_names)
    return [None if column is None else genes[column]["gene_id"] for column in columns]


def columns_of(
    genes: GeneRows, gene_sets: Mapping[str, Sequence[str]]
) -> dict[str, tuple[int, ...]]:
    """Signature -> columns of its genes, by ids.

    Raises:
        FaultError: a signature that has lost all of its genes.
    """
    place_of, faults = {row["gene_id"]: n for n, row in enumerate(genes)}, Faults()
    columns = {
        title: tuple(place_of[id] for id in ids if id in place_of)
        for title, ids in gene_sets.items()
    }
    for title, places in columns.items():
        if not places:
            found = f"none of {len(gene_sets[title])} genes with a value for every sample"
            faults.add("empty-gene-set", title, found, "genes that are measured and kept")
    faults.stop("the gene sets")
    return columns


def align_expression(
    expression: Expression,
    gene_ids: Sequence[str],
    gene_names: Sequence[str] = (),
    measured: Sequence[str | None] | None = None,
) -> tuple[Expression, tuple[str, ...]]:
    """Expression of new patients in the order of a model's gene list.

    Genes match by ``gene_key`` of their ids, or else by name: one source may have Ensembl ids and
    the other symbols, so that a name of the list is an id here, or the reverse. A measured gene is
    used for one gene of the list only.

    Args:
        expression: values (n, G) of the new patients.
        gene_ids: G_ref ids, in order.
        gene_names: their names; ``""`` for unknown ones.
        measured: the measured id of each, if ``measured_as`` has found them already.

    Returns:
        The expression, with values (n, G_ref), NaN where a gene is missing; and the ids of the list
        that are not measured, or only under a name of several genes.

    Raises:
        FaultError: more than half of the list is missing.
        ValueError: another number of names than ids.
    """
    gene_names = gene_names or ("",) * len(gene_ids)
    if measured is None:
        measured = measured_as(expression.genes, gene_ids, gene_names)
    place_of = {row["gene_id"]: place for place, row in enumerate(expression.genes)}
    columns = [place_of.get(id) for id in measured]
    missing = tuple(id for id, column in zip(gene_ids, columns, strict=True) if column is None)
    if 2 * len(missing) > len(gene_ids):
        here = ", ".join(row["gene_id"] for row in expression.genes[:3])
        found = f"{len(missing)} of {len(gene_ids)} genes not measured, e.g. "
        found += ", ".join(missing[:3])
        expected = f"most genes of the model; measured are e.g. {here}"
        raise FaultError.of("genes-missing", _source(expression), found, expected)
    values = np.full((len(expression.values), len(gene_ids)), np.nan, np.float32)
    places = [place for place, column in enumerate(columns) if column is not None]
    values[:, places] = expression.values[:, [columns[place] for place in places]]
    genes = [gene_row(*gene) for gene in zip(gene_ids, gene_names, strict=True)]
    return replace(expression, values=values, genes=genes), missing


def find_genes(
    genes: GeneRows, gene_ids: Sequence[str], gene_names: Sequence[str] = ()
) -> list[int | None]:
    """A measured column for each gene of a list, no column twice; None for a missing gene.

    Args:
        genes: the measured genes.
        gene_ids, gene_names: the list, as in ``align_expression``.

    Raises:
        ValueError: another number of names than ids.
    """
    if gene_names and len(gene_names) != len(gene_ids):
        raise ValueError(f"{len(gene_names)} gene names for {len(gene_ids)} gene ids")
    finder, gene_names = _Finder(genes), gene_names or ("",) * len(gene_ids)
    by_id = [finder.by_id(id) for id in gene_ids]
    columns = _unique([places[0] if len(places) == 1 else None for places in by_id])
    used = {column for column in columns if column is not None}
    named: list[int | None] = []
    for id, name, places in zip(gene_ids, gene_names, by_id, strict=True):
        # A copy on Y has the name of the gene on X, which must not be used for it.
        if places or id.endswith(_PAR_Y):
            named.append(None)
            continue
        options = set(finder.by_name(name) or finder.by_name(id) or (name and finder.by_id(name)))
        named.append(options.pop() if len(options) == 1 else None)
    named = _unique([None if column in used else column for column in named])
    return [one if one is not None else other for one, other in zip(columns, named, strict=True)]


def _unique(columns: list[int | None]) -> list[int | None]:
    """None for a column that more than one gene of the list claims."""
    claims = Counter(columns)
    return [column if claims[column] == 1 else None for column in columns]
