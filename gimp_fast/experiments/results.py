"""The numbers of a table, from its finished runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gimp_fast.data import Cohort
from gimp_fast.errors import GimpError
from gimp_fast.evaluation.calibration import brier, reliability
from gimp_fast.evaluation.comparison import Difference, compare_all
from gimp_fast.evaluation.intervals import Estimate, Spread, patient_weights, spread
from gimp_fast.evaluation.rates import Predictions, Share, estimates
from gimp_fast.experiments.paper import Experiment, Row, split_groups
from gimp_fast.experiments.plan import Plan, PlannedRun
from gimp_fast.experiments.vectors import Separation, Vectors, pretrained_vectors, separation
from gimp_fast.runs.records import CasePredictions, RunRecord, open_run


@dataclass(frozen=True)
class Call:
    """One call of the command, for the record.

    Attributes:
        splits, seeds: asked for.
        preset, overrides: of all rows.
        command: as typed.
        environment: versions and hardware.
        resamples: of the bootstrap.
    """

    cohort: Cohort
    splits: tuple[str, ...]
    seeds: tuple[int, ...]
    preset: str
    overrides: tuple[str, ...]
    command: str
    environment: dict[str, Any]
    resamples: int


@dataclass(frozen=True)
class Finished:
    """A run that is done, with its records."""

    run: PlannedRun
    folder: Path
    record: RunRecord
    predictions: CasePredictions

    def share(self, part: str) -> Share:
        """How many patients of a part, ``"val"`` or ``"test"``, the run predicts correctly."""
        return Share.of(self.predictions.of(part).hits)

    def vectors(self) -> Vectors:
        """Patients after pre-training, as Figure 2 draws them."""
        return pretrained_vectors(self.folder, self.run.settings)


def read_run(run: PlannedRun, folder: Path) -> Finished:
    """The records of a finished run; GimpError names a file that is damaged."""
    try:
        files = open_run(folder)
        if files.record.digest != run.digest:
            raise GimpError(f"{folder}: found the record of another run")
        return Finished(run, folder, files.record, files.predictions)
    except GimpError as error:
        raise GimpError(f"{error}; remove {folder} and run again") from error


@dataclass(frozen=True)
class EstimatedShare(Estimate):
    """A share of k in n predictions, with its 95 % interval."""

    k: int
    n: int


@dataclass(frozen=True)
class Scores:
    """What a row reaches on the test patients of a group of splits.

    Attributes:
        predictions: how many; a patient has one from each fold and seed.
        patients: how many.
        auc: None if no run has patients of every class.
        accuracy_of_runs: of single runs.
    """

    predictions: int
    patients: int
    accuracy: EstimatedShare
    balanced_accuracy: Estimate | None
    f1_macro: Estimate | None
    auc: Estimate | None
    accuracy_of_runs: Spread
    calibration_error: float
    brier: float


@dataclass(frozen=True)
class Validation:
    """What a row reaches on the patients that choose its epoch."""

    accuracy: Share


@dataclass(frozen=True)
class RowScores:
    """One row in one group of splits; ``results.json`` holds its fields.

    Attributes:
        runs: how many are finished.
        of: how many were asked for.
        failed: run -> its error.
        test, val: None without a finished run.
        versus: accuracy against the reference; None for the reference itself.
    """

    runs: int
    of: int
    failed: dict[str, str]
    test: Scores | None = None
    val: Validation | None = None
    versus: Difference | None = None


@dataclass(frozen=True)
class Group:
    """Splits that are reported together.

    Attributes:
        name: of the splits, without their numbers.
        splits: their names.
        patients: case ids of all test patients.
        finished: row key -> its finished runs; rows without one are absent.
        predictions: row key -> its predictions of test patients.
        scores: row key -> scores, for every row.
        separation: row key -> how far apart classes lie after pre-training, in Figure 2 only.
    """

    name: str
    splits: tuple[str, ...]
    patients: tuple[str, ...]
    finished: dict[str, tuple[Finished, ...]]
    predictions: dict[str, Predictions]
    scores: dict[str, RowScores]
    separation: dict[str, Separation]

    @property
    def heading(self) -> str:
        """``random`` -> ``random splits``; ``all splits`` if the name says nothing else."""
        anonymous = self.name.lower() in ("split", "splits", "fold")
        return "all splits" if anonymous else f"{self.name} splits"


@dataclass(frozen=True)
class Results:
    """Everything that the outputs of a table show.

    Attributes:
        rows: that were asked for, in order.
        skipped: row key -> why the cohort cannot have it.
        finished: every finished run once, row by row.
        errors: run -> its error, of all runs that failed.
        num_runs: how many were asked for.
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

    Args:
        experiment: the table.
        plan: of this table, at least.
        finished, errors: digest -> a run that succeeded, and the error of one that failed.
        call: what was asked for.
    """
    runs = {key: runs for (table, key), runs in plan.of_row.items() if table == experiment.name}
    skipped = {key: why for (table, key), why in plan.skipped.items() if table == experiment.name}
    rows = tuple(row for row in experiment.rows if row.key in runs or row.key in skipped)
    groups = []
    for name, splits in split_groups(call.splits).items():
        here = {row.key: [r for r in runs.get(row.key, ()) if r.split in splits] for row in rows}
        groups.append(_group(name, splits, here, experiment, finished, errors, call.resamples))
    unique = {run.digest: run for row in rows for run in runs.get(row.key, ())}
    done = tuple(finished[digest] for digest in unique if digest in finished)
    failed = _failed(unique.values(), errors)
    return Results(experiment, call, rows, skipped, tuple(groups), done, failed, len(unique))


def _failed(runs: Iterable[PlannedRun], errors: dict[str, str]) -> dict[str, str]:
    return {str(run): errors[run.digest] for run in runs if run.digest in errors}


def _group(
    name: str,
    splits: Sequence[str],
    runs: dict[str, list[PlannedRun]],
    experiment: Experiment,
    finished: dict[str, Finished],
    errors: dict[str, str],
    resamples: int,
) -> Group:
    """A group of splits, given the runs of every row in them."""
    done = {
        key: tuple(finished[run.digest] for run in of_row if run.digest in finished)
        for key, of_row in runs.items()
    }
    done = {key: of_row for key, of_row in done.items() if of_row}
    tested = [one.predictions.of("test").case_id.tolist() for ones in done.values() for one in ones]
    patients = tuple(sorted({case for cases in tested for case in cases}))
    predictions = {key: predictions_of(of_row, patients, splits) for key, of_row in done.items()}
    weights = patient_weights(max(1, len(patients)), resamples)
    versus = compare_all(predictions, experiment.reference, weights)
    scores = {}
    for key, of_row in runs.items():
        scores[key] = RowScores(len(done.get(key, ())), len(of_row), _failed(of_row, errors))
        if key in done:
            test = _scores(predictions[key], weights)
            val = np.concatenate([one.predictions.of("val").hits for one in done[key]])
            scores[key] = replace(
                scores[key], test=test, val=Validation(Share.of(val)), versus=versus.get(key)
            )
    apart = {}
    if experiment.name == "fig2":
        apart = {key: separation([one.vectors() for one in of_row]) for key, of_row in done.items()}
    return Group(name, tuple(splits), patients, done, predictions, scores, apart)


def predictions_of(
    finished: Sequence[Finished], patients: Sequence[str], splits: Sequence[str]
) -> Predictions:
    """All predictions of test patients by some runs.

    Args:
        finished: one run or more.
        patients, splits: their places are the numbers in the arrays.
    """
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
    rates = estimates(test, weights)
    rates["accuracy"] = EstimatedShare(
        **asdict(rates["accuracy"]), k=int(test.hits.sum()), n=len(test)
    )
    return Scores(
        predictions=len(test),
        patients=len(set(test.patient)),
        **rates,
        accuracy_of_runs=spread([run.hits.mean() for run in test.by_run()]),
        calibration_error=reliability(test.confidence, test.hits).error,
        brier=brier(test.probabilities, test.label),
    )
