"""Scores in words, the same in logs, reports and model cards."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gimp_fast.runs.scores import ByModality, Estimate, Fusion, PairedDifference, SplitMetrics

READS = {"both": "slides and RNA", "slide": "slides", "rna": "RNA"}
ALONE = {"rna": "RNA alone", "slide": "slides alone"}
NO_AUC = "AUC undefined, because a class has no patient here"


_OF_OUTCOMES = {
    "c_index": "C-index",
    "uno_c": "Uno's C",
    "integrated_brier": "integrated Brier score",
    "mean_absolute_error": "mean absolute error",
    "correlation": "correlation",
}


def has_scores(part: dict[str, Any] | None) -> bool:
    """Whether a part has a score that :func:`metrics_text` names."""
    return any((part or {}).get(name) for name in ("accuracy", *_OF_OUTCOMES))


def metrics_text(part: dict[str, Any]) -> str:
    """The first scores of the target, each with its interval, in one line.

    Of classes, these are accuracy with its counts, and AUC.
    """
    metrics = SplitMetrics.model_validate({"n": 0} | part)
    accuracy, auc = metrics.accuracy, metrics.auc
    if accuracy is None:
        named = [(title, getattr(metrics, name)) for name, title in _OF_OUTCOMES.items()]
        texts = [f"{title} {_with_interval(score)}" for title, score in named if score]
        return f"{', '.join(texts)} ({metrics.n} patients)" if texts else "no score was recorded"
    counts = f"{accuracy.k}/{accuracy.n}"
    if accuracy.low is not None and accuracy.high is not None:
        counts += f", 95 % CI {accuracy.low:.3f} to {accuracy.high:.3f}"
    text = f"accuracy {accuracy.value:.3f} ({counts})"
    if auc is None:
        return f"{text}, {NO_AUC}"
    text += f", AUC {auc.value:.3f}"
    if auc.low is not None and auc.high is not None:
        text += f" ({auc.low:.3f} to {auc.high:.3f})"
    return text


def _with_interval(score: Estimate) -> str:
    if score.low is None or score.high is None:
        return f"{score.value:.3f}"
    return f"{score.value:.3f} (95 % CI {score.low:.3f} to {score.high:.3f})"


def fusion_text(fusion: Fusion) -> str:
    """A sentence or two on the weight that validation patients chose."""
    chosen = "" if fusion.chosen_on is None else f" {fusion.chosen_on}"
    weight = f"{fusion.weight:g}"
    by = f"chosen by the{chosen} validation patients"
    if fusion.weight == 0:
        return (
            f"weight 0, {by}: slides are not used. Patients with RNA are predicted from RNA alone"
        )
    if fusion.weight == 1:
        return (
            f"weight 1, {by}: only the classifier that reads slides and RNA is used, not that of "
            "RNA alone"
        )
    return (
        f"weight {weight}, {by}: {weight} of the logits are those of the classifier that reads "
        f"slides and RNA, {1 - fusion.weight:g} those of RNA alone"
    )


def modality_lines(scores: ByModality) -> Iterator[tuple[str, str]]:
    """(what the model was shown, its metrics in words) with both modalities, then with each."""
    if scores.both is None:
        return
    yield READS["both"], metrics_text(scores.both.as_dict())
    for name, title in ALONE.items():
        alone = getattr(scores, name)
        if alone is None:
            yield title, f"not possible: {scores.refused.get(name, 'the model needs both')}"
            continue
        text = metrics_text(alone.as_dict())
        if alone.accuracy_difference is not None:
            text += f"; accuracy {difference_text(alone.accuracy_difference)} against both"
        yield title, text


def modality_note(scores: ByModality) -> str:
    """Sentences on the patients that are compared, and on what the figures can say."""
    if scores.both is None:
        return f"None of the {scores.of} test patients has both slides and RNA."
    who = f"All {scores.of} test patients have both."
    if scores.n < scores.of:
        who = f"Only the {scores.n} of {scores.of} test patients who have both are compared."
    note = f"The same trained model, with the other modality hidden. {who}"
    if not scores.seen_in_training:
        note += (
            " In training, no patient lacked a modality, so the model never learned to do with "
            "one: the figures of one alone may be lower than those of a model that was trained on "
            "it. finetune.modality_dropout hides modalities in training."
        )
    return note


def difference_text(difference: PairedDifference) -> str:
    """``−0.021 (−0.060 to +0.018), p = 0.344``."""
    text = signed(difference.value)
    if difference.low is not None and difference.high is not None:
        text += f" ({signed(difference.low)} to {signed(difference.high)})"
    return text if difference.p is None else f"{text}, {p_text(difference.p)}"


def p_text(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def signed(value: float) -> str:
    """With a sign that is as wide as a digit, and none for zero."""
    return f"{value:+z.3f}".replace("-", "−").replace("+0.000", "0.000")
