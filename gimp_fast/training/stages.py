"""The three training stages: what each trains, one step of it, and how it is validated."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gimp_fast.models import GeneClassifier, GiMP
from gimp_fast.training.config import StageSettings, TrainConfig
from gimp_fast.training.evaluation import autocast, cross_entropy, predict, rates
from gimp_fast.training.loader import StepPlan, plan_epoch
from gimp_fast.training.sampling import PatientBatch, PatientReader, WindowBatch

Scores = dict[str, float]


@dataclass(frozen=True)
class StageContext:
    """What every stage works with."""

    config: TrainConfig
    model: GiMP
    reader: PatientReader
    split: dict[str, list[str]]
    device: torch.device


class Stage(ABC):
    """One stage of a run.

    Attributes:
        name: as in the configuration, metrics and checkpoints.
        keeps_best: whether the stage ends with its best validation epoch, or with its last.
        train_cases, val_cases: the patients it can use.
        extra: parameters beyond the model's that its checkpoints need.
    """

    name: str
    keeps_best: bool

    def __init__(self, context: StageContext):
        self.context = context
        self.settings: StageSettings = getattr(context.config, self.name)
        self.extra: nn.Module | None = None
        self.train_cases = [c for c in context.split["train"] if self.can_use(c)]
        self.val_cases = [c for c in context.split["val"] if self.can_use(c)]

    @abstractmethod
    def can_use(self, case_id: str) -> bool:
        """Whether the patient has what the stage trains on."""

    @abstractmethod
    def trained_modules(self) -> Iterator[nn.Module]:
        """Modules in training mode, whose parameters the optimiser holds."""

    @abstractmethod
    def fetcher(self) -> Callable[[StepPlan], Any]:
        """What reads the batch of a training step; picklable, so that another process can."""

    @abstractmethod
    def losses(self, batch: Any) -> dict[str, Tensor]:
        """Scalars of one step on a batch that ``fetcher`` read; ``"loss"`` is what is minimised."""

    @abstractmethod
    def validate(self) -> Scores:
        """Scores on the validation patients; at least ``"loss"``."""

    def rank(self, scores: Scores) -> tuple[float, ...]:
        """Larger is better; decides the best epoch."""
        return (-scores["loss"],)

    def parameters(self) -> list[nn.Parameter]:
        return [p for module in self.trained_modules() for p in module.parameters()]

    def train_mode(self) -> None:
        self.context.model.eval()
        for module in self.trained_modules():
            module.train()

    def autocast(self):
        return autocast(self.context.device, self.context.config.precision)


class GenesStage(Stage):
    """Supervised training of GroupMSA with a linear head, on RNA alone."""

    name = "genes"
    keeps_best = True

    def __init__(self, context: StageContext):
        super().__init__(context)
        model = context.model
        classifier = GeneClassifier(model.gene_encoder, model.config.dim, model.config.num_classes)
        self.classifier = classifier.to(context.device)
        self.extra = self.classifier.head

    def can_use(self, case_id: str) -> bool:
        return self.context.reader.cohort.has_expression(case_id)

    def trained_modules(self) -> Iterator[nn.Module]:
        yield self.classifier

    def fetcher(self) -> Callable[[StepPlan], tuple[Tensor, Tensor]]:
        return GeneFetcher(self.context.reader)

    def losses(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        genes, labels = (x.to(self.context.device, non_blocking=True) for x in batch)
        with self.autocast():
            logits = self.classifier(genes).float()
        accuracy = (logits.argmax(-1) == labels).float().mean()
        return {"loss": F.cross_entropy(logits, labels), "accuracy": accuracy.detach()}

    @torch.no_grad()
    def validate(self) -> Scores:
        self.classifier.eval()
        genes, _ = self.context.reader.genes(self.val_cases)
        with self.autocast():
            logits = self.classifier(genes.to(self.context.device)).float()
        labels = self.context.reader.labels(self.val_cases).numpy()
        return classification_scores(logits.softmax(-1).cpu().numpy(), labels)


class PretrainStage(Stage):
    """Masked patch modelling and gene-induced triplet learning on windows of slides."""

    name = "pretrain"
    keeps_best = False  # the paper fine-tunes from the last epoch

    def can_use(self, case_id: str) -> bool:
        return self.context.reader.cohort.has_slides(case_id)

    def trained_modules(self) -> Iterator[nn.Module]:
        yield self.context.model.aggregator
        yield self.context.model.decoder

    def fetcher(self) -> Callable[[StepPlan], WindowBatch]:
        return WindowFetcher(self.context.reader, self.settings.window, self.settings.mask_ratio)

    def losses(self, batch: WindowBatch) -> dict[str, Tensor]:
        settings, batch = self.settings, batch.to(self.context.device)
        with self.autocast():
            parts = self.context.model.pretrain_losses(
                batch.patches,
                batch.masked,
                batch.labels,
                batch.genes,
                has_genes=batch.has_genes,
                reduction=settings.reconstruction,
                margin=settings.margin,
                mining=settings.mining,
                normalize=settings.normalize,
            )
        loss = (
            settings.reconstruction_weight * parts.reconstruction
            + settings.triplet_weight * parts.triplet
        )
        return {
            "loss": loss,
            "reconstruction": parts.reconstruction.detach(),
            "triplet": parts.triplet.detach(),
        }

    @torch.no_grad()
    def validate(self) -> Scores:
        """The same windows and masks after every epoch."""
        self.context.model.eval()
        fetch, totals = self.fetcher(), Scores()
        seed = [self.context.config.seed]
        for plan in plan_epoch(self.val_cases, self.settings.batch_size, seed, shuffle=False):
            for name, value in self.losses(fetch(plan)).items():
                totals[name] = totals.get(name, 0.0) + value.item() * len(plan.case_ids)
        return {name: total / len(self.val_cases) for name, total in totals.items()}


class FinetuneStage(Stage):
    """Classification of whole patients: all patches of all slides, and RNA."""

    name = "finetune"
    keeps_best = True

    def can_use(self, case_id: str) -> bool:
        return self.context.reader.usable(case_id)

    def trained_modules(self) -> Iterator[nn.Module]:
        model = self.context.model
        yield model.head
        if model.aggregator is not None:
            yield model.aggregator
        if model.gene_encoder is not None and not self.settings.freeze_genes:
            yield model.gene_encoder

    def parameters(self) -> list[nn.Parameter]:
        model = self.context.model
        tokens = [getattr(model, name, None) for name in ("absent_slide", "absent_genes")]
        return super().parameters() + [token for token in tokens if token is not None]

    def fetcher(self) -> Callable[[StepPlan], PatientBatch]:
        return PatientFetcher(self.context.reader, self.settings.modality_dropout)

    def losses(self, batch: PatientBatch) -> dict[str, Tensor]:
        batch = batch.to(self.context.device)
        with self.autocast():
            logits = self.context.model(**batch.inputs()).float()
        accuracy = (logits.argmax(-1) == batch.labels).float().mean()
        return {"loss": F.cross_entropy(logits, batch.labels), "accuracy": accuracy.detach()}

    def validate(self) -> Scores:
        probabilities, _ = predict(
            self.context.model,
            self.context.reader,
            self.val_cases,
            batch_size=self.settings.batch_size,
            device=self.context.device,
            precision=self.context.config.precision,
        )
        labels = self.context.reader.labels(self.val_cases).numpy()
        return classification_scores(probabilities, labels)

    def rank(self, scores: Scores) -> tuple[float, ...]:
        if self.settings.select == "loss":
            return super().rank(scores)
        return (scores.get(self.settings.select, 0.0), -scores["loss"])


@dataclass(frozen=True)
class GeneFetcher:
    """Reads scaled genes (B, G) and labels (B,)."""

    reader: PatientReader

    def __call__(self, plan: StepPlan) -> tuple[Tensor, Tensor]:
        genes, _ = self.reader.genes(plan.case_ids)
        return genes, self.reader.labels(plan.case_ids)


@dataclass(frozen=True)
class WindowFetcher:
    """Reads masked windows of ``length`` patches."""

    reader: PatientReader
    length: int
    mask_ratio: float

    def __call__(self, plan: StepPlan) -> WindowBatch:
        return self.reader.windows(plan.case_ids, self.length, self.mask_ratio, plan.rngs())


@dataclass(frozen=True)
class PatientFetcher:
    """Reads whole patients, of whom some hide one of two modalities."""

    reader: PatientReader
    modality_dropout: float = 0.0

    def __call__(self, plan: StepPlan) -> PatientBatch:
        hide, chance = None, self.modality_dropout
        if chance:
            shares = [1 - chance, chance / 2, chance / 2]
            hide = np.array([rng.choice(3, p=shares) for rng in plan.rngs()])
        return self.reader.batch(plan.case_ids, hide)


def classification_scores(probabilities: np.ndarray, labels: np.ndarray) -> Scores:
    if not np.isfinite(probabilities).all():
        return {"loss": float("nan")}
    found = rates(probabilities, labels)
    scores = {"loss": cross_entropy(probabilities, labels), "accuracy": found["accuracy"]}
    if found["auc"] is not None:
        scores["auc"] = found["auc"]
    return scores


def stages_of(config: TrainConfig) -> list[type[Stage]]:
    """The stages that a configuration runs, in order."""
    wanted: list[type[Stage]] = []
    if config.modalities != "slide" and config.genes.epochs:
        wanted.append(GenesStage)
    if config.modalities != "rna" and config.pretrain.epochs:
        wanted.append(PretrainStage)
    return [*wanted, FinetuneStage]
