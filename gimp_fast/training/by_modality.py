"""Evaluates a model of slides and RNA on each of them alone, beside both, on the same patients."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gimp_fast.evaluation.comparison import Difference, compare_all
from gimp_fast.evaluation.intervals import patient_weights
from gimp_fast.evaluation.rates import Predictions, metrics_with_intervals
from gimp_fast.models.outputs import outputs_of
from gimp_fast.runs.scores import ByModality, OneModality, PairedDifference, SplitMetrics
from gimp_fast.training.sampling import HIDE_RNA, HIDE_SLIDES
from gimp_fast.training.stage import StageContext

_HIDDEN = {"rna": HIDE_SLIDES, "slide": HIDE_RNA}
# What a model raises that does not expect a patient without one of the modalities.
_REFUSALS = (
    ValueError, TypeError, AttributeError, RuntimeError, LookupError, NotImplementedError,
)  # fmt: skip


def by_modality(
    context: StageContext, fused: Mapping[str, np.ndarray], resamples: int, seed: int
) -> ByModality | None:
    """Metrics of the test patients with both modalities, and with each alone.

    Args:
        context: of the chosen model. All ranks must call this function.
        fused: test patient -> (K,) probabilities of the model with all that the patient has.
        resamples, seed: of the bootstrap.

    Returns:
        None for a model of one modality.
    """
    if context.config.modalities != "both":
        return None
    cohort, test = context.reader.cohort, context.split["test"]

    def has_both(case: str) -> bool:
        return cohort.has_slides(case) and cohort.has_expression(case)

    cases = [case for case in test if has_both(case)]
    facts = {
        "n": len(cases),
        "of": len(test),
        "seen_in_training": context.config.finetune.modality_dropout > 0
        or not all(map(has_both, context.split["train"])),
    }
    if not cases:
        return ByModality(**facts)
    labels = context.reader.truth(cases).numpy()
    probabilities, refused = {"both": np.stack([fused[case] for case in cases])}, {}
    for name, hide in _HIDDEN.items():
        if reason := _refusal(context, cases[0], hide):
            refused[name] = reason
            continue
        values = context.predict(cases, hide).predictions
        if np.isfinite(values).all():
            probabilities[name] = values
        else:
            refused[name] = "some of its probabilities are not finite"
    scores = _scores(probabilities, labels, resamples, seed)
    return ByModality(**facts, **scores, **({"refused": refused} if refused else {}))


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


def _scores(
    probabilities: dict[str, np.ndarray], labels: np.ndarray, resamples: int, seed: int
) -> dict[str, SplitMetrics]:
    predictions = {
        name: Predictions.of_one_model(values, labels) for name, values in probabilities.items()
    }
    weights = patient_weights(len(labels), resamples, seed)
    comparisons = compare_all(predictions, "both", weights)
    found: dict[str, SplitMetrics] = {}
    for name, values in probabilities.items():
        metrics = metrics_with_intervals(values, labels, resamples=resamples, seed=seed)
        if name == "both":
            found[name] = SplitMetrics(**metrics)
            continue
        found[name] = OneModality(
            **metrics,
            accuracy_difference=_paired(comparisons[name].accuracy),
            auc_difference=_paired(comparisons[name].auc),
        )
    return found


def _paired(difference: Difference | None) -> PairedDifference | None:
    if difference is None:
        return None
    return PairedDifference(
        value=difference.value, low=difference.low, high=difference.high, p=difference.best_p
    )
