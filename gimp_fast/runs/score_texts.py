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


def shown_titles(scores: ByModality) -> dict[str, str]:
    """Name in the record -> what the model is shown: all that it reads, then parts of it."""
    whole = READS[scores.reads]
    if scores.with_covariates is None:
        return {"both": whole, **ALONE}
    titles = {"both": f"{whole.replace(' and', ',')} and covariates"}
    if scores.reads == "both":
        titles |= {name: f"{READS[name]} and covariates" for name in ALONE}
    without = {"without_covariates": f"{whole}, without covariates"}
    return titles | without | {"covariates": "covariates alone"}


def whole_name(scores: ByModality) -> str:
    """What differences are against, in a word."""
    return "both" if scores.with_covariates is None or scores.reads != "both" else "all"


def compared_scores(whole: SplitMetrics) -> dict[str, str]:
    """Score -> its title, of those that are compared; the first is the main one."""
    if whole.accuracy is not None:
        return {"accuracy": "accuracy", "auc": "AUC"}
    names = ("c_index", "mean_absolute_error", "correlation")
    return {name: _OF_OUTCOMES[name] for name in names if getattr(whole, name) is not None}


def modality_lines(scores: ByModality) -> Iterator[tuple[str, str]]:
    """(what the model was shown, its metrics in words), with all that it reads first."""
    if scores.both is None:
        return
    main = next(iter(compared_scores(scores.both).items()), ("", ""))
    for name, title in shown_titles(scores).items():
        part = getattr(scores, name)
        if part is None:
            yield title, f"not possible: {reason_of(scores, name)}"
            continue
        text = metrics_text(part.as_dict())
        if name != "both" and (difference := part.difference(main[0])) is not None:
            text += f"; {main[1]} {difference_text(difference)} against {whole_name(scores)}"
        yield title, text


def reason_of(scores: ByModality, name: str) -> str:
    """Why there are no metrics of a part."""
    return scores.refused.get(name, "the model needs both")


def modality_note(scores: ByModality) -> str:
    """Sentences on the patients that are compared, and on what the figures can say."""
    if scores.both is None:
        return f"None of the {scores.of} test patients has both slides and RNA."
    who = f"All {scores.of} test patients have both."
    if scores.reads != "both":
        who = f"All {scores.of} test patients are compared."
    elif scores.n < scores.of:
        who = f"Only the {scores.n} of {scores.of} test patients who have both are compared."
    hidden = "the other modality" if scores.with_covariates is None else "the rest"
    note = f"The same trained model, with {hidden} hidden. {who}"
    if scores.with_covariates is not None:
        note += _covariate_note(scores)
    if scores.reads == "both" and not scores.seen_in_training:
        note += (
            " In training, no patient lacked a modality, so the model never learned to do with "
            "one: the figures of one alone may be lower than those of a model that was trained on "
            "it. finetune.modality_dropout hides modalities in training."
        )
    return note


def _covariate_note(scores: ByModality) -> str:
    known = scores.with_covariates
    have = "All of them" if known == scores.n else f"Of them, {known}"
    note = (
        f" {have} have covariates. Covariates alone are what they add to the outputs of "
        "the model; the rest of the outputs is then the same for everybody, the mean of the "
        "validation patients."
    )
    if not scores.covariates_hidden_in_training:
        note += (
            " In training, no patient lacked all covariates, so the model never learned to do "
            "without them. finetune.modality_dropout hides covariates in training, too."
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
