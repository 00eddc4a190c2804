"""What the models did on their own test patients, and their validation patients for scaling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gimp_fast.errors import GimpError
from gimp_fast.evaluation.independent import Drawn
from gimp_fast.evaluation.intervals import Estimate
from gimp_fast.evaluation.temperature import fit_temperature
from gimp_fast.external.kinds import Kind, Sample
from gimp_fast.external.result import OwnTest, Temperatures
from gimp_fast.inference.model import TrainedModel
from gimp_fast.runs import layout
from gimp_fast.runs.outcome_predictions import OutcomePredictions
from gimp_fast.runs.patient_arrays import CasePredictions
from gimp_fast.runs.records import Run

Recorded = CasePredictions | OutcomePredictions


@dataclass(frozen=True)
class OwnPatients:
    """The test patients of all models.

    Attributes:
        sample: their predictions; None where a model is an export or has no test patient.
        recorded: name -> score with its interval, as exports have them; empty with a sample.
        about: how many, and where the numbers come from.
    """

    sample: Sample | None
    recorded: dict[str, Drawn]
    about: OwnTest


def recorded_by(trained: TrainedModel) -> Recorded | None:
    """The predictions that the model's run recorded; None for an export.

    Raises:
        GimpError: they are damaged.
    """
    if not (trained.source / layout.METRICS).is_file():
        return None
    found = Run(trained.source).predictions
    if isinstance(found, CasePredictions) and found.classes != trained.classes:
        raise GimpError(
            f"{trained.source / layout.PREDICTIONS}: found the classes "
            f"{', '.join(found.classes)}; expected those of the model: {', '.join(trained.classes)}"
        )
    return found


def own_patients(
    models: Sequence[TrainedModel],
    recorded: Sequence[Recorded | None],
    kind: Kind,
    new: Sequence[str],
) -> OwnPatients:
    """The models' own test patients, to set beside new ones.

    Args:
        models, recorded: as :func:`recorded_by` gives them.
        kind: of the target.
        new: ids of the new patients.
    """
    tests = [None if found is None else found.of("test") for found in recorded]
    if all(test is not None and len(test) for test in tests):
        names, patient = np.unique(np.concatenate([t.case_id for t in tests]), return_inverse=True)
        rows = [len(test) for test in tests]
        sample = Sample(
            patient.astype(np.int64),
            np.repeat(np.arange(len(tests)), rows),
            np.concatenate([_predicted(test) for test in tests]),
            np.concatenate([_truth(test) for test in tests]),
        )
        also = len(set(names.tolist()) & set(new))
        note = f"from {layout.PREDICTIONS} of the {'runs' if len(models) > 1 else 'run'}"
        return OwnPatients(sample, {}, OwnTest(len(names), "predictions", note, also))
    return _of_records(models, kind)


def _of_records(models: Sequence[TrainedModel], kind: Kind) -> OwnPatients:
    """Scores with which models were exported: means, also of the ends of their intervals."""
    parts = [trained.facts.get("metrics", {}).get("test") or {} for trained in models]
    found = {}
    for name in kind.titles:
        scores = [part.get(name) for part in parts]
        ends = ("value", "low", "high")
        if all(score and all(score.get(end) is not None for end in ends) for score in scores):
            means = [float(np.mean([score[end] for score in scores])) for end in ends]
            found[name] = Drawn(Estimate(*means))
    if not found:
        return OwnPatients(None, {}, OwnTest(0, "", "no score of test patients was recorded"))
    note = "recorded with the model"
    if len(models) > 1:
        note = "recorded with the models: means, also of the ends of their intervals"
    patients = sum(int(part.get("n", 0)) for part in parts)
    return OwnPatients(None, found, OwnTest(patients, "recorded", note))


def _predicted(test: Recorded) -> np.ndarray:
    if isinstance(test, CasePredictions):
        return test.probabilities
    return np.stack(list(test.predicted.values()), axis=1)


def _truth(test: Recorded) -> np.ndarray:
    if isinstance(test, CasePredictions):
        return test.label
    columns = list(test.truth.values())
    return columns[0] if len(columns) == 1 else np.stack(columns, axis=1)


def temperatures(
    models: Sequence[TrainedModel], recorded: Sequence[Recorded | None]
) -> Temperatures:
    """One for each model, fitted to the validation patients of its run and to nobody else."""
    values, patients = [], []
    for trained, found in zip(models, recorded, strict=True):
        if found is None:
            return Temperatures(
                reason=f"{trained.source} is an export, which has no predictions of its "
                "validation patients; give the run instead"
            )
        validation = found.of("val")
        try:
            values.append(fit_temperature(validation.probabilities, validation.label))
        except ValueError as error:
            return Temperatures(
                reason=f"the {len(validation)} validation patients of {trained.source} give no "
                f"temperature: {error}"
            )
        patients.append(len(validation))
    return Temperatures(tuple(values), tuple(patients))
