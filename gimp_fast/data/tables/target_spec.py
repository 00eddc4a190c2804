"""What a target is called, its kind, and the columns it is read from, as one word of a command."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gimp_fast.errors import GimpError, counted, one_of
from gimp_fast.files.safe_text import visible

CLASS, SURVIVAL, REGRESSION = "class", "survival", "regression"
# Kind -> the columns it needs, in words, and an example.
KINDS = {
    CLASS: (("the column of classes",), "subtype=class:type"),
    SURVIVAL: (
        ("the column of times", "the column of events"),
        "os=survival:os_days,os_event",
    ),
    REGRESSION: (("the column of numbers",), "tmb=regression:tmb"),
}
UNITS = ("days", "weeks", "months", "years")
CODINGS = ("event", "censorship")
ZEROS = ("drop", "half")
# Option -> the field of the spec that it sets, and its value there.
_OPTIONS = {
    **{unit: ("unit", unit) for unit in UNITS},
    **{coding: ("coding", coding) for coding in CODINGS},
    **{f"zero={zero}": ("zero", zero) for zero in ZEROS},
}
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,39}")
_SHOWN = 80  # characters of what was given


@dataclass(frozen=True)
class TargetSpec:
    """A target and where it is read from; written ``NAME=KIND:COLUMNS[:OPTION…]``.

    - ``subtype=class:type``: one column, a class for each patient.
    - ``os=survival:os_days,os_event``: a column of times and a column of events.
    - ``tmb=regression:tmb``: one column of numbers.

    Survival has options, in any order: the unit of the times (``:days``, ``:weeks``, ``:months``,
    ``:years``), which the name of the column may say instead; what a 1 means in the column of
    events (``:event``, or ``:censorship``: it is censored); and what becomes of a time of zero
    (``:zero=drop`` leaves the patient out of this target, ``:zero=half`` puts half of the smallest
    positive time in its place). Names of columns contain no comma and no colon.
    """

    name: str
    kind: str
    columns: tuple[str, ...]
    unit: str = ""
    coding: str = ""
    zero: str = ""

    @classmethod
    def parse(cls, text: str) -> TargetSpec:
        """The target that a text describes.

        Raises:
            GimpError: the text does not have this form.
        """
        name, equals, rest = text.partition("=")
        kind, *parts = (part.strip() for part in rest.split(":"))
        if not equals or not parts:
            examples = " or ".join(example for _, example in KINDS.values())
            raise _error(text, _quoted(text), f"NAME=KIND:COLUMNS, such as {examples}")
        if not _NAME.fullmatch(name.strip()):
            expected = "a letter, then letters, digits, _ and -; 40 characters at most"
            raise _error(text, f"the name {_quoted(name)}", expected)
        if kind not in KINDS:
            raise _error(text, f"the kind {_quoted(kind)}", one_of(kind, KINDS))
        columns = tuple(column.strip() for column in parts[0].split(","))
        needed, example = KINDS[kind]
        if len(columns) != len(needed) or not all(columns) or len(set(columns)) != len(columns):
            given = counted(len(columns), "column")
            expected = f"{' and '.join(needed)}, such as {example}"
            raise _error(text, f"{given}, {_quoted(parts[0])}", expected)
        return cls(name.strip(), kind, columns, **_options(text, kind, parts[1:]))

    @property
    def text(self) -> str:
        """The text that ``parse`` reads as this target."""
        zero = f"zero={self.zero}" if self.zero else ""
        options = [f":{option}" for option in (self.unit, self.coding, zero) if option]
        return f"{self.name}={self.kind}:{','.join(self.columns)}{''.join(options)}"


def _options(text: str, kind: str, given: list[str]) -> dict[str, str]:
    """Field of the spec -> what the options say."""
    fields: dict[str, str] = {}
    for option in given:
        if kind != SURVIVAL:
            raise _error(text, f"the option {_quoted(option)}", f"none: {kind} has no options")
        if option not in _OPTIONS:
            raise _error(text, f"the option {_quoted(option)}", one_of(option, _OPTIONS))
        field, value = _OPTIONS[option]
        if field in fields:
            alike = [name for name, (other, _) in _OPTIONS.items() if other == field]
            found = f"the options {_quoted(':'.join(given))}"
            raise _error(text, found, f"only one of {', '.join(alike)}")
        fields[field] = value
    return fields


def _error(text: str, found: str, expected: str) -> GimpError:
    return GimpError(f"target {_quoted(text)}: found {found}; expected {expected}")


def _quoted(text: str) -> str:
    shown = visible(text, keep="")
    return f"'{shown[:_SHOWN]}…'" if len(shown) > _SHOWN else f"'{shown}'"
