"""The results of a trained run: metrics, predictions and representations of the chosen model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from gimp_fast.data import Cohort
from gimp_fast.data.cohort import PARTS
from gimp_fast.models import build
from gimp_fast.models.outputs import Outputs
from gimp_fast.runs.checkpoint import load_model
from gimp_fast.runs.folder import RunFolder
from gimp_fast.runs.patient_arrays import AS_DRAWN
from gimp_fast.runs.records import CohortSummary, Embeddings, Metrics
from gimp_fast.runs.score_texts import (
    fusion_text,
    metrics_text,
    modality_lines,
    modality_note,
    shown_titles,
)
from gimp_fast.runs.scores import Fusion
from gimp_fast.training.by_modality import by_modality
from gimp_fast.training.evaluate_classes import evaluated_predictions, scores_of
from gimp_fast.training.evaluate_outcomes import (
    outcome_predictions,
    outcome_scores,
    target_summary,
)
from gimp_fast.training.evaluate_several import several_predictions, several_scores
from gimp_fast.training.stage import StageContext
from gimp_fast.training.stages import stages_of


def evaluate_run(
    context: StageContext,
    folder: RunFolder,
    cohort: Cohort,
    split_name: str,
    log: Callable[[str], None],
) -> dict[str, Any]:
    """What ``metrics.json`` holds of the chosen model; rank 0 writes it and the other results."""
    config = context.config
    trained = {kind.name for kind in stages_of(config)}
    cases = [case for part in PARTS for case in context.split[part]]
    parts = np.array([part for part in PARTS for _ in context.split[part]])
    truth, target = context.reader.truth(cases).numpy(), context.model.target
    representations = {}
    if "pretrain" in trained:
        representations[AS_DRAWN] = _vectors_as_drawn(context, cases)
    for name in ("pretrain", "finetune"):
        if name in trained:
            log(f"evaluate: {len(cases)} patients with the model of stage '{name}'")
            state = load_model(folder.checkpoint(name), context.model)
            outputs = _predicted(context, cases, parts)
            representations[name] = outputs.vectors
    log(f"evaluate: intervals from {config.bootstrap} resamples")
    name = context.reader.target
    classes = cohort.classes_of(name)
    if target.kind == "class":
        label_names = np.array([classes[label] for label in truth])
        predictions = evaluated_predictions(classes, cases, parts, truth, outputs.predictions)
        scores = scores_of(predictions, config.bootstrap, config.seed)
        counts = cohort.class_counts(context.split, name)
    elif target.kind == "several":
        label_names, counts = target.groups(truth), None
        predictions = several_predictions(target, cases, parts, truth, outputs.predictions)
        scores = {"targets": several_scores(target, parts, truth, outputs.predictions, config)}
    else:
        label_names = target.groups(truth)
        predictions = outcome_predictions(target, cases, parts, truth, outputs.predictions)
        scores = outcome_scores(
            target, parts, truth, outputs.predictions, config.bootstrap, config.seed
        )
        counts = None
    scores |= _of_modalities(context, cases, outputs)
    summary = {}
    if isinstance(name, str):
        summary["target"] = target_summary(name, target, parts, outputs.predictions)
    embeddings = Embeddings(np.array(cases), parts, label_names, representations)
    metrics = Metrics(
        cohort=CohortSummary(
            name=cohort.name,
            synthetic=cohort.synthetic,
            split=split_name,
            classes=classes,
            n={part: len(cases) for part, cases in context.split.items()},
            **({} if counts is None else {"by_class": counts}),
        ),
        cautions=tuple(cohort.cautions_of(context.split, name)),
        method=config.method,
        modalities=config.modalities,
        seed=config.seed,
        **summary,
        best_epoch=state["epoch"],
        **scores,
    )
    if context.ranks.writes:
        folder.write_embeddings(embeddings)
        folder.write_predictions(predictions)
        folder.write_metrics(metrics)
        for line in result_lines(metrics):
            log(line)
    return metrics.as_dict()


def _predicted(context: StageContext, cases: Sequence[str], parts: np.ndarray) -> Outputs:
    """Of all patients. A linear part that knows the validation patients predicts test patients."""
    linear = context.model.linear_part
    if linear is None:
        return context.predict(cases)
    found, known = [], sum(parts != "test")
    for some, linear.refitted in ((cases[:known], False), (cases[known:], True)):
        found.append(context.predict(some))
    return Outputs.joined(found)


def _vectors_as_drawn(context: StageContext, cases: Sequence[str]) -> np.ndarray:
    """What pre-training has to be better than: the vectors of the model with its first weights."""
    config = context.config
    devices = [context.device] if context.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(config.seed)
        model = build(config.method, context.model.config, backend=config.backend)
    model.target = context.model.target
    return replace(context, model=model.to(context.device)).predict(cases).vectors


def _of_modalities(context: StageContext, cases: Sequence[str], outputs: Outputs) -> dict[str, Any]:
    """What ``metrics.json`` says of a model that reads more than slides, or more than RNA."""
    config, facts = context.config, {}
    weight = context.model.fusion_weight_of_both()
    if weight is not None:
        facts["fusion"] = Fusion(weight=weight, chosen_on=len(context.split["val"]))
    if context.model.target.kind == "several":  # scores of which there is no one
        return facts
    found = by_modality(context, cases, outputs, config.bootstrap, config.seed)
    return facts if found is None else facts | {"by_modality": found}


def result_lines(metrics: Metrics) -> Iterator[str]:
    """The results of a run for the console: the test set, and what each modality contributes."""
    found = metrics.as_dict()
    if "targets" in found:
        for name, of_target in found["targets"].items():
            yield f"test, {name}: {metrics_text(of_target['test'])}"
    else:
        yield f"test: {metrics_text(found['test'])}"
    if metrics.fusion is not None:
        yield f"fusion: {fusion_text(metrics.fusion)}"
    if (scores := metrics.by_modality) is not None:
        whole = shown_titles(scores)["both"]
        for shown, text in modality_lines(scores):
            if shown != whole or scores.n < scores.of:  # else it is the first line again
                yield f"test, {shown}: {text}"
        yield f"  {modality_note(scores)}"
