"""Checks that names of patients, slides, classes, genes, splits and cohorts can be shown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gimp_fast.data.cohort_files import Rows
from gimp_fast.data.tables.labels import LabelRow
from gimp_fast.errors import Faults
from gimp_fast.files.safe_text import is_hidden, visible

_LONGEST = 200  # characters of a name; file systems end at 255 bytes
_EXPECTED = f"a name of visible characters, {_LONGEST} at most"


def check_names(
    rows: Sequence[LabelRow], genes: Rows, where: object, others: Iterable[tuple[str, str, str]]
) -> Faults:
    """Faults of names with control characters, or so long that no table can show them.

    Args:
        rows: patients with their slides and classes.
        genes: rows of ``genes.csv``.
        where: of the genes.
        others: what has a name, the name, and where it comes from.
    """
    faults, seen = Faults(), set()
    for row in rows:
        names = (("patient", row.case_id), ("slide", row.slide_id), ("class", row.label))
        _check(names, row.where, seen, faults)
    for gene in genes:
        _check((("gene", gene["gene_id"]), ("gene", gene["gene_name"])), where, seen, faults)
    for what, name, place in others:
        _check(((what, name),), place, seen, faults)
    return faults


def _check(
    names: Iterable[tuple[str, str]], where: object, seen: set[tuple[str, str]], faults: Faults
) -> None:
    for what, text in names:
        if (what, text) in seen:
            continue
        seen.add((what, text))
        if len(text) > _LONGEST:
            found = f"a {what} name of {len(text)} characters, '{visible(text[:40], keep='')}…'"
            faults.add("bad-name", where, found, _EXPECTED)
        elif any(map(is_hidden, text)):
            shown = visible(text, keep="")
            faults.add("bad-name", where, f"{what} '{shown}' with control characters", _EXPECTED)
