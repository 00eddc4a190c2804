"""Genes of real tables: without a name, on several rows, without a value for some samples.

Nothing is repaired without a word: every gene that is dropped or merged is recorded with a reason.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from gimp_fast.data.names import DUPLICATE_GENES, MISSING_VALUES
from gimp_fast.data.rna.dates import find_dates
from gimp_fast.data.rna.samples import Sample
from gimp_fast.data.rna.values import Expression, GeneRows, drop_row
from gimp_fast.errors import Fault, Faults, GimpError, Read
from gimp_fast.files.numbers import MISSING_NUMBERS

# What stands in the place of a name; Entrez ids are numbers above 0.
_PLACEHOLDERS = MISSING_NUMBERS | {"-", "--", "---", "?", "NONE", "none", "NAN", "n/a", "Null"}
_NOT_ENTREZ = re.compile(r"(?:-\d+|[+-]?0+)(?:\.0+)?")
_MERGED = "repeats another row"
_DROPPED = "duplicate gene dropped"
_AVERAGED = "duplicate gene averaged"
_FIRST_USED = "duplicate gene, first row used"
_DIFFERS = "duplicate gene, other values than in its first row"
_OF_DATE = " (a date, which may stand for several genes)"
_NO_VALUE = "no value in any sample"
_FIX_DUPLICATES = "each gene once; or --duplicate-genes first, mean or drop"
_FIX_MISSING = "a number for every gene; or --missing-values drop-gene or keep"
_WRONG_VALUES = {
    "missing": ("expression-not-finite", "missing", _FIX_MISSING),
    "infinite": ("expression-not-finite", "infinite", "numbers that float32 can hold"),
    "negative": ("negative-expression", "negative", "linear values of 0 or more"),
}


def is_no_name(name: str) -> bool:
    """True for an empty cell or what tools write instead of a symbol or Entrez id."""
    return name in _PLACEHOLDERS or _NOT_ENTREZ.fullmatch(name) is not None


def check_genes(source: object, genes: GeneRows) -> tuple[Fault, ...]:
    """The fault of a source without genes."""
    faults = Faults()
    if not genes:
        faults.add("no-genes", source, "no genes", "one gene or more, with a name")
    return tuple(faults.items)


def drop_unnamed(expression: Expression, source: object) -> Expression:
    """The expression without genes that have no name."""
    ids = [row["gene_id"] for row in expression.genes]
    unnamed = [n for n, id in enumerate(ids) if is_no_name(id)]
    if not unnamed or ids == [str(n) for n in range(len(ids))]:  # columns of arrays are counted
        return expression
    rows = [
        _dropped(expression, n, f"no gene name: {place(expression, n)}", source) for n in unnamed
    ]
    return _without(expression, unnamed, rows)


def merge_duplicates(
    expression: Expression,
    source: object,
    policy: str = DUPLICATE_GENES[0],
    *,
    key: Callable[[str], str] = str,
) -> Expression:
    """Each gene once. Rows with the same values are one; of the others, ``policy`` decides.

    Args:
        expression: as stored, before the transform.
        source: named in what is dropped.
        policy: ``error`` keeps the first row, and notes the gene in ``conflicts``; ``first``;
            ``mean`` of all rows, leaving out missing values; ``drop``. A name that looks like a
            date is dropped instead of merged: it may stand for several genes.
        key: genes are the same if their ids have the same key.

    Raises:
        GimpError: no such policy.
    """
    if policy not in DUPLICATE_GENES:
        expected = ", ".join(DUPLICATE_GENES)
        raise GimpError(f"no way '{policy}' to treat duplicate genes; there are {expected}")
    groups: dict[str, list[int]] = defaultdict(list)
    for n, row in enumerate(expression.genes):
        groups[key(row["gene_id"])].append(n)
    if len(groups) == len(expression.genes):
        return expression
    conflicts, unused, rows = dict(expression.conflicts), [], []
    for first, *others in (group for group in groups.values() if len(group) > 1):
        group, values = [first, *others], expression.values[:, [first, *others]]
        id = expression.genes[first]["gene_id"]
        differ = [not np.array_equal(values[:, 0], row, equal_nan=True) for row in values.T]
        of_date = find_dates([id])
        if any(differ) and policy == "error":
            where = _listed(expression, group)
            conflicts[id] = f"in {where} with other values{_OF_DATE * bool(of_date)}"
        elif any(differ) and (policy == "drop" or of_date):
            unused.append(first)
            reason = f"{_DROPPED}: {place(expression, first)}"
            rows.append(_dropped(expression, first, reason + _OF_DATE * bool(of_date), source))
        elif any(differ) and policy == "mean":
            expression.values[:, first] = _mean(values)
        unused += others
        kept = place(expression, first)
        for n, differs in zip(others, differ[1:], strict=True):
            here = place(expression, n)
            reason = f"{_MERGED}: {here} is {kept}"
            if differs and (policy == "drop" or of_date):
                reason = f"{_DROPPED}: {here}"
            elif differs and policy == "mean":
                reason = f"{_AVERAGED}: {here}, with {kept}"
            elif differs:  # for "error", if the gene is not among those that are kept
                reason = f"{_FIRST_USED if policy == 'first' else _DIFFERS}: {kept}, not {here}"
            rows.append(_dropped(expression, n, reason, source))
    return replace(_without(expression, unused, rows), conflicts=conflicts)


def _mean(values: np.ndarray) -> np.ndarray:
    """(n, k) -> (n,) mean of what is not missing, NaN if all is."""
    known = ~np.isnan(values)
    total = np.where(known, values, 0).sum(1, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (total / known.sum(1)).astype(np.float32)


def settle(
    expression: Expression,
    samples: Sequence[Sample],
    missing_values: str = MISSING_VALUES[0],
    *,
    linear: bool,
) -> Read[Expression]:
    """The genes that were chosen, checked; genes with missing values as asked for.

    Genes without any value are dropped.

    Args:
        expression: of these samples, as stored.
        samples: one per row.
        missing_values: ``error``; ``drop-gene`` drops genes that some sample lacks; ``keep`` leaves
            NaN, which training replaces by the mean of the training patients.
        linear: whether negative values are faults.

    Raises:
        GimpError: no such treatment of missing values.
    """
    if missing_values not in MISSING_VALUES:
        expected = ", ".join(MISSING_VALUES)
        raise GimpError(f"no way '{missing_values}' to treat missing values; there are {expected}")
    faults, source = Faults(), ", ".join(expression.provenance.get("paths", [])) or "expression"
    _check_conflicts(expression, source, faults)
    missing, empty = np.zeros(len(expression.genes), np.int64), []
    for sample, row in zip(samples, expression.values, strict=True):
        missing += np.isnan(row)
        if len(row) and np.isnan(row).all():
            empty.append(sample)
    if empty:
        more = f" (and {len(empty) - 1} more)" if len(empty) > 1 else ""
        genes = "1 gene" if len(missing) == 1 else f"{len(missing)} genes"
        found = f"no value for any of {genes} in sample {empty[0].barcode}{more}"
        expected = "values; or a table without such samples"
        faults.add("expression-not-finite", empty[0].path, found, expected)
        return faults.read(expression)
    lost = np.flatnonzero(missing == len(samples)) if samples else np.empty(0, int)
    reasons = {n: _NO_VALUE for n in lost}
    if missing_values == "drop-gene":
        some = np.flatnonzero((missing > 0) & (missing < len(samples)))
        count = f"of {len(samples)} samples"
        reasons |= {n: f"missing value: in {missing[n]} {count}" for n in some}
    rows = [_dropped(expression, n, reasons[n], source) for n in sorted(reasons)]
    expression = _without(expression, sorted(reasons), rows)
    if reasons and not expression.genes:
        found = f"no gene with a value for {'every' if len(reasons) > len(lost) else 'any'} sample"
        faults.add("no-genes", source, found, "one gene or more")
    kept = missing[np.setdiff1d(np.arange(len(missing)), [*reasons])]
    if missing_values == "keep" and kept.any():
        counts = {"values": int(kept.sum()), "genes": int((kept > 0).sum())}
        provenance = expression.provenance | {"missing_values": counts}
        expression = replace(expression, provenance=provenance)
    _check_values(expression, samples, missing_values, linear, faults)
    return faults.read(expression)


def _check_conflicts(expression: Expression, source: str, faults: Faults) -> None:
    ids = [row["gene_id"] for row in expression.genes if row["gene_id"] in expression.conflicts]
    if ids:
        more = f" (and {len(ids) - 1} other genes)" if len(ids) > 2 else ""
        more = " (and 1 other gene)" if len(ids) == 2 else more
        found = f"gene {ids[0]} {expression.conflicts[ids[0]]}{more}"
        faults.add("duplicate-gene", source, found, _FIX_DUPLICATES)


def _check_values(
    expression: Expression,
    samples: Sequence[Sample],
    missing_values: str,
    linear: bool,
    faults: Faults,
) -> None:
    """Add a fault for each file with missing, infinite, or linear and negative values."""
    wrong: dict[tuple[str, Path], list[tuple[Sample, np.ndarray]]] = defaultdict(list)
    for sample, row in zip(samples, expression.values, strict=True):
        kind, places = "missing", np.flatnonzero(np.isnan(row))
        if missing_values == "keep" or not len(places):
            kind, places = "infinite", np.flatnonzero(np.isinf(row))
        if linear and not len(places):
            kind, places = "negative", np.flatnonzero(row < 0)
        if len(places):
            wrong[kind, sample.path].append((sample, places))
    for (what, path), rows in wrong.items():
        kind, what, expected = _WRONG_VALUES[what]
        sample, first = rows[0][0].barcode, expression.genes[rows[0][1][0]]["gene_id"]
        places = np.concatenate([of_sample for _, of_sample in rows])
        genes = f"{len(np.unique(places))} of {len(expression.genes)} genes"
        count = f"{len(places)} value{'s' if len(places) > 1 else ''} of {genes}"
        if len(rows) > 1:
            count += f", in {len(rows)} samples,"
        where = path if len(rows) > 1 else f"{path} ({sample})"
        faults.add(kind, where, f"{count} {what}, first gene {first} of {sample}", expected)


def place(expression: Expression, n: int) -> str:
    """Where a gene is in its source: ``row 7``."""
    return expression.places[n] if expression.places else f"place {n + 1}"


def _listed(expression: Expression, group: Sequence[int]) -> str:
    """``rows 7, 8 and 9``."""
    word = place(expression, group[0]).split()[0]
    numbers = [place(expression, n).split()[-1] for n in group]
    if len(numbers) > 5:
        return f"{len(numbers)} {word}s, the first {numbers[0]} and {numbers[1]},"
    return f"{word}s {', '.join(numbers[:-1])} and {numbers[-1]}"


def _dropped(expression: Expression, n: int, reason: str, source: object) -> dict[str, str]:
    row = expression.genes[n]
    return drop_row(row["gene_id"], row["gene_name"], reason, source)


def _without(expression: Expression, places: Iterable[int], rows: GeneRows) -> Expression:
    """The expression without some of its genes, which are recorded; itself if there are none."""
    places = set(places)
    if not places:
        return expression
    kept = [n for n in range(len(expression.genes)) if n not in places]
    return replace(
        expression,
        values=np.take(expression.values, kept, axis=1),
        genes=[expression.genes[n] for n in kept],
        places=[expression.places[n] for n in kept] if expression.places else (),
        dropped_genes=[*expression.dropped_genes, *rows],
    )
