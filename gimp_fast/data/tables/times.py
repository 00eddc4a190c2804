"""The unit of survival times, which the column's name or the target says, and whether it fits."""

from __future__ import annotations

import re
from dataclasses import replace

from gimp_fast.data.tables.clinical import Column
from gimp_fast.data.tables.target_spec import UNITS, TargetSpec
from gimp_fast.errors import Faults

_FIFTY_YEARS = {"days": 18_250, "weeks": 2_600, "months": 600, "years": 50}
_FEW_DAYS = 200  # no follow-up that is counted in days ends so early; one in months may


def read_unit(column: Column, spec: TargetSpec, faults: Faults) -> str:
    """The unit of a column of times; empty if nothing says it, which is a fault."""
    words = re.findall("[a-z]+", column.name.lower())
    named = [unit for unit in UNITS if any(word.endswith(unit) for word in words)]
    if spec.unit:
        if named not in ([], [spec.unit]):
            found = f"the option ':{spec.unit}' for a column whose name says {' and '.join(named)}"
            expected = "the same unit: correct the option, or rename the column"
            faults.add("time-unit", column.where, found, expected)
        return spec.unit
    if len(named) == 1:
        return named[0]
    says = f"says {' and '.join(named)}" if named else "does not say their unit"
    options = [f"'{replace(spec, unit=unit).text}'" for unit in UNITS]
    expected = f"the unit as an option: {', '.join(options[:-1])} or {options[-1]}"
    if column.name.lower().endswith(".time"):
        expected += "; TCGA's clinical data resource (TCGA-CDR), which has such names, counts days"
    faults.add("time-unit", column.where, f"times in a column whose name {says}", expected)
    return ""


def unit_caution(column: Column, unit: str, longest: float) -> str:
    """A sentence if the longest time hardly fits the unit; else empty."""
    found = f"the longest time in column '{column.name}' is {longest:g} {unit}"
    if longest > _FIFTY_YEARS[unit]:
        return f"{found}, which is more than 50 years: is this the unit?"
    if unit == "days" and longest < _FEW_DAYS:
        return f"{found}: are these months?"
    return ""
