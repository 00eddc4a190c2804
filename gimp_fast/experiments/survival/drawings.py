"""The figures of a table of survival, each with its caption."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from gimp_fast.evaluation.intervals import Estimate
from gimp_fast.evaluation.kaplan_meier import Outcomes, logrank
from gimp_fast.experiments.document import Drawing
from gimp_fast.experiments.measures import outcomes_in
from gimp_fast.experiments.row_figure import Line, figure_of_rows
from gimp_fast.experiments.survival.results import Group, Results
from gimp_fast.report.outcome_figures import survival_curves
from gimp_fast.runs.score_texts import p_text

CHANCE = 0.5


def drawings(results: Results) -> Iterator[Drawing]:
    """Every figure, in the order of the page."""
    for overall in results.overall:
        lines = {key: (value, ()) for key, value in overall.c_index.items()}
        yield _by_row(results, f"c_index_mean_{overall.name}", overall.heading, lines,
                      "Each dot is the mean of the cohorts' C-indices")  # fmt: skip
    for group in results.groups:
        lines = {
            key: (scores.test.c_index, scores.test.c_of_runs.values)
            for key, scores in group.scores.items()
            if scores.test and scores.test.c_index
        }
        if lines:
            yield _by_row(results, f"c_index_{_stem(group)}", group.heading, lines,
                          f"Intervals are over {group.units.words}")  # fmt: skip
    for group in results.groups:
        if (drawing := _kaplan_meier(results, group)) is not None:
            yield drawing


def _stem(group: Group) -> str:
    """A file stem: letters, digits, dots and dashes of the cohort, and the splits."""
    name = "".join(c if c.isalnum() or c in ".-" else "_" for c in group.cohort.name)
    return f"{name}_{group.name}"


def _by_row(
    results: Results,
    name: str,
    heading: str,
    found: Mapping[str, tuple[Estimate, Sequence[float]]],
    how: str,
) -> Drawing:
    rows = [row for row in results.rows if row.key in found]
    values = "; ".join(f"{row.title} {found[row.key][0].value:.3f}" for row in rows)
    lines = {row: Line(*found[row.key]) for row in rows}
    return Drawing(
        name, f"C-index, {heading}",
        f"C-index over all folds and seeds with its bootstrap 95 % interval. {how}. At 0.5 a model "
        "knows nothing of the order of events. GiMP is in colour.",
        f"C-index on test patients, {heading}: {values}",
        figure_of_rows(lines, "C-index on test patients", mark=CHANCE),
    )  # fmt: skip


def _kaplan_meier(results: Results, group: Group) -> Drawing | None:
    """Two groups of test patients, by the risk that the reference gives them."""
    done = group.finished.get(results.experiment.reference, ())
    votes: dict[str, list[bool]] = {}
    outcomes: dict[str, tuple[float, bool]] = {}
    for one in done:
        test, cut = one.predictions.of("test"), one.metrics.target.risk_cut
        known = outcomes_in(test)
        for place, case in enumerate(test.case_id.tolist()):
            votes.setdefault(case, []).append(bool(test.predicted["risk"][place] > cut))
            outcomes[case] = float(known.time[place]), bool(known.event[place])
    groups = {}
    for name, wanted in (("lower risk", False), ("higher risk", True)):
        chosen = [outcomes[case] for case, found in votes.items() if _most(found) == wanted]
        if not any(event for _, event in chosen):
            return None
        groups[name] = Outcomes(*map(np.array, zip(*chosen, strict=True)))
    row, p = results.experiment.reference_row, p_text(logrank(*groups.values()))
    return Drawing(
        f"kaplan_meier_{_stem(group)}", f"Kaplan–Meier, {group.heading}",
        f"Test patients in two groups by the risk that {row.title} gives them, cut at the median "
        f"risk of the training patients of each run; log-rank {p}. With several folds or seeds, "
        "a patient is in the group where most runs put them.",
        f"Kaplan–Meier curves of two risk groups, {group.heading}, log-rank {p}",
        survival_curves(groups, group.unit),
    )  # fmt: skip


def _most(votes: Sequence[bool]) -> bool:
    return sum(votes) > len(votes) / 2
