"""The numbers of a table of classes, from its finished runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from gimp_fast.evaluation.calibration import brier, reliability
from gimp_fast.evaluation.comparison import Comparison, compare_all
from gimp_fast.evaluation.intervals import Estimate, Spread, spread
from gimp_fast.evaluation.rates import (
    EstimatedShare,
    Predictions,
    Share,
    estimates,
    mean_estimate,
)
from gimp_fast.experiments.classes.fallback import mix
from gimp_fast.experiments.classes.vectors import (
    Probe,
    Separation,
    linear_probe,
    pretrained_vectors,
    separation,
)
from gimp_fast.experiments.finished import Call, Finished, failed_of
from gimp_fast.experiments.mixtures import with_mixtures
from gimp_fast.experiments.plan import Plan, PlannedRun
from gimp_fast.experiments.resampling import Units, draw
from gimp_fast.experiments.rows import BOTH, Experiment, Row, heading_of, split_groups


@dataclass(frozen=True)
class Scores:
    """What a row reaches on the test patients of a group of splits.

    A patient has a prediction from each fold and seed. The AUC is None if no run has patients of
    every class.
    """

    predictions: int
    patients: int
    accuracy: EstimatedShare
    balanced_accuracy: Estimate | None
    f1_macro: Estimate | None
    auc: Estimate | None
    accuracy_of_runs: Spread
    cross_entropy: Estimate
    calibration_error: float
    brier: float


@dataclass(frozen=True)
class Validation:
    """What a row reaches on the patients that choose its epoch."""

    accuracy: Share


@dataclass(frozen=True)
class ByModality:
    """Models of both modalities that were shown one or both, on test patients who have both.

    ``weight`` is the fusion weight that validation patients gave to the classifier of both; it, and
    the shares, are None where no run has them.
    """

    both: Share | None
    rna: Share | None
    slide: Share | None
    weight: Spread | None


@dataclass(frozen=True)
class RowScores:
    """One row in one group of splits; ``results.json`` holds its fields.

    ``runs`` of ``of`` are finished; without any, test and val are None. ``failed`` maps a run to
    its error. ``versus`` compares with the reference, and is None for the reference itself;
    ``by_modality`` is None for models of one modality.
    """

    runs: int
    of: int
    failed: dict[str, str]
    test: Scores | None = None
    val: Validation | None = None
    versus: Comparison | None = None
    by_modality: ByModality | None = None


@dataclass(frozen=True)
class Group:
    """Splits that are reported together; their name has no numbers.

    Attributes:
        patients: case ids of all test patients.
        units: what was drawn for intervals.
        finished: row key -> its finished runs; rows without one are absent, here and below.
        predictions: row key -> its predictions of test patients.
        scores: row key -> scores, for every row.
        separation: row key -> how far apart classes lie after pre-training, in Figure 2 only.
        probes: row key -> what pre-training taught the slide encoder, in tables that show it.
    """

    name: str
    splits: tuple[str, ...]
    patients: tuple[str, ...]
    units: Units
    finished: dict[str, tuple[Finished, ...]]
    predictions: dict[str, Predictions]
    scores: dict[str, RowScores]
    separation: dict[str, Separation]
    probes: dict[str, Probe] = field(default_factory=dict)

    @property
    def heading(self) -> str:
        return heading_of(self.name)


@dataclass(frozen=True)
class Results:
    """Everything that the outputs of a table show.

    Attributes:
        rows, num_runs: what was asked for.
        skipped: row key -> why the cohort cannot have it.
        finished: every finished run once, row by row.
        errors: run -> its error, of all runs that failed.
    """

    experiment: Experiment
    call: Call
    rows: tuple[Row, ...]
    skipped: dict[str, str]
    groups: tuple[Group, ...]
    finished: tuple[Finished, ...]
    errors: dict[str, str]
    num_runs: int


def summarise(
    experiment: Experiment,
    plan: Plan,
    finished: dict[str, Finished],
    errors: dict[str, str],
    call: Call,
) -> Results:
    """Numbers of every row in every group of splits.

    Of a plan that holds this table, at least. ``finished`` and ``errors`` map a digest to the run
    that succeeded, and to the error of one that failed.
    """
    runs, finished = with_mixtures(experiment.name, plan, finished, mix)
    trained = {
        run.digest: run
        for (table, _), of_row in plan.of_row.items()
        if table == experiment.name
        for run in of_row
    }
    skipped = {key: why for (table, key), why in plan.skipped.items() if table == experiment.name}
    rows = tuple(row for row in experiment.rows if row.key in runs or row.key in skipped)
    groups = []
    for name, splits in split_groups(call.splits).items():
        here = {row.key: [r for r in runs.get(row.key, ()) if r.split in splits] for row in rows}
        groups.append(_group(name, splits, here, experiment, finished, errors, call))
    done = tuple(finished[digest] for digest in trained if digest in finished)
    failed = failed_of(trained.values(), errors)
    return Results(experiment, call, rows, skipped, tuple(groups), done, failed, len(trained))


def _group(
    name: str,
    splits: Sequence[str],
    runs: dict[str, list[PlannedRun]],
    experiment: Experiment,
    finished: dict[str, Finished],
    errors: dict[str, str],
    call: Call,
) -> Group:
    """A group of splits, given the runs of every row in them."""
    done = {}
    for key, of_row in runs.items():
        if ended := tuple(finished[run.digest] for run in of_row if run.digest in finished):
            done[key] = ended
    tests = [one.predictions.of("test") for ended in done.values() for one in ended]
    patients = tuple(sorted(set().union(*(test.case_id.tolist() for test in tests))))
    predictions = {key: _predictions(ended, patients, splits) for key, ended in done.items()}
    units, weights = draw(call.cohort, splits, patients, call.resamples)
    versus = compare_all(
        predictions, experiment.reference, weights, units_are_patients=units.hospitals is None
    )
    scores, apart, probes = {}, {}, {}
    for key, of_row in runs.items():
        test = val = None
        if key in done:
            test = _scores(predictions[key], weights)
            hits = [one.predictions.of("val").hits for one in done[key]]
            val = Validation(Share.of(np.concatenate(hits)))
            if experiment.name == "fig2":
                vectors = [pretrained_vectors(one.run, one.folder) for one in done[key]]
                apart[key] = separation(vectors)
            places = [(one.run, one.folder) for one in done[key]]
            if experiment.probes and (probe := linear_probe(places)):
                probes[key] = probe
        failed, count = failed_of(of_row, errors), len(done.get(key, ()))
        alone = _by_modality(done.get(key, ()))
        scores[key] = RowScores(count, len(of_row), failed, test, val, versus.get(key), alone)
    return Group(name, tuple(splits), patients, units, done, predictions, scores, apart, probes)


def _by_modality(finished: Sequence[Finished]) -> ByModality | None:
    """Counts over all runs that recorded them."""
    metrics = [one.metrics for one in finished if one.metrics is not None]
    scores = [each.by_modality for each in metrics if each.by_modality and each.modalities == BOTH]
    weights = [each.fusion.weight for each in metrics if each.fusion is not None]
    weights += [one.weight for one in finished if one.weight is not None]
    if not scores and not weights:
        return None
    shares = {}
    for name in ("both", "rna", "slide"):
        found = [getattr(each, name).accuracy for each in scores if getattr(each, name)]
        k, n = sum(share.k for share in found), sum(share.n for share in found)
        shares[name] = Share(k / n, k, n) if n else None
    return ByModality(**shares, weight=spread(weights) if weights else None)


def _predictions(
    finished: Sequence[Finished], patients: Sequence[str], splits: Sequence[str]
) -> Predictions:
    """All predictions of test patients; numbers are places in ``patients`` and ``splits``."""
    place = {case: number for number, case in enumerate(patients)}
    tests = [one.predictions.of("test") for one in finished]
    sizes = [len(test) for test in tests]
    return Predictions(
        patient=np.array([place[case] for test in tests for case in test.case_id], int),
        split=np.repeat([splits.index(one.run.split) for one in finished], sizes),
        run=np.repeat(np.arange(len(finished)), sizes),
        label=np.concatenate([test.label for test in tests]),
        predicted=np.concatenate([test.predicted for test in tests]),
        probabilities=np.concatenate([test.probabilities for test in tests]),
    )


def _scores(test: Predictions, weights: np.ndarray) -> Scores:
    return Scores(
        predictions=len(test),
        patients=len(set(test.patient)),
        **estimates(test, weights),
        cross_entropy=mean_estimate(test, test.losses, weights),
        accuracy_of_runs=spread([run.hits.mean() for run in test.by_run()]),
        calibration_error=reliability(test.confidence, test.hits).error,
        brier=brier(test.probabilities, test.label),
    )
