"""Clinical covariates from a table: numbers such as the age, categories such as sex and stage."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from gimp_fast.data.tables.clinical import (
    SHOWN,
    Cell,
    Column,
    Known,
    by_patient,
    listed,
    quoted,
    read_columns,
    read_numbers,
)
from gimp_fast.data.tables.target_spec import TargetSpec
from gimp_fast.errors import Faults, Read, counted, one_of
from gimp_fast.files.table import Table

NUMERIC, CATEGORICAL = "numeric", "categorical"
MOST_LEVELS = 20
MAJOR = "major"  # an option of a column of stages
# A number above which a table does not say more, as GDC has >89 for the age of old patients.
_CAPPED = re.compile(r">=?\s*(\d+(?:\.\d+)?)")
_PADDED = re.compile(r"0\d+")  # the code of a hospital, not a number
_STAGE = re.compile(r"(?:stage[ _-]*)?(0|iv|i{1,3})(?:is|[abcs]\d?)?", re.IGNORECASE)
_OUTCOME_LIKE = re.compile(
    r"(?:os|dss|pfi|pfs|dfi|dfs|rfs|efs|ttp)(?:[ _.].*)?|(?:.*[ _.])?(?:event|death)"
    r"|.*(?:surviv|censor|vital.?status|follow.?up|to.death|deceased|relapse|recurr|progression).*",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Covariate:
    """One covariate of every patient of the table.

    Attributes:
        kind: ``numeric`` or ``categorical``.
        levels: of a categorical one, sorted; else empty.
        values: patient -> a number or a level; None where the table has none.
    """

    name: str
    kind: str
    levels: tuple[str, ...]
    values: dict[str, float | str | None]


@dataclass(frozen=True)
class Covariates:
    """Covariates in the order asked for, and sentences on what was changed or may be wrong."""

    columns: tuple[Covariate, ...]
    notes: tuple[str, ...] = ()
    cautions: tuple[str, ...] = ()


def read_covariates(
    table: Table, names: Sequence[str], targets: Sequence[TargetSpec] = ()
) -> Read[Covariates]:
    """Covariates of each patient.

    A column is numeric if all its values are numbers; ``>89`` counts as 89, with a note. Numbers
    with a leading zero, such as 05, are codes. Every other column is categorical: at most 20
    levels, which may differ in case.

    Args:
        table: of patients or slides; a patient's rows must agree where they have a value.
        names: of columns; ``stage:major`` makes I, II, III and IV of AJCC's stages and substages
            (``Stage IIIA``, ``IIIA``, …) and keeps other values as they are, with a note.
        targets: what will be predicted; a covariate that is a target's column is cautioned about,
            as is one whose name is that of an outcome.

    Returns:
        The covariates whose columns could be read, with every fault: a missing column, a column
        without a value or with too many levels, rows of a patient that differ, …
    """
    faults = Faults()
    asked = [_split(name, table, faults) for name in names]
    for name, count in Counter(name for name, _ in asked).items():
        if count > 1:
            found = f"the covariate '{name}' {count} times"
            faults.add("duplicate-covariate", table.path, found, "each once")
    rows = read_columns(table, [name for name, _ in asked], faults)
    found, notes, cautions = [], [], []
    for name, is_major in asked:
        cautions += _leaks(name, targets)
        if rows.cases and name in rows.columns:
            reader = _Reader(rows.columns[name], is_major, faults)
            found.append(reader.read(rows.cases))
            notes += reader.notes
            cautions += reader.cautions
    return faults.read(Covariates(tuple(found), tuple(notes), tuple(cautions)))


def _split(name: str, table: Table, faults: Faults) -> tuple[str, bool]:
    """The column of a covariate, and whether its stages become major ones."""
    column, colon, option = name.partition(":")
    if not colon or name in table.header:
        return name, False
    if option != MAJOR:
        found = f"the option ':{option}' of the covariate '{column}'"
        faults.add("covariate-option", table.path, found, one_of(option, [MAJOR]))
    return column, option == MAJOR


def _leaks(name: str, targets: Sequence[TargetSpec]) -> Iterator[str]:
    """A sentence if a covariate may tell the outcome."""
    of = [f"'{target.name}'" for target in targets if name in target.columns]
    if of:
        why = f"it is a column of the target {listed(of)}"
    elif _OUTCOME_LIKE.fullmatch(name):
        why = "its name is that of an outcome"
    else:
        return
    yield f"covariate '{name}' may give the outcome away: {why}"


@dataclass
class _Reader:
    """One covariate while it is read."""

    column: Column
    is_major: bool
    faults: Faults
    notes: list[str] = field(default_factory=list)
    cautions: list[str] = field(default_factory=list)

    def read(self, cases: Sequence[str]) -> Covariate:
        name = self.column.name
        self.notes += self.column.notes()
        numbers = None if self.is_major else self._numbers()
        if numbers is not None:
            values, levels = by_patient(numbers, self.column, self.faults), ()
            different = {value for value, _ in values.values()}
        else:
            values, levels = self._categories()
            different = set(levels)
        if not values:
            self.faults.add("no-values", self.column.where, "no value", "a value of some patients")
        elif len(different) == 1:
            only = different.pop()
            shown = f"{only:g}" if isinstance(only, float) else f"'{only}'"
            self.cautions.append(f"covariate '{name}' tells nothing: its only value is {shown}")
        kind = CATEGORICAL if numbers is None else NUMERIC
        known = {case: value for case, (value, _) in values.items()}
        return Covariate(name, kind, levels, {case: known.get(case) for case in cases})

    def _numbers(self) -> list[tuple[Cell, float]] | None:
        """The numbers of the column; None if it is one of categories."""
        cells = self.column.codes()
        capped = {n: match[1] for n, cell in enumerate(cells)
                  if (match := _CAPPED.fullmatch(cell.text))}  # fmt: skip
        plain = [replace(cell, text=capped.get(n, cell.text)) for n, cell in enumerate(cells)]
        tried = Faults()
        numbers = read_numbers(plain, self.column, tried)
        padded = any(_PADDED.fullmatch(cell.text) for cell in cells)
        if not numbers or padded:
            return None
        if tried.items:
            self._caution_about_mixture(cells, numbers)
            return None
        texts = sorted({cells[n].text for n in capped})
        if texts:
            many = counted(len(capped), "cell")
            self.notes.append(
                f"covariate '{self.column.name}': {quoted(texts)} read as the number itself "
                f"({many})"
            )
        return numbers

    def _caution_about_mixture(
        self, cells: Sequence[Cell], numbers: Sequence[tuple[Cell, float]]
    ) -> None:
        """Name what is no number in a column in which most cells are."""
        if len(numbers) * 2 <= len(cells):
            return
        wheres = {cell.where for cell, _ in numbers}
        others = sorted({cell.text for cell in cells if cell.where not in wheres})
        self.cautions.append(
            f"covariate '{self.column.name}' is read as categories because of {quoted(others)}; "
            "all other values are numbers"
        )

    def _categories(self) -> tuple[Known[str], tuple[str, ...]]:
        """The level of each patient, and all levels."""
        cells = self.column.names() if self.column.codes() else []
        if self.is_major:
            cells = self._major(cells)
        spellings: dict[str, Counter[str]] = {}
        for cell in cells:
            spellings.setdefault(cell.text.casefold(), Counter())[cell.text] += 1
        # The commonest spelling; of two that are as common, the first in the alphabet.
        level_of = {
            key: min(counts, key=lambda text: (-counts[text], text))
            for key, counts in sorted(spellings.items())
        }
        merged = [f"'{level}'" for key, level in level_of.items() if len(spellings[key]) > 1]
        if merged:
            self.notes.append(
                f"covariate '{self.column.name}': spellings that differ in case are one level: "
                f"{listed(merged)}"
            )
        if len(level_of) > MOST_LEVELS:
            self._refuse(list(level_of.values()))
        pairs = ((cell, level_of[cell.text.casefold()]) for cell in cells)
        return by_patient(pairs, self.column, self.faults), tuple(level_of.values())

    def _refuse(self, levels: Sequence[str]) -> None:
        """Add the fault of too many levels, which names the few that are no numbers."""
        numbers = read_numbers(self.column.codes(), self.column, Faults())
        texts = {cell.text for cell, _ in numbers if not _PADDED.fullmatch(cell.text)}
        others = [level for level in levels if level not in texts]
        is_mixed = 0 < len(others) <= SHOWN
        shown = f", all numbers but {quoted(others)}" if is_mixed else f": {quoted(levels)}"
        found = f"{len(levels):,} different values{shown}"
        expected = (
            f"numbers only, or at most {MOST_LEVELS} categories; ids and free text are neither"
        )
        self.faults.add("too-many-levels", self.column.where, found, expected)

    def _major(self, cells: Sequence[Cell]) -> list[Cell]:
        """The cells with stages in place of substages."""
        stages = [_STAGE.fullmatch(cell.text) for cell in cells]
        kept = sorted({cell.text for cell, stage in zip(cells, stages, strict=True) if not stage})
        if kept and not any(stages):
            expected = "stages of AJCC such as 'Stage IIIA' or 'IIIA'"
            self.faults.add("no-stages", self.column.where, f"the values {quoted(kept)}", expected)
        elif kept:
            self.notes.append(
                f"covariate '{self.column.name}': no stages of AJCC, kept as they are: "
                f"{quoted(kept)}"
            )
        return [
            replace(cell, text=stage[1].upper()) if stage else cell
            for cell, stage in zip(cells, stages, strict=True)
        ]
