"""What a column of events says of each patient: an event, or censored. Nothing is guessed.

These codings are known, without regard to case; all values of a column must be of one of them:
0 and 1 (also 0.0 and 1.0), false and true, alive and dead, living and deceased, censored and event,
and cBioPortal's ``0:LIVING`` and ``1:DECEASED``, with any words behind the colon.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from gimp_fast.data.tables.clinical import Column, Known, by_patient, quoted
from gimp_fast.data.tables.target_spec import TargetSpec
from gimp_fast.errors import Faults, counted

# What 1 and true mean is a convention, which a name or an option may turn round.
_FLAGS = (
    {"0": False, "0.0": False, "1": True, "1.0": True},
    {"false": False, "true": True},
)
_WORDS = (
    {"alive": False, "dead": True},
    {"living": False, "deceased": True},
    {"censored": False, "event": True},
)
_CBIOPORTAL = re.compile(r"([01]):\s*(\S.*)")
# Words in the name of a column, of which a 1 may say that there was no event.
_TURNED = re.compile(r"cens(?:or|[^a-z]|$)|(?<![a-z])(?:alive|living)(?![a-z])")
_R_CODES = {"1", "1.0", "2", "2.0"}
_EXPECTED = (
    "only one of these pairs: 0 and 1, false and true, alive and dead, living and deceased, "
    "censored and event, or cBioPortal's 0:… and 1:…"
)


def read_events(column: Column, spec: TargetSpec, faults: Faults) -> Known[bool]:
    """Whether each patient had an event; nothing if the coding is refused, which is a fault."""
    cells = column.codes()
    if not cells:
        return {}
    texts = {cell.text.casefold() for cell in cells}
    coding = _coding(texts)
    if coding is None:
        found, expected = _refusal(texts, sorted({cell.text for cell in cells}))
        faults.add("event-coding", column.where, found, expected)
        return {}
    pairs = ((cell, coding[cell.text.casefold()]) for cell in cells)
    events = by_patient(pairs, column, faults)
    if coding not in _FLAGS:
        if spec.coding == "censorship":
            found = f"{quoted(sorted({cell.text for cell in cells}))}, and the option ':censorship'"
            expected = "no such option: these values say themselves what they mean"
            faults.add("event-coding", column.where, found, expected)
            return {}
        return events
    if not spec.coding and _TURNED.search(column.name.lower()):
        _add_question(column, spec, events, "01" if "0" in coding else ("false", "true"), faults)
        return {}
    if spec.coding == "censorship":
        return {case: (not value, cell) for case, (value, cell) in events.items()}
    return events


def _coding(texts: Collection[str]) -> Mapping[str, bool] | None:
    """Value in lower case -> whether it is an event; None if the values are of no known coding."""
    for coding in (*_FLAGS, *_WORDS):
        if coding.keys() >= set(texts):
            return coding
    coded = {text: _CBIOPORTAL.fullmatch(text) for text in texts}
    if not all(coded.values()):
        return None
    coding = {text: match[1] == "1" for text, match in coded.items()}
    words = {word: event for pair in _WORDS for word, event in pair.items()}
    # Where the words are known, 0:DECEASED or 1:CENSORED contradicts itself.
    contradicts = any(words.get(coded[text][2], event) != event for text, event in coding.items())
    return None if contradicts else coding


def _refusal(texts: Collection[str], spelt: list[str]) -> tuple[str, str]:
    """What was found and what was expected, of values of no known coding."""
    if texts <= _R_CODES:
        found = (
            f"the codes {quoted(spelt)}, as R's survival package may write 'censored' and 'dead'"
        )
        return found, "0 and 1: write 0 in place of 1 (censored), and 1 in place of 2 (an event)"
    return f"the values {quoted(spelt)}", _EXPECTED


def _add_question(
    column: Column, spec: TargetSpec, events: Known[bool], codes: Sequence[str], faults: Faults
) -> None:
    """Add the fault of a column in which a 1 may mean either; it says what to write."""
    ones = sum(value for value, _ in events.values())
    zeros = len(events) - ones
    zero, one = codes
    found = (
        f"{counted(zeros, 'patient')} with {zero} and {counted(ones, 'patient')} with {one} in a "
        f"column whose name leaves open which of them had an event"
    )
    expected = (
        f"'{replace(spec, coding='censorship').text}' if {one} means censored "
        f"({counted(zeros, 'event')}, {ones:,} censored), or "
        f"'{replace(spec, coding='event').text}' if {one} means an event "
        f"({counted(ones, 'event')}, {zeros:,} censored)"
    )
    faults.add("event-coding", column.where, found, expected)
