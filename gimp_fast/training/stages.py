"""The training stages: which modules each trains, its loss, and its validation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from gimp_fast.data import Cohort
from gimp_fast.errors import GimpError
from gimp_fast.models.base import Outcome
from gimp_fast.targets.base import Scores, Target
from gimp_fast.training.config import TrainConfig
from gimp_fast.training.distributed import Share
from gimp_fast.training.loader import StepPlan
from gimp_fast.training.pretraining import AlignmentStage, Pretraining, PretrainStage
from gimp_fast.training.sampling import (
    HIDE_RNA,
    GeneBatch,
    PatientBatch,
    read_genes,
    read_patients,
    read_shown,
)
from gimp_fast.training.stage import Stage, StageContext
from gimp_fast.training.weights import site_weights


class GenesStage(Stage):
    """Supervised training of GroupMSA with a linear head, on RNA alone."""

    name = "genes"
    keeps_best = True

    def __init__(self, context: StageContext):
        super().__init__(context)
        self.classifier = context.model.gene_classifier().to(context.device)
        if self.classifier.head not in set(context.model.modules()):
            self.extra = self.classifier.head

    @staticmethod
    def can_use(cohort: Cohort, config: TrainConfig, case_id: str) -> bool:
        return cohort.has_expression(case_id)

    def trained_modules(self) -> Iterator[nn.Module]:
        yield self.classifier

    def fetcher(self) -> Callable[[StepPlan], GeneBatch]:
        return partial(read_genes, self.context.reader)

    def losses(self, batch: GeneBatch, share: Share) -> dict[str, Tensor]:
        genes = batch.genes
        if self.settings.noise:
            genes = _with_noise(genes, self.settings.noise)
        with self.autocast():
            logits = self.classifier(genes).float()
        target = self.context.model.target
        with target.of_batch(share):
            loss = target.loss(logits, batch.truth)
        return _shares(target, logits, loss, batch.truth, share)

    @torch.no_grad()
    def validate(self) -> Scores:
        self.classifier.eval()
        genes, _ = self.context.reader.genes(self.val_cases)
        with self.autocast():
            logits = self.classifier(genes.to(self.context.device)).float()
        truth, target = self.context.reader.truth(self.val_cases), self.context.model.target
        target.calibrate(lambda: logits, truth)
        return _scores(self.context, target.predictions(logits).cpu().numpy(), truth.numpy())


class FinetuneStage(Stage):
    """Classifies whole patients: all patches of all slides, and RNA."""

    name = "finetune"
    keeps_best = True
    leaves_unused = True

    def __init__(self, context: StageContext):
        super().__init__(context)
        self._weights: dict[str, float] = {}
        if self.settings.site_weights == "sqrt":
            site_of = {case: context.reader.cohort.site(case) for case in self.train_cases}
            self._weights = site_weights(site_of)

    @staticmethod
    def can_use(cohort: Cohort, config: TrainConfig, case_id: str) -> bool:
        return cohort.usable(case_id, config.modalities)

    def trained_modules(self) -> Iterator[nn.Module]:
        return self.context.model.finetuned_modules(self.settings.freeze_genes)

    def parameters(self) -> list[nn.Parameter]:
        return super().parameters() + self.context.model.loose_parameters()

    def fetcher(self) -> Callable[[StepPlan], PatientBatch]:
        return partial(read_patients, self.context.reader, self.settings.modality_dropout)

    def losses(self, batch: PatientBatch, share: Share) -> dict[str, Tensor]:
        target = self.context.model.target
        with self.autocast(), target.of_batch(share):
            outcome = self._outcome(batch)
        loss = outcome.loss
        if self._weights:
            weights = [self._weights[case] for case in batch.case_ids]
            loss = loss * torch.tensor(weights, device=loss.device)
        return _shares(target, outcome.logits, loss, batch.truth, share)

    def _outcome(self, batch: PatientBatch) -> Outcome:
        inputs = batch.inputs
        if self._trains_genes and self.settings.noise:
            inputs = replace(inputs, genes=_with_noise(inputs.genes, self.settings.noise))
        return self.context.model.loss(batch.truth, inputs)

    def validate(self) -> Scores:
        model, device = self.context.model, self.context.device
        outputs = self.context.predict(self.val_cases)
        truth = self.context.reader.truth(self.val_cases)
        predictions, representation = outputs.predictions, outputs.representation(device)
        if model.fit_to_validation(representation, truth.to(device)):
            with torch.no_grad():
                logits = model.classify(representation).float()
            predictions = model.target.predictions(logits).cpu().numpy()
        return _scores(self.context, predictions, truth.numpy())

    @property
    def _trains_genes(self) -> bool:
        frozen = self.context.model.supervised_genes and self.settings.freeze_genes
        return self.context.reader.uses_genes and not frozen

    def rank(self, scores: Scores) -> tuple[float, ...]:
        target = self.context.model.target
        return target.rank(scores, self.settings.select or target.measures[0])


class SlidesStage(FinetuneStage):
    """Supervised training of the slide encoder with a head of its own, on slides alone.

    It has the settings of fine-tuning, and its random numbers in a run of slides alone, which has
    no genes stage before. Covariates are left to fine-tuning.
    """

    name, section = "slides", "finetune"
    number_shift = -1

    @staticmethod
    def can_use(cohort: Cohort, config: TrainConfig, case_id: str) -> bool:
        return cohort.has_slides(case_id)

    def trained_modules(self) -> Iterator[nn.Module]:
        yield self.context.model.aggregator
        yield self.context.model.slide_head

    def parameters(self) -> list[nn.Parameter]:
        return Stage.parameters(self)

    def fetcher(self) -> Callable[[StepPlan], PatientBatch]:
        return partial(read_shown, self.context.reader, HIDE_RNA)

    def _outcome(self, batch: PatientBatch) -> Outcome:
        model = self.context.model
        logits = self._logits(model.vectors(batch.inputs))
        return Outcome(logits, model.target.loss(logits, batch.truth))

    @torch.no_grad()
    def validate(self) -> Scores:
        context, target = self.context, self.context.model.target
        vectors = context.predict(self.val_cases, HIDE_RNA).vectors
        with self.autocast():
            logits = self._logits(torch.from_numpy(vectors).to(context.device))
        truth = context.reader.truth(self.val_cases)
        target.calibrate(lambda: logits, truth)
        return _scores(context, target.predictions(logits).cpu().numpy(), truth.numpy())

    def _logits(self, vectors: Tensor) -> Tensor:
        model = self.context.model
        return model.slide_head(vectors[:, : model.config.dim].contiguous()).float()


def _with_noise(genes: Tensor, sd: float) -> Tensor:
    return genes + sd * torch.randn_like(genes)


def _shares(
    target: Target, logits: Tensor, loss: Tensor, truth: Tensor, share: Share
) -> dict[str, Tensor]:
    if loss.shape != truth.shape[:1]:
        found = f"a loss of shape {tuple(loss.shape)} for {len(truth)} patients"
        raise GimpError(f"loss of the model or target: found {found}; expected one for each")
    others = target.in_training(logits, truth)
    return {name: share.mean(values) for name, values in {"loss": loss, **others}.items()}


def _scores(context: StageContext, predictions: np.ndarray, truth: np.ndarray) -> Scores:
    """The target's scores of validation patients."""
    scores = context.model.target.scores(predictions, truth)
    if "loss" not in scores:
        found = ", ".join(scores) or "none"
        name = ", ".join(context.config.target_names)
        raise GimpError(f"scores of the target '{name}': found {found}; expected a loss")
    return scores


_PRETRAINING: dict[str | None, type[Pretraining]] = {
    "gimp": PretrainStage,
    "alignment": AlignmentStage,
}


def stages_of(config: TrainConfig) -> list[type[Stage]]:
    """The stages that a configuration runs, in order."""
    stages: list[type[Stage]] = []
    kind = config.model_class
    if kind.supervised_genes and config.modalities != "slide" and config.genes.epochs:
        stages.append(GenesStage)
    if kind.pretraining and config.modalities != "rna" and config.pretrain.epochs:
        stages.append(_PRETRAINING[kind.pretraining])
    if getattr(config.model, "missing", "token") == "heads" and kind.supervised_genes:
        stages += [SlidesStage] if config.modalities == "both" else []
    return [*stages, FinetuneStage]
