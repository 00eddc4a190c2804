"""Validates trained models on a labelled cohort that they have not seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gimp_fast.data import Cohort, open_cohort
from gimp_fast.errors import GimpError
from gimp_fast.evaluation.independent import independent_difference
from gimp_fast.evaluation.intervals import patient_weights
from gimp_fast.evaluation.temperature import at_temperature
from gimp_fast.external.describe import about_model
from gimp_fast.external.groups import scored_groups, units_of, weights_of
from gimp_fast.external.kinds import Kind, Sample
from gimp_fast.external.missing import Patients, check_modalities, missing_modality
from gimp_fast.external.of_classes import Classes
from gimp_fast.external.of_numbers import Numbers
from gimp_fast.external.of_survival import TimeToEvent
from gimp_fast.external.options import ValidateOptions
from gimp_fast.external.own_test import OwnPatients, own_patients, recorded_by, temperatures
from gimp_fast.external.patients import NewPatients, new_patients, target_of
from gimp_fast.external.result import Score, Temperatures, Validation
from gimp_fast.external.units import Units
from gimp_fast.inference.cautions import counts
from gimp_fast.inference.ensemble import Ensemble, members_of
from gimp_fast.inference.loading import load_one
from gimp_fast.inference.model import TrainedModel
from gimp_fast.inference.options import PredictOptions
from gimp_fast.inference.predictions import Predictions, predict_cohort
from gimp_fast.options import make_options

_FEW_HOSPITALS = 20  # below which intervals over hospitals are known to be too narrow
Model = str | Path | TrainedModel | Ensemble


def validate_model(
    models: Model | Sequence[Model],
    cohort: str | Path | Cohort,
    options: ValidateOptions | None = None,
    *,
    cases: Sequence[str] | None = None,
    against: Model | Sequence[Model] = (),
    predict: PredictOptions | None = None,
    device: str = "cpu",
    log: Callable[[str], None] = lambda line: None,
    **fields: Any,
) -> Validation:
    """How well models do on new patients, beside what they did on their own test patients.

        found = validate_model("runs/first", "other_hospital", exclude_known=True)
        found.scores["auc"].difference

    Args:
        models: run folders, exports, ensembles, or loaded models; of several, predictions are
            averaged.
        cohort: cohort folder, or an open cohort, with the target of the models.
        options: how intervals are made, and what is left out.
        cases: ids of patients; None for all of the cohort.
        against: models of slides alone and of RNA alone, which those of both are held against where
            a modality is missing; with any, ``options.missing`` is true. Nor may they have seen the
            patients.
        predict: how to go through the cohort.
        device: of models that are not loaded yet.
        log: called with a line of text before each step.
        **fields: fields of :class:`ValidateOptions`, instead of ``options``.

    Raises:
        GimpError: models that do not belong together or read something else than is asked for, a
            cohort without their target or with other classes, patients of training or validation
            that are not to be excluded, or nobody to judge by.
    """
    if options is not None and fields:
        raise GimpError(f"validate_model: found options and {', '.join(fields)}; expected either")
    options = options or make_options(ValidateOptions, **fields)
    cohort = cohort if isinstance(cohort, Cohort) else open_cohort(cohort)
    loaded = loaded_models(models, device)
    others = loaded_models(against, device) if against else []
    if others or options.missing:
        check_modalities(loaded, others)
    asked = cohort.case_ids if cases is None else tuple(dict.fromkeys(cases))
    log("looking for patients of training")
    new = new_patients([*loaded, *others], cohort, asked, options.exclude_known)
    log(f"predicting {len(new.case_ids)} patients")
    predictions = predict_cohort(loaded, cohort, new.case_ids, predict)
    rows = np.isfinite(predictions.single).all(axis=(0, 2))
    if rows.sum() < 2:
        raise GimpError(
            f"{cohort.path}: found {rows.sum()} of {len(rows)} new patients with what all models "
            "read, and finite predictions; expected two or more"
        )
    new = new.predicted(rows)
    log("scoring")
    found = _validated(loaded, cohort, new, predictions, rows, options)
    if not (others or options.missing):
        return found
    mean = predictions.single[:, rows].mean(0, dtype=np.float64)
    patients = Patients(cohort, new.case_ids, new.truth, mean)
    kind = kind_of(loaded[0])
    missing = missing_modality(loaded, others, patients, kind, options, predict, log)
    return replace(found, missing=missing)


def loaded_models(models: Model | Sequence[Model], device: str = "cpu") -> list[TrainedModel]:
    """Each single model; the members of ensembles are models of their own.

    Raises:
        GimpError: no model, one that cannot be loaded, or one of several targets.
    """
    several = [models] if isinstance(models, (str, Path, TrainedModel, Ensemble)) else list(models)
    found: list[TrainedModel] = []
    for model in several:
        if isinstance(model, Ensemble):
            found += model.members
        elif isinstance(model, TrainedModel):
            found.append(model)
        else:
            found += [load_one(path, device) for path in members_of(model)]
    if not found:
        raise GimpError("validate_model: found no model; expected one or more")
    for model in found:
        if model.target.kind == "several":
            names = ", ".join(member.name for member in model.target.members)
            raise GimpError(
                f"{model.source}: found a model of several targets ({names}); expected models of "
                "one target, which are validated by themselves"
            )
    return found


def kind_of(trained: TrainedModel) -> Kind:
    """What is asked of a model's target."""
    target = trained.target
    if target.kind == "class":
        return Classes(trained.classes)
    if target.kind == "survival":
        return TimeToEvent(target.horizons, target.unit)
    return Numbers()


def _validated(
    models: Sequence[TrainedModel],
    cohort: Cohort,
    new: NewPatients,
    predictions: Predictions,
    rows: np.ndarray,
    options: ValidateOptions,
) -> Validation:
    kind, single = kind_of(models[0]), predictions.single[:, rows].astype(np.float64)
    sample = Sample.of_models([single.mean(0)], new.truth)
    recorded = [recorded_by(trained) for trained in models]
    own = own_patients(models, recorded, kind, new.case_ids)
    found = temperatures(models, recorded) if models[0].classes else Temperatures()
    scaled = None
    if found.values:
        pairs = zip(single, found.values, strict=True)
        scaled = np.mean([at_temperature(one, value) for one, value in pairs], axis=0)
    units, cluster = units_of(cohort, new.case_ids, options.fewest_hospitals)
    weights = weights_of(len(new.case_ids), cluster, options)
    of_models = Sample.of_models(single, new.truth) if len(models) > 1 else None
    return Validation(
        kind=models[0].target.kind,
        target=target_of(models[0]),
        unit=getattr(models[0].target, "unit", ""),
        models=tuple(about_model(trained) for trained in models),
        cohort={
            "name": cohort.name,
            "fingerprint": cohort.fingerprint,
            "synthetic": cohort.synthetic,
        },
        patients=len(new.case_ids),
        counts=kind.counts(new.truth),
        left_out=new.left_out,
        drawn=units,
        own=own.about,
        main=kind.main,
        scores=_scores(kind, sample, of_models, own, weights, options),
        temperatures=found,
        calibration=kind.calibration(sample, scaled, weights),
        groups=scored_groups(cohort, new.case_ids, sample, kind, cluster, options),
        curves=kind.curves(sample, weights),
        table=_table(predictions, new, rows, models[0], scaled),
        warnings=counts({case: predictions.cautions[case] for case in new.case_ids}),
        notes=tuple(_notes(predictions, own, units)),
    )


def _scores(
    kind: Kind,
    sample: Sample,
    of_models: Sample | None,
    own: OwnPatients,
    weights: np.ndarray,
    options: ValidateOptions,
) -> dict[str, Score]:
    """Every score of the new and of the own patients; like is compared with like."""
    new, there = kind.drawn(sample, weights), own.recorded
    single = {} if of_models is None else kind.drawn(of_models, weights)
    if own.sample is not None:
        # Of other random numbers: the same would make samples of one size move together.
        others = patient_weights(own.about.patients, options.resamples, options.seed + 1)
        there = kind.drawn(own.sample, others)
    compared = new if of_models is None else single

    def value(found: dict, name: str) -> Any:
        return found[name].estimate if name in found else None

    return {
        name: Score(
            name,
            title,
            value(new, name),
            value(single, name),
            value(there, name),
            independent_difference(compared.get(name), there.get(name)),
        )
        for name, title in kind.titles.items()
    }


def _table(
    predictions: Predictions,
    new: NewPatients,
    rows: np.ndarray,
    trained: TrainedModel,
    scaled: np.ndarray | None,
) -> pd.DataFrame:
    """``predictions.csv``: those of ``predict`` with the truth, of the patients in the scores."""
    table = predictions.table[rows].reset_index(drop=True)
    if not trained.classes:
        return table
    # The label of the cohort is not the truth of a model of another target.
    table["label"] = [trained.classes[place] for place in new.truth]
    if scaled is None:
        return table
    columns = {f"scaled_{name}": scaled[:, i] for i, name in enumerate(trained.classes)}
    last = table.pop("warnings")
    return table.assign(**columns, warnings=last)


def _notes(predictions: Predictions, own: OwnPatients, units: Units) -> list[str]:
    """What could not be checked, and what makes the comparison less sure."""
    notes = list(predictions.unchecked)
    if own.about.also_new:
        notes.append(
            f"{own.about.also_new} of the new patients are, by their ids, test patients of the "
            "models too: the two samples are not independent, and the intervals of the "
            "differences are not right"
        )
    if units.name == "hospitals" and units.count < _FEW_HOSPITALS:
        notes.append(
            f"intervals over only {units.count} hospitals are rather too narrow than too wide"
        )
    return notes
