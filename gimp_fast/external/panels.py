"""Decides which figures a validation has, and words their captions."""

from __future__ import annotations

from itertools import groupby

from gimp_fast.evaluation.calibration import ECE
from gimp_fast.external import figures
from gimp_fast.external.kinds import Kind
from gimp_fast.external.missing_result import MissingCurve
from gimp_fast.external.missing_texts import LACKS, share_text
from gimp_fast.external.number_texts import interval_text
from gimp_fast.external.result import Group, Validation
from gimp_fast.pages import style
from gimp_fast.report.outcome_figures import predicted_against_true, survival_calibration
from gimp_fast.report.panels import Panel

_FEW = 20  # patients of a calibration group below which the page warns of chance
_NEW = "new patients"


def score_panel(found: Validation, kind: Kind) -> Panel:
    """The main score here, on the own test patients, and the difference of both."""
    score = found.scores[found.main]
    rows = [("new patients", score.new, style.ACCENT)]
    if score.single is not None:
        rows.append(("new patients, single models", score.single, style.ACCENT))
    rows.append(("own test patients", score.own, style.INK))
    lines = [figures.Line(text, one, colour) for text, one, colour in rows if one is not None]
    name, title = "scores", f"{score.title}, here and on the own test patients"
    if not lines:
        return Panel(name, title, f"Left out: {score.title} is not defined.")
    drawing = figures.intervals(lines, score.title, kind.bounds, kind.by_chance)
    alt = f"{title}. " + "; ".join(f"{line.text} {interval_text(line.estimate)}" for line in lines)
    caption = "Lines are 95 % intervals."
    if kind.by_chance is not None:
        caption += f" The dashed line, {kind.by_chance:g}, is chance."
    return Panel(name, title, caption, alt, drawing)


def calibration_panels(found: Validation) -> list[Panel]:
    """Reliability of classes, calibration at horizons, or predicted against true numbers."""
    if found.kind == "class":
        return [_reliability(found)]
    if found.kind == "survival":
        return [_at_horizon(found, number) for number in range(len(found.calibration.horizons))]
    predicted, truth = (found.table[name].to_numpy() for name in ("prediction", "true_truth"))
    title = "Predicted and true values"
    drawing = predicted_against_true(predicted, truth, _NEW)
    return [Panel("predicted", title, f"{len(truth)} new patients.", title, drawing)]


def _reliability(found: Validation) -> Panel:
    before, after = found.calibration.before, found.calibration.after
    caption = (
        f"{found.patients} new patients in bins of confidence, the probability of the predicted "
        "class; each bin holds equally many, and lines are 95 % Wilson intervals. "
        f"{ECE}: {before.reliability.error:.3f} as predicted"
    )
    caption += "." if after is None else f", {after.reliability.error:.3f} after scaling."
    drawing = figures.reliability(before.reliability, after and after.reliability)
    alt = "Reliability diagram. " + "; ".join(
        f"confidence {c:.2f}: {100 * s:.0f} % right"
        for c, s in zip(before.reliability.confidence, before.reliability.share, strict=True)
    )
    return Panel("calibration", "Calibration", caption, alt, drawing)


def _at_horizon(found: Validation, number: int) -> Panel:
    at = found.calibration.horizons[number]
    name, title = f"calibration_{number + 1}", f"Calibration at {at.text}"
    if at.groups is None:
        return Panel(name, title, f"Left out: {at.reason}.")
    groups = at.groups
    caption = (
        f"{found.patients} new patients in {len(groups.count)} groups of predicted survival; "
        "lines are 95 % intervals."
    )
    if groups.count.min() < _FEW:
        caption += " The groups are small: expect points far from the line by chance."
    points = zip(groups.predicted, groups.observed, strict=True)
    alt = f"{title}. " + "; ".join(f"predicted {p:.2f}, observed {o:.2f}" for p, o in points)
    return Panel(name, title, caption, alt, survival_calibration(groups, at.text, _NEW))


def group_panel(found: Validation, kind: Kind) -> Panel:
    """The main score of every group that has one."""
    title, lines = f"{found.scores[found.main].title} by group", []
    for by, groups in groupby(found.groups, key=lambda group: group.by):
        scored = [group for group in groups if group.score is not None]
        if scored:
            lines += [figures.Line(_first_upper(by)), *map(_line, scored)]
    if not lines:
        return Panel("groups", title, "Left out: no group is large enough.")
    every = found.scores[found.main].new
    drawing = figures.intervals(
        lines, found.scores[found.main].title, kind.bounds, every and every.value
    )
    caption = (
        "Lines are 95 % intervals; the dashed line is the score of all new patients. Groups that "
        "are too small are in the table only. Of many groups, some differ by chance."
    )
    alt = f"{title}. " + "; ".join(
        f"{line.text} {interval_text(line.estimate)}" for line in lines if line.estimate
    )
    return Panel("groups", title, caption, alt, drawing)


def missing_panel(curve: MissingCurve, kind: Kind, patients: int) -> Panel:
    """The score of patients of whom more and more lack a modality."""
    name, lacks = f"missing_{curve.lacks}", LACKS[curve.lacks]
    title = f"{curve.title} without {lacks}"
    if all(point.score is None for point in curve.points):
        return Panel(name, title, f"Left out: {curve.title} is not defined.")
    caption = (
        f"{patients} patients, of whom it is drawn who lack {lacks}. The band is of patients and "
        "of these draws."
    )
    alt = f"{title}. " + "; ".join(
        f"{share_text(point.share)}: {interval_text(point.score)}" for point in curve.points
    )
    drawing = figures.missing(curve, f"Patients without {lacks} (%)", kind.bounds)
    return Panel(name, title, caption, alt, drawing)


def _line(group: Group) -> figures.Line:
    return figures.Line(f"{group.name} ({group.patients})", group.score)


def _first_upper(text: str) -> str:
    return text[:1].upper() + text[1:]
