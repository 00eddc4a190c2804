"""What a page, a console and a table say of patients who lack a modality."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import asdict
from itertools import groupby
from typing import Any

from gimp_fast.evaluation.intervals import Estimate
from gimp_fast.external.missing_result import Missing, MissingCurve, MissingPoint
from gimp_fast.external.number_texts import interval_text, signed_text

LACKS = {"rna": "RNA", "slide": "slides"}
_ALONE = {"rna": "RNA alone", "slide": "slides alone", "either": "models of one modality"}
_REMAINS = {"rna": "slide", "slide": "rna"}
_COLUMNS = (
    "lacks", "score", "share", "patients_lacking", "value", "low", "high", "reference",
    "reference_value", "reference_low", "reference_high", "difference", "difference_low",
    "difference_high", "tolerance", "falls_below",
)  # fmt: skip


def by_lack(found: Missing) -> list[tuple[str, list[MissingCurve]]]:
    """(what lacks, its curves), in order."""
    return [(lacks, list(of)) for lacks, of in groupby(found.curves, lambda curve: curve.lacks)]


def has_reference(curve: MissingCurve) -> bool:
    return curve.worst is not None


def reference_name(point: MissingPoint) -> str:
    """Which models the reference is of."""
    return _ALONE.get(point.reference_is, "")


def verdicts(found: Missing) -> Iterator[str]:
    """A sentence on each score that has a tolerance, or on what is missing to judge by."""
    for lacks, curves in by_lack(found):
        if not any(map(has_reference, curves)):
            yield (
                f"Without {LACKS[lacks]}: no model of {_ALONE[_REMAINS[lacks]]} was given "
                "(--against), so nothing says what the remaining modality can reach."
            )
            continue
        if not any(point.reference_is == "either" for c in curves for point in c.points) and (
            lacks not in {model["modalities"] for model in found.against}
        ):
            yield (
                f"Without {LACKS[lacks]}: no model of {_ALONE[lacks]} was given, so patients who "
                "still have it are held against the other modality only."
            )
        for curve in curves:
            if curve.falls_below is not None:
                yield _verdict(curve)
    for lacks, reason in found.reasons.items():
        yield f"Without {LACKS[lacks]}: no curve, because {reason}."


def _verdict(curve: MissingCurve) -> str:
    worst = curve.worst
    text = (
        f"{curve.title} without {LACKS[curve.lacks]}: at worst "
        f"{signed_text(worst.difference.value)} ({signed_text(worst.difference.low)} to "
        f"{signed_text(worst.difference.high)}) against {reference_name(worst)}, where "
        f"{share_text(worst.share)} lack it. "
    )
    if curve.falls_below:
        return text + f"It falls below by more than {curve.tolerance:g}."
    return text + f"It never falls below by more than {curve.tolerance:g}."


def share_text(share: float) -> str:
    """``25 %``."""
    return f"{100 * share:g} %"


def reads_text(found: Missing) -> str:
    """Who is followed, in a sentence."""
    if found.patients == found.of:
        return f"All {found.of} new patients have slides and RNA."
    who = f"{found.patients} of {found.of} new patients who have slides and RNA"
    return f"Only the {who} are followed."


def rows(curves: list[MissingCurve]) -> Iterator[tuple[MissingPoint, list[str]]]:
    """A row of the page's table for each share: a point for its share, and the cells."""
    for points in zip(*(curve.points for curve in curves), strict=True):
        cells = []
        for curve, point in zip(curves, points, strict=True):
            cells.append(interval_text(point.score))
            if has_reference(curve):
                cells += [interval_text(point.reference), interval_text(point.difference, True)]
        yield points[0], cells


def heads(curves: list[MissingCurve]) -> list[str]:
    """The heads of the columns of ``rows``."""
    found = []
    for curve in curves:
        found.append(curve.title)
        if has_reference(curve):
            found += ["best of one modality", "difference"]
    return found


def missing_lines(found: Missing) -> str:
    """The text of ``missing.csv``: a line for each score, share and direction."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, _COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for curve in found.curves:
        for point in curve.points:
            writer.writerow(_row(curve, point))
    return stream.getvalue()


def _row(curve: MissingCurve, point: MissingPoint) -> dict[str, Any]:
    row = {
        "lacks": curve.lacks,
        "score": curve.score,
        "share": f"{point.share:g}",
        "patients_lacking": point.lacking,
        "reference": point.reference_is,
        "tolerance": "" if curve.tolerance is None else f"{curve.tolerance:g}",
    }
    row |= _numbers(point.score, ("value", "low", "high"))
    row |= _numbers(point.reference, ("reference_value", "reference_low", "reference_high"))
    row |= _numbers(point.difference, ("difference", "difference_low", "difference_high"))
    if curve.tolerance is not None and point.difference is not None:
        row["falls_below"] = int(point.difference.value < -curve.tolerance)
    return row


def _numbers(found: Estimate | None, names: tuple[str, str, str]) -> dict[str, str]:
    if found is None:
        return {}
    values = asdict(found).values()
    return {name: f"{value:.9g}" for name, value in zip(names, values, strict=True)}
