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
from gimp_fast.losses import triplet_loss_of_pairs
from gimp_fast.targets.base import Scores, Target
from gimp_fast.training.balance import balancing_weight
from gimp_fast.training.config import TrainConfig
from gimp_fast.training.distributed import Share
from gimp_fast.training.loader import StepPlan
from gimp_fast.training.sampling import (
    GeneBatch,
    PatientBatch,
    ViewBatch,
    WindowBatch,
    read_genes,
    read_patients,
    read_views,
    read_windows,
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


class Pretraining(Stage):
    """Pre-training of the slide encoder, which a linear classifier of its vectors may judge."""

    name = "pretrain"

    def __init__(self, context: StageContext):
        super().__init__(context)
        self.keeps_best = self.settings.keep == "probe"

    def validate(self) -> Scores:
        scores = super().validate()
        return scores | self._probe() if self.keeps_best else scores

    def rank(self, scores: Scores) -> tuple[float, ...]:
        return (-scores["probe_loss"],) if self.keeps_best else super().rank(scores)

    def _probe(self) -> Scores:
        """Validation scores of a linear classifier of CLS_img, fitted on training patients."""
        context = self.context
        cases = [*self.train_cases, *self.val_cases]
        vectors = context.predict(cases).vectors[:, : context.model.config.dim]
        truth, training = context.reader.truth(cases).numpy(), len(self.train_cases)
        scores = context.model.target.probe(
            vectors[:training], truth[:training], vectors[training:], truth[training:]
        )
        found = {f"probe_{name}": value for name, value in scores.items()}
        return context.ranks.from_first(found)


class PretrainStage(Pretraining):
    """Masked patch modelling and gene-induced triplet learning on windows of slides."""

    recordable = True

    @staticmethod
    def can_use(cohort: Cohort, config: TrainConfig, case_id: str) -> bool:
        return cohort.has_slides(case_id)

    def trained_modules(self) -> Iterator[nn.Module]:
        yield self.context.model.aggregator
        yield self.context.model.decoder

    def fetcher(self) -> Callable[[StepPlan], WindowBatch]:
        return partial(
            read_windows, self.context.reader, self.settings.window, self.settings.mask_ratio
        )

    def losses(self, batch: WindowBatch, share: Share) -> dict[str, Tensor]:
        settings = self.settings
        with self.autocast():
            reconstruction, cls_pat = self.context.model.pretrain_parts(
                batch.patches, batch.masked, batch.genes, batch.rna
            )
        if settings.triplets == "slide":
            cls_pat = cls_pat[:, : self.context.model.config.dim]  # CLS_img
        if settings.reconstruction == "mean":
            counted = batch.masked.mask.sum() * batch.patches.shape[-1]
            reconstruction = share.ratio(reconstruction, counted)
        else:
            reconstruction = share.mean(reconstruction)
        # Triplets are mined among the patients of all ranks (section 2.3).
        positive, negative = self.context.model.target.pairs(share.gather(batch.truth))
        triplet = share.of_all(
            triplet_loss_of_pairs(
                share.gather(cls_pat.float()),
                positive,
                negative,
                margin=settings.margin,
                mining=settings.mining,
                normalize=settings.normalize,
            )
        )
        weight = settings.triplet_weight
        if settings.balance and torch.is_grad_enabled():
            last = list(self.context.model.aggregator.norm.parameters())
            weight = weight * balancing_weight(reconstruction, triplet, last, share)
        loss = settings.reconstruction_weight * reconstruction + weight * triplet
        return {
            "loss": loss,
            "reconstruction": reconstruction.detach(),
            "triplet": triplet.detach(),
        }


class AlignmentStage(Pretraining):
    """Aligns slides with the genes of the same patient: pre-training of MGCA, BioViL and REFERS.

    Patients need both modalities.
    """

    leaves_unused = True

    @staticmethod
    def can_use(cohort: Cohort, config: TrainConfig, case_id: str) -> bool:
        return cohort.has_slides(case_id) and cohort.has_expression(case_id)

    def trained_modules(self) -> Iterator[nn.Module]:
        yield from self.context.model.aligned_modules()

    def fetcher(self) -> Callable[[StepPlan], ViewBatch]:
        return partial(
            read_views, self.context.reader, self.settings.window, self.context.model.views
        )

    def losses(self, batch: ViewBatch, share: Share) -> dict[str, Tensor]:
        with self.autocast():
            terms = self.context.model.alignment_terms(batch.patches, batch.genes, share.gather)
        # Scalars come from the patients of all ranks, vectors from those of this rank.
        shares = {
            name: share.mean(term) if term.dim() else share.of_all(term)
            for name, term in terms.items()
        }
        detached = {name: term.detach() for name, term in shares.items()}
        return {"loss": sum(shares.values()), **detached}

    def validate(self) -> Scores:
        device = self.context.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(self.context.config.seed)
            return super().validate()


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
        inputs = batch.inputs
        if self._trains_genes and self.settings.noise:
            inputs = replace(inputs, genes=_with_noise(inputs.genes, self.settings.noise))
        target = self.context.model.target
        with self.autocast(), target.of_batch(share):
            outcome = self.context.model.loss(batch.truth, inputs)
        loss = outcome.loss
        if self._weights:
            weights = [self._weights[case] for case in batch.case_ids]
            loss = loss * torch.tensor(weights, device=loss.device)
        return _shares(target, outcome.logits, loss, batch.truth, share)

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


_PRETRAINING: dict[str | None, type[Stage]] = {"gimp": PretrainStage, "alignment": AlignmentStage}


def stages_of(config: TrainConfig) -> list[type[Stage]]:
    """The stages that a configuration runs, in order."""
    stages: list[type[Stage]] = []
    kind = config.model_class
    if kind.supervised_genes and config.modalities != "slide" and config.genes.epochs:
        stages.append(GenesStage)
    if kind.pretraining and config.modalities != "rna" and config.pretrain.epochs:
        stages.append(_PRETRAINING[kind.pretraining])
    return [*stages, FinetuneStage]
