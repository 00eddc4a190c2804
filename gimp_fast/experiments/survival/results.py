"""The numbers of the table of survival, from its finished runs, over one cohort or several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from gimp_fast.data import Cohort
from gimp_fast.evaluation.comparison import Difference, PairedDraws, corrected, paired_draws
from gimp_fast.evaluation.intervals import Estimate, Spread, estimate, spread
from gimp_fast.evaluation.kaplan_meier import Curve, Outcomes, censoring_distribution
from gimp_fast.evaluation.rates import in_blocks
from gimp_fast.evaluation.survival_predictions import (
    SurvivalPredictions,
    concordance,
    survival_metrics,
)
from gimp_fast.experiments.finished import Call, Finished, failed_of
from gimp_fast.experiments.measures import concordance_of, outcomes_in
from gimp_fast.experiments.mixtures import with_mixtures
from gimp_fast.experiments.plan import Plan, PlannedRun
from gimp_fast.experiments.resampling import Units, draw
from gimp_fast.experiments.rows import ALL_SPLITS, Experiment, Row, heading_of, split_groups
from gimp_fast.experiments.survival.fallback import mix

# Intervals of scores besides the C-index, of which no p is made, need fewer resamples.
OF_OTHER_SCORES = 2000
# Of a model's input, as `metrics.json` calls them: all of it, and what it is shown alone.
PARTS_OF_INPUT = ("both", "rna", "slide", "without_covariates", "covariates")


@dataclass(frozen=True)
class Scores:
    """What a row reaches on the test patients of a group of splits.

    A patient has a prediction from each fold and seed; every score is the mean over runs. None
    where no run defines it.
    """

    predictions: int
    patients: int
    events: int
    c_index: Estimate | None
    c_of_runs: Spread
    uno_c: Estimate | None
    mean_auc: Estimate | None
    integrated_brier: Estimate | None


@dataclass(frozen=True)
class RowScores:
    """One row in one group of splits of a cohort; ``results.json`` holds its fields.

    ``runs`` of ``of`` are finished; without any, test and val are None. ``failed`` maps a run to
    its error. ``versus`` is the difference in the C-index to the row that it is compared with.
    ``weight`` is that of the model in a mixture with its fallback. ``by_modality`` maps a part of
    what the model reads, of ``PARTS_OF_INPUT``, to the C-index of the trained model that is shown
    it alone, over runs; parts that no run has are absent.
    """

    runs: int
    of: int
    failed: dict[str, str]
    test: Scores | None = None
    val: Spread | None = None
    versus: Difference | None = None
    weight: Spread | None = None
    by_modality: dict[str, Spread] = field(default_factory=dict)


@dataclass(frozen=True)
class Group:
    """Splits of a cohort that are reported together.

    Attributes:
        name: of the splits, without their numbers.
        patients: case ids of all test patients.
        units: what was drawn for intervals.
        unit: of times, such as ``"days"``.
        finished: row key -> its finished runs; rows without one are absent, here and below.
        predictions: row key -> its predictions of test patients.
        concordance: row key -> its C-index, of all patients and of each resample, as a difference
            to nothing.
        differences: row key -> the same minus that of the row that it is compared with.
        scores: row key -> scores, for every row.
    """

    cohort: Cohort
    name: str
    heading: str
    splits: tuple[str, ...]
    patients: tuple[str, ...]
    units: Units
    unit: str
    finished: dict[str, tuple[Finished, ...]]
    predictions: dict[str, SurvivalPredictions]
    concordance: dict[str, PairedDraws]
    differences: dict[str, PairedDraws]
    scores: dict[str, RowScores]


@dataclass(frozen=True)
class Overall:
    """The mean over cohorts of the C-index, of the rows that all of them have."""

    name: str
    heading: str
    c_index: dict[str, Estimate]
    versus: dict[str, Difference]


@dataclass(frozen=True)
class OfCohort:
    """What the command did on one cohort."""

    call: Call
    plan: Plan
    finished: Mapping[str, Finished]
    errors: Mapping[str, str]
    target: str


@dataclass(frozen=True)
class Results:
    """Everything that the outputs show.

    Attributes:
        rows: that were asked for.
        skipped: row key -> why no cohort can have it.
        groups: of all cohorts.
        overall: for each name of splits that several cohorts have.
        finished: every finished run once.
        errors: run -> its error, of all runs that failed.
    """

    experiment: Experiment
    parts: tuple[OfCohort, ...]
    rows: tuple[Row, ...]
    skipped: dict[str, str]
    groups: tuple[Group, ...]
    overall: tuple[Overall, ...]
    finished: tuple[Finished, ...]
    errors: dict[str, str]
    num_runs: int


def summarise(experiment: Experiment, parts: Sequence[OfCohort]) -> Results:
    """Numbers of every row in every group of splits of every cohort."""
    groups, skipped, done, failed, count = [], {}, [], {}, 0
    for part in parts:
        runs, finished = with_mixtures(experiment.name, part.plan, part.finished, mix)
        trained = {run.digest: run for run in part.plan.runs}
        done += [finished[digest] for digest in trained if digest in finished]
        failed |= {
            _named(part, run, len(parts)): part.errors[run.digest]
            for run in trained.values()
            if run.digest in part.errors
        }
        count += len(trained)
        skipped |= {key: why for (_, key), why in part.plan.skipped.items()}
        for name, splits in split_groups(part.call.splits).items():
            here = {key: [r for r in of_row if r.split in splits] for key, of_row in runs.items()}
            several = len(parts) > 1
            groups.append(_group(name, splits, here, experiment, part, finished, several))
    known = set().union(*(group.scores for group in groups))
    rows = tuple(row for row in experiment.rows if row.key in known or row.key in skipped)
    skipped = {key: why for key, why in skipped.items() if key not in known}
    overall = tuple(_overall(groups, experiment)) if len(parts) > 1 else ()
    return Results(
        experiment, tuple(parts), rows, skipped, tuple(groups), overall, tuple(done), failed, count
    )


def _named(part: OfCohort, run: PlannedRun, cohorts: int) -> str:
    return f"{part.call.cohort.name}: {run}" if cohorts > 1 else str(run)


def _group(
    name: str,
    splits: Sequence[str],
    runs: dict[str, list[PlannedRun]],
    experiment: Experiment,
    part: OfCohort,
    finished: Mapping[str, Finished],
    several: bool,
) -> Group:
    """A group of splits of a cohort, given the runs of every row in them."""
    cohort, call = part.call.cohort, part.call
    done = {
        key: ended
        for key, of_row in runs.items()
        if (ended := tuple(finished[run.digest] for run in of_row if run.digest in finished))
    }
    tests = [one.predictions.of("test") for ended in done.values() for one in ended]
    patients = tuple(sorted(set().union(*(test.case_id.tolist() for test in tests))))
    predictions = {key: _predictions(ended, patients, splits) for key, ended in done.items()}
    units, weights = draw(cohort, splits, patients, call.resamples)
    censoring = {
        number: _censoring(cohort, split, part.target) for number, split in enumerate(splits)
    }
    drawn = {key: _concordance(found, weights) for key, found in predictions.items()}
    differences = _differences(experiment, predictions, weights)
    versus = _corrected(differences)
    scores = {}
    for key, of_row in runs.items():
        test = val = weight = None
        parts: dict[str, Spread] = {}
        if key in done:
            test = _scores(predictions[key], drawn[key], weights[:OF_OTHER_SCORES], censoring)
            val = spread([concordance_of(one.predictions.of("val")) for one in done[key]])
            given = [one.weight for one in done[key] if one.weight is not None]
            weight = spread(given) if given else None
            parts = _by_modality(done[key])
        failed, count = failed_of(of_row, part.errors), len(done.get(key, ()))
        scores[key] = RowScores(
            count, len(of_row), failed, test, val, versus.get(key), weight, parts
        )
    heading = _heading(cohort.name, name) if several else heading_of(name)
    return Group(
        cohort, name, heading, tuple(splits), patients, units, cohort.targets[part.target].unit,
        done, predictions, drawn, differences, scores,
    )  # fmt: skip


def _by_modality(finished: Sequence[Finished]) -> dict[str, Spread]:
    """The C-index of each part of the input, of the runs that recorded one."""
    metrics = [one.metrics for one in finished if one.metrics is not None]
    shown = [each.by_modality for each in metrics if each.by_modality is not None]
    found: dict[str, list[float]] = {}
    for name in PARTS_OF_INPUT:
        for each in shown:
            scores = getattr(each, name)
            if scores is not None and scores.c_index is not None:
                found.setdefault(name, []).append(scores.c_index.value)
    return {name: spread(values) for name, values in found.items()}


def _heading(what: str, name: str) -> str:
    """What a number is of, and of which splits if their name says something."""
    splits = heading_of(name)
    return what if splits == ALL_SPLITS else f"{what}, {splits}"


def _predictions(
    finished: Sequence[Finished], patients: Sequence[str], splits: Sequence[str]
) -> SurvivalPredictions:
    """All predictions of test patients; numbers are places in ``patients`` and ``splits``."""
    place = {case: number for number, case in enumerate(patients)}
    tests = [one.predictions.of("test") for one in finished]
    sizes = [len(test) for test in tests]
    known = [outcomes_in(test) for test in tests]
    columns = [name for name in tests[0].predicted if name != "risk"]
    survival = [np.stack([test.predicted[name] for name in columns], axis=1) for test in tests]
    return SurvivalPredictions(
        patient=np.array([place[case] for test in tests for case in test.case_id], int),
        split=np.repeat([splits.index(one.run.split) for one in finished], sizes),
        run=np.repeat(np.arange(len(finished)), sizes),
        outcomes=Outcomes(
            np.concatenate([one.time for one in known]),
            np.concatenate([one.event for one in known]),
        ),
        risk=np.concatenate([test.predicted["risk"] for test in tests]),
        survival=np.concatenate(survival),
        horizons=np.array([float(name.removeprefix("survival_")) for name in columns]),
    )


def _censoring(cohort: Cohort, split: str, target: str) -> Curve:
    """Of the training patients of a split."""
    known = [case for case in cohort.split(split)["train"] if cohort.knows(case, target)]
    truth = cohort.truth(known, target)
    return censoring_distribution(Outcomes(truth[:, 0], truth[:, 1] > 0))


def _concordance(found: SurvivalPredictions, weights: np.ndarray) -> PairedDraws:
    """Harrell's C, mean over runs."""
    (value,) = concordance(found, np.ones((1, weights.shape[1])))
    draws = np.concatenate([concordance(found, some) for some in in_blocks(weights)])
    return PairedDraws(float(value), draws, len(np.unique(found.patient)))


def _differences(
    experiment: Experiment, predictions: Mapping[str, SurvivalPredictions], weights: np.ndarray
) -> dict[str, PairedDraws]:
    """Each row against the one that it is compared with, if both have predictions."""
    found = {}
    for row in experiment.rows:
        other = row.versus or experiment.reference
        if row.key != other and {row.key, other} <= predictions.keys():
            pair = predictions[row.key], predictions[other]
            if (drawn := paired_draws(*pair, weights, concordance)) is not None:
                found[row.key] = drawn
    return found


def _corrected(differences: Mapping[str, PairedDraws]) -> dict[str, Difference]:
    tests = {key: drawn.difference() for key, drawn in differences.items()}
    return corrected({key: test for key, test in tests.items() if test is not None})


def _scores(
    test: SurvivalPredictions,
    drawn: PairedDraws,
    weights: np.ndarray,
    censoring: Mapping[int, Curve],
) -> Scores:
    others = survival_metrics(test, weights, censoring)
    first = np.unique(test.patient, return_index=True)[1]
    once = np.ones((1, weights.shape[1]))
    return Scores(
        predictions=len(test),
        patients=len(first),
        events=int(test.outcomes.event[first].sum()),
        c_index=estimate(drawn.value, drawn.draws),
        c_of_runs=spread([float(concordance(run, once)[0]) for run in test.by_run()]),
        uno_c=others["uno_c"],
        mean_auc=others["mean_auc"],
        integrated_brier=others.get("integrated_brier"),
    )


def _overall(groups: Sequence[Group], experiment: Experiment) -> list[Overall]:
    """Means over cohorts, for names of splits that several have."""
    found = []
    for name in dict.fromkeys(group.name for group in groups):
        here = [group for group in groups if group.name == name]
        if len(here) < 2:
            continue
        c_index, differences = {}, {}
        for row in experiment.rows:
            if all(row.key in group.concordance for group in here):
                mean = PairedDraws.mean([group.concordance[row.key] for group in here])
                if (value := estimate(mean.value, mean.draws)) is not None:
                    c_index[row.key] = value
            if all(row.key in group.differences for group in here):
                differences[row.key] = PairedDraws.mean([g.differences[row.key] for g in here])
        heading = _heading(f"Mean of {len(here)} cohorts", name)
        found.append(Overall(name, heading, c_index, _corrected(differences)))
    return found
