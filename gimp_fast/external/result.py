"""What a validation found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from gimp_fast.evaluation.calibration import Reliability
from gimp_fast.evaluation.intervals import Estimate
from gimp_fast.evaluation.kaplan_meier import CalibrationGroups
from gimp_fast.evaluation.named_curves import NamedCurve
from gimp_fast.external.missing_result import Missing
from gimp_fast.external.number_texts import interval_text
from gimp_fast.external.units import Units
from gimp_fast.pages.display import SYNTHETIC, shown


@dataclass(frozen=True)
class Score:
    """A score of the new patients beside that of the models' own test patients.

    Attributes:
        new: of the prediction for new patients, with several models the mean of theirs.
        single: of the new patients, the mean over single models; None with one model.
        own: of the models' own test patients, the mean over models.
        difference: what is new minus own, of single models where there are several.
    """

    name: str
    title: str
    new: Estimate | None
    single: Estimate | None
    own: Estimate | None
    difference: Estimate | None


@dataclass(frozen=True)
class Group:
    """Some of the new patients, such as those of one hospital.

    Attributes:
        by: what they have in common, e.g. ``"sex"``; ``name`` is the value.
        counts: class -> patients, or events; empty for numbers.
        score: the main score; None if it is not defined or ``reason`` says why there is none.
        difference: this score minus that of all other new patients.
        drawn: ``"hospitals"`` or ``"patients"``, what the bootstrap draws.
    """

    by: str
    name: str
    patients: int
    counts: dict[str, int]
    score: Estimate | None = None
    difference: Estimate | None = None
    drawn: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Probabilities:
    """How far probabilities of classes can be believed."""

    reliability: Reliability
    brier: Estimate
    cross_entropy: Estimate


@dataclass(frozen=True)
class AtHorizon:
    """Predicted and observed shares of patients with the event by a horizon.

    ``predicted`` is the mean, ``observed`` that of Kaplan–Meier; None, and a ``reason``, where
    nobody was followed so long. ``groups`` are of predicted survival.
    """

    horizon: float
    text: str
    predicted: Estimate | None = None
    observed: Estimate | None = None
    groups: CalibrationGroups | None = None
    reason: str = ""


@dataclass(frozen=True)
class Calibration:
    """Whether predictions mean what they say; what does not concern the kind is None or empty.

    Attributes:
        before, after: of classes, as predicted and after temperature scaling.
        brier_change, cross_entropy_change: after minus before, on the same patients.
        slope: of the log-hazard of survival, or of the line from predicted to true numbers.
        intercept: of this line.
        mean_error: of numbers, predicted minus true.
        horizons: of survival.
    """

    before: Probabilities | None = None
    after: Probabilities | None = None
    brier_change: Estimate | None = None
    cross_entropy_change: Estimate | None = None
    slope: Estimate | None = None
    intercept: Estimate | None = None
    mean_error: Estimate | None = None
    horizons: tuple[AtHorizon, ...] = ()


@dataclass(frozen=True)
class Temperatures:
    """A temperature for each model, or the reason why there is none.

    ``patients`` are how many validation patients each was fitted to.
    """

    values: tuple[float, ...] = ()
    patients: tuple[int, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class OwnTest:
    """The models' own test patients.

    Attributes:
        patients: how many, each counted once.
        source: ``"predictions"``, of the runs, ``"recorded"``, scores of exports, or empty.
        note: where the numbers come from, in words.
        also_new: how many of the new patients are among them, by id.
    """

    patients: int
    source: str
    note: str
    also_new: int = 0


@dataclass(frozen=True)
class LeftOut:
    """Patients of the cohort who are not in the scores: how many, and of ``known``, who and why."""

    unlabelled: int = 0
    not_predicted: int = 0
    known: dict[str, str] | None = None


@dataclass(frozen=True)
class Validation:
    """What :func:`gimp_fast.external.validate_model` returns.

    Attributes:
        kind: ``"class"``, ``"survival"`` or ``"regression"``.
        target: name of the target; empty for the labels of the cohort.
        unit: of the times of survival; else empty.
        models: a description of each: source, method, cohort, split, fingerprint, seed …
        cohort: name, fingerprint, whether synthetic.
        patients: how many are in the scores; ``counts`` are their classes or events.
        scores: the main score is that of ``main``.
        groups: by hospital, covariates, slides and modality.
        curves: decision curves; none of numbers.
        table: the predictions, a row each; see ``predictions.csv``.
        warnings: code of ``predict`` -> patients.
        notes: what could not be checked, and what to bear in mind.
        missing: the scores while more and more patients lack a modality; None if not asked for.
    """

    kind: str
    target: str
    unit: str
    models: tuple[dict[str, Any], ...]
    cohort: dict[str, Any]
    patients: int
    counts: dict[str, int]
    left_out: LeftOut
    drawn: Units
    own: OwnTest
    main: str
    scores: dict[str, Score]
    temperatures: Temperatures
    calibration: Calibration
    groups: tuple[Group, ...]
    curves: tuple[NamedCurve, ...]
    table: pd.DataFrame
    warnings: dict[str, int]
    notes: tuple[str, ...] = ()
    missing: Missing | None = None

    @property
    def synthetic(self) -> bool:
        """Whether the patients, or those of a model's training, are generated."""
        return self.cohort["synthetic"] or any(model["synthetic"] for model in self.models)

    @property
    def target_text(self) -> str:
        """The target, its kind and its unit, in words."""
        if not self.target:
            return "label"
        unit = f", in {self.unit}" if self.unit else ""
        return f"{self.target} ({self.kind}{unit})"

    def _repr_html_(self) -> str:
        facts: dict[str, object] = {
            "models": [model["source"] for model in self.models],
            "cohort": f"'{self.cohort['name']}', {self.patients} new patients",
            "target": self.target_text,
        }
        for score in self.scores.values():
            own = f"; own test {interval_text(score.own)}" if score.own else ""
            facts[score.title] = f"{interval_text(score.new)}{own}"
        facts["warnings"] = [f"{code} {count}" for code, count in self.warnings.items()]
        return shown("Validation", facts, SYNTHETIC * self.synthetic)
