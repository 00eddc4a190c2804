"""Evaluates a model on parts of what it reads, beside all of it, on the same patients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from gimp_fast.evaluation.comparison import Difference
from gimp_fast.evaluation.intervals import patient_weights
from gimp_fast.models.outputs import Outputs, autocast, outputs_of
from gimp_fast.runs.scores import ByModality, OneModality, PairedDifference, SplitMetrics
from gimp_fast.training.sampling import HIDE_COVARIATES, HIDE_RNA, HIDE_SLIDES
from gimp_fast.training.stage import StageContext

WHOLE = "both"  # the name of all that a model reads
# What a model raises that does not expect a patient without one of the modalities.
_REFUSALS = (
    ValueError, TypeError, AttributeError, RuntimeError, LookupError, NotImplementedError,
)  # fmt: skip


@dataclass(frozen=True)
class _Predicted:
    """What the chosen model makes of patients whom it is shown whole."""

    cases: Sequence[str]
    outputs: Outputs

    def of(self, cases: Sequence[str]) -> Outputs:
        """The outputs of some of the patients, in another order."""
        place = {case: row for row, case in enumerate(self.cases)}
        return self.outputs.chosen(np.array([place[case] for case in cases], np.int64))


def by_modality(
    context: StageContext, cases: Sequence[str], outputs: Outputs, resamples: int, seed: int
) -> ByModality | None:
    """Metrics of the test patients with all that the model reads, and with parts of it.

    Args:
        context: of the chosen model. All ranks must call this function.
        cases: patients, those of validation and test among them.
        outputs: of the model, for these patients, with all that they have.
        resamples, seed: of the bootstrap.

    Returns:
        None for a model of one modality that reads no covariates.
    """
    reads, covariates = context.config.modalities, context.reader.covariates
    if reads != "both" and covariates is None:
        return None
    whole = _Predicted(cases, outputs)
    compared = [case for case in context.split["test"] if _has_all(context, case)]
    facts = _facts(context, compared)
    if not compared:
        return ByModality(**facts)
    predictions, refused = {WHOLE: whole.of(compared).predictions}, {}
    for name, hide in _hidden(context):
        if reason := _refusal(context, compared[0], hide):
            refused[name] = reason
        else:
            predictions[name] = context.predict(compared, hide).predictions
    if covariates is not None:
        predictions["covariates"] = _of_covariates_alone(context, whole, compared)
    for name in list(predictions):
        if name != WHOLE and not np.isfinite(predictions[name]).all():
            refused[name] = "some of its predictions are not finite"
            del predictions[name]
    scores = _scores(context, compared, predictions, resamples, seed)
    return ByModality(**facts, **scores, **({"refused": refused} if refused else {}))


def _has_all(context: StageContext, case: str) -> bool:
    """Whether the patient has the modalities that the model reads."""
    cohort, reads = context.reader.cohort, context.config.modalities
    has_slides = reads == "rna" or cohort.has_slides(case)
    return has_slides and (reads == "slide" or cohort.has_expression(case))


def _facts(context: StageContext, compared: Sequence[str]) -> dict[str, Any]:
    """What the record says of the patients and of training; nothing of what is not read."""
    reads, covariates = context.config.modalities, context.reader.covariates
    dropout, train = context.config.finetune.modality_dropout > 0, context.split["train"]
    facts = {
        "n": len(compared),
        "of": len(context.split["test"]),
        "seen_in_training": dropout
        or context.model.answers_parts
        or not all(_has_all(context, case) for case in train),
    }
    if reads != "both":
        facts["reads"] = reads
    if covariates is not None:

        def has_some(case: str) -> bool:
            missing = covariates.missing(context.reader.cohort.covariates, case)
            return len(missing) < len(covariates.names)

        facts["with_covariates"] = sum(map(has_some, compared))
        facts["covariates_hidden_in_training"] = dropout or not all(map(has_some, train))
    return facts


def _hidden(context: StageContext) -> Iterator[tuple[str, int]]:
    """(name, what is hidden) of each part that the model can be shown."""
    if context.config.modalities == "both":
        yield "rna", HIDE_SLIDES
        yield "slide", HIDE_RNA
    if context.reader.covariates is not None:
        yield "without_covariates", HIDE_COVARIATES


def _refusal(context: StageContext, case: str, hide: int) -> str | None:
    """Why the model cannot predict a patient with this hidden; the same on every rank.

    A model that was registered from outside need not know patients who lack a modality; the run
    keeps its other results.
    """
    inputs = context.reader.inputs([case], np.array([hide])).to(context.device)
    try:
        outputs_of(context.model.eval(), inputs, context.device, context.config.precision)
    except _REFUSALS as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return None


@torch.no_grad()
def _of_covariates_alone(
    context: StageContext, whole: _Predicted, compared: Sequence[str]
) -> np.ndarray:
    """Predictions from what covariates add, with the mean of the rest of validation patients.

    Not of training patients, who are fitted too well to be a scale for others.
    """
    model, device = context.model.eval(), context.device
    shown, others = (
        whole.of(cases).representation(device) for cases in (compared, context.split["val"])
    )
    with autocast(device, context.config.precision):
        rest = model.classify(others).float() - model.covariate_term(others).float()
        alone = rest.mean(0) + model.covariate_term(shown).float()
    return model.target.predictions(alone).cpu().numpy()


def _scores(
    context: StageContext,
    cases: Sequence[str],
    predictions: Mapping[str, np.ndarray],
    resamples: int,
    seed: int,
) -> dict[str, SplitMetrics]:
    target, reader = context.model.target, context.reader
    truth, training = (reader.truth(of).numpy() for of in (cases, context.split["train"]))
    weights = patient_weights(len(cases), resamples, seed)
    differences = target.compared(predictions, WHOLE, truth, weights)
    found: dict[str, SplitMetrics] = {}
    for name, values in predictions.items():
        metrics = target.evaluated(values, truth, training, resamples, seed)
        if name == WHOLE:
            found[name] = SplitMetrics(**metrics)
            continue
        named = {
            f"{score}_difference": _paired(difference)
            for score, difference in differences.get(name, {}).items()
        }
        found[name] = OneModality(**metrics, **named)
    return found


def _paired(difference: Difference | None) -> PairedDifference | None:
    if difference is None:
        return None
    return PairedDifference(
        value=difference.value, low=difference.low, high=difference.high, p=difference.best_p
    )
