"""What a validation says in words, the same on the page and on the console."""

from __future__ import annotations

from gimp_fast.external.number_texts import counts_text, interval_text, units_text
from gimp_fast.external.result import Validation


def verdict(found: Validation) -> str:
    """What the difference of the main score says, and what it does not, in a sentence or two."""
    score = found.scores[found.main]
    if score.difference is None:
        return (
            f"{score.title} cannot be compared with the own test patients: it is missing there or "
            "not defined here."
        )
    text = f"{score.title} here minus on the own test patients: "
    text += f"{interval_text(score.difference, signed=True)}."
    if score.difference.low <= 0 <= score.difference.high:
        return f"{text} The interval includes zero: no difference is shown, and none is excluded."
    return f"{text} The interval excludes zero."


def summary(found: Validation) -> list[str]:
    """Lines for the console."""
    kind = "SYNTHETIC cohort" if found.cohort["synthetic"] else "cohort"
    counts = f", {counts_text(found.counts)}" if found.counts else ""
    lines = [f"{found.patients} new patients of the {kind} '{found.cohort['name']}'{counts}"]
    lines += left_out_lines(found)
    lines.append(units_text(found.drawn))
    for score in found.scores.values():
        own = f"; own test {interval_text(score.own)}" if score.own else ""
        gap = score.difference
        change = f"; difference {interval_text(gap, signed=True)}" if gap else ""
        lines.append(f"{score.title}: {interval_text(score.new)}{own}{change}")
    lines.append(verdict(found))
    warned = ", ".join(f"{code} {count}" for code, count in found.warnings.items())
    lines.append(f"warnings of predict (patients): {warned or 'none'}")
    return [*lines, *(f"note: {note}" for note in found.notes)]


def left_out_lines(found: Validation) -> list[str]:
    """A line for each reason for which patients are not in the scores."""
    left = found.left_out
    reasons = (
        (len(left.known or {}), "a model was trained or chosen on them"),
        (left.unlabelled, f"without a known {found.target or 'label'}"),
        (left.not_predicted, "without anything that the model reads"),
    )
    return [f"left out: {count} patients, {why}" for count, why in reasons if count]
