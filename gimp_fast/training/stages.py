"""The three training stages: what each trains, one step of it, and how it is validated."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from gimp_fast.losses import triplet_loss
from gimp_fast.models import PatientModel
from gimp_fast.models.outputs import Outputs, autocast
from gimp_fast.targets import classification
from gimp_fast.targets.classification import Scores
from gimp_fast.training.config import TrainConfig
from gimp_fast.training.distributed import ALONE, Ranks, Share
from gimp_fast.training.loader import StepPlan, plan_epoch
from gimp_fast.training.predicting import predict
from gimp_fast.training.sampling import (
    GeneBatch,
    GeneFetcher,
    PatientBatch,
    PatientFetcher,
    PatientReader,
    ViewBatch,
    ViewFetcher,
    WindowBatch,
    WindowFetcher,
)
from gimp_fast.training.stage_settings import StageSettings


@dataclass(frozen=True)
class StageContext:
    """What every stage works with."""

    config: TrainConfig
    model: PatientModel
    reader: PatientReader
    split: dict[str, list[str]]
    device: torch.device
    ranks: Ranks = field(default=ALONE)

    def predict(self, case_ids: Sequence[str]) -> Outputs:
        """What the model makes of patients; ranks share them, and all know the result."""
        return predict(
            self.model,
            self.reader,
            case_ids,
            batch_size=self.config.finetune.batch_size,
            device=self.device,
            precision=self.config.precision,
            ranks=self.ranks,
        )


class Stage(ABC):
    """One stage of a run.

    Attributes:
        name: as in the configuration, metrics and checkpoints.
        keeps_best: whether the stage ends with its best validation epoch, or with its last.
        train_cases, val_cases: the patients it can use.
        leaves_unused: whether a step may leave parameters out, such as the tokens of absent
            modalities.
        extra: parameters beyond the model's that its checkpoints need.
    """

    name: str
    keeps_best: bool
    leaves_unused = False

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
    def losses(self, batch: Any, share: Share) -> dict[str, Tensor]:
        """This rank's share of the scalars of one step; ``"loss"`` is what is minimised.

        Args:
            batch: what ``fetcher`` read, on the device.
            share: what part of the whole batch that is. Summed over ranks, the scalars and the
                gradients are those of the whole batch.
        """

    @abstractmethod
    def validate(self) -> Scores:
        """Scores on the validation patients, the same on every rank; at least ``"loss"``."""

    def rank(self, scores: Scores) -> tuple[float, ...]:
        """Larger is better; decides the best epoch."""
        return (-scores["loss"],)

    def parameters(self) -> list[nn.Parameter]:
        """What the optimiser holds."""
        return [p for module in self.trained_modules() for p in module.parameters()]

    def train_mode(self) -> None:
        """Trained modules train; all others neither drop anything out nor keep gradients."""
        self.context.model.eval()
        self.context.model.requires_grad_(False)
        for module in self.trained_modules():
            module.train()
        for parameter in self.parameters():
            parameter.requires_grad_(True)

    def autocast(self):
        return autocast(self.context.device, self.context.config.precision)


class StageModule(nn.Module):
    """A stage's step as a module, which is what wrappers of modules wrap."""

    def __init__(self, stage: Stage):
        super().__init__()
        self.parameters_of_stage = nn.ParameterList(stage.parameters())
        self._losses = stage.losses

    def forward(self, batch: Any, share: Share) -> dict[str, Tensor]:
        return self._losses(batch, share)


class GenesStage(Stage):
    """Supervised training of GroupMSA with a linear head, on RNA alone."""

    name = "genes"
    keeps_best = True

    def __init__(self, context: StageContext):
        super().__init__(context)
        self.classifier = context.model.gene_classifier().to(context.device)
        if self.classifier.head not in set(context.model.modules()):
            self.extra = self.classifier.head

    def can_use(self, case_id: str) -> bool:
        return self.context.reader.cohort.has_expression(case_id)

    def trained_modules(self) -> Iterator[nn.Module]:
        yield self.classifier

    def fetcher(self) -> Callable[[StepPlan], GeneBatch]:
        return GeneFetcher(self.context.reader)

    def losses(self, batch: GeneBatch, share: Share) -> dict[str, Tensor]:
        genes = batch.genes
        if self.settings.noise:
            genes = _with_noise(genes, self.settings.noise)
        with self.autocast():
            logits = self.classifier(genes).float()
        return _shares(logits, classification.loss(logits, batch.labels), batch.labels, share)

    @torch.no_grad()
    def validate(self) -> Scores:
        self.classifier.eval()
        genes, _ = self.context.reader.genes(self.val_cases)
        with self.autocast():
            logits = self.classifier(genes.to(self.context.device)).float()
        labels = self.context.reader.labels(self.val_cases).numpy()
        return classification.scores(logits.softmax(-1).cpu().numpy(), labels)


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

    def losses(self, batch: WindowBatch, share: Share) -> dict[str, Tensor]:
        settings = self.settings
        with self.autocast():
            reconstruction, cls_pat = self.context.model.pretrain_parts(
                batch.patches, batch.masked, batch.genes, batch.rna
            )
        if settings.triplets == "slide":
            cls_pat = cls_pat[:, : self.context.model.config.dim]  # CLS_img
        if settings.reconstruction == "mean":
            counted = batch.masked.sum() * batch.patches.shape[-1]
            reconstruction = share.ratio(reconstruction, counted)
        # Triplets are mined among the patients of all ranks (section 2.3).
        triplet = share.of_all(
            triplet_loss(
                share.gather(cls_pat.float()),
                share.gather(batch.labels),
                margin=settings.margin,
                mining=settings.mining,
                normalize=settings.normalize,
            )
        )
        loss = settings.reconstruction_weight * reconstruction + settings.triplet_weight * triplet
        return {
            "loss": loss,
            "reconstruction": reconstruction.detach(),
            "triplet": triplet.detach(),
        }

    def validate(self) -> Scores:
        """The same windows and masks after every epoch."""
        return _validated_in_batches(self)


class AlignmentStage(Stage):
    """Slides aligned with the genes of the same patient: pre-training of MGCA, BioViL and REFERS.

    Patients without one of the two have nothing to align.
    """

    name = "pretrain"
    keeps_best = False
    leaves_unused = True

    def can_use(self, case_id: str) -> bool:
        cohort = self.context.reader.cohort
        return cohort.has_slides(case_id) and cohort.has_expression(case_id)

    def trained_modules(self) -> Iterator[nn.Module]:
        yield from self.context.model.aligned_modules()

    def fetcher(self) -> Callable[[StepPlan], ViewBatch]:
        return ViewFetcher(self.context.reader, self.settings.window, self.context.model.views)

    def losses(self, batch: ViewBatch, share: Share) -> dict[str, Tensor]:
        with self.autocast():
            terms = self.context.model.alignment_terms(batch.patches, batch.genes, share.gather)
        # Scalars were computed from the patients of all ranks, rows are of this rank's.
        shares = {
            name: share.mean(term) if term.dim() else share.of_all(term)
            for name, term in terms.items()
        }
        detached = {name: term.detach() for name, term in shares.items()}
        return {"loss": sum(shares.values()), **detached}

    def validate(self) -> Scores:
        """The same windows, and the same masks, after every epoch."""
        with torch.random.fork_rng(devices=_gpus(self.context.device)):
            torch.manual_seed(self.context.config.seed)
            return _validated_in_batches(self)


@torch.no_grad()
def _validated_in_batches(stage: Stage) -> Scores:
    """Mean losses over the validation patients; ranks take turns at the batches."""
    context = stage.context
    context.model.eval()
    fetch, ranks = stage.fetcher(), context.ranks
    plans = plan_epoch(
        stage.val_cases, stage.settings.batch_size, [context.config.seed], shuffle=False
    )
    totals: Scores = {}
    for plan in plans[ranks.rank :: ranks.size]:
        losses = stage.losses(fetch(plan).to(context.device), Share(ALONE, plan.total))
        for name, value in losses.items():
            totals[name] = totals.get(name, 0.0) + value.item() * plan.total
    summed: Scores = {}
    for part in ranks.gather(totals):  # a rank without a batch has none
        for name, total in part.items():
            summed[name] = summed.get(name, 0.0) + total
    return {name: total / len(stage.val_cases) for name, total in summed.items()}


def _gpus(device: torch.device) -> list[torch.device]:
    return [device] if device.type == "cuda" else []


class FinetuneStage(Stage):
    """Classification of whole patients: all patches of all slides, and RNA."""

    name = "finetune"
    keeps_best = True
    leaves_unused = True

    def can_use(self, case_id: str) -> bool:
        return self.context.reader.usable(case_id)

    def trained_modules(self) -> Iterator[nn.Module]:
        return self.context.model.finetuned_modules(self.settings.freeze_genes)

    def parameters(self) -> list[nn.Parameter]:
        return super().parameters() + self.context.model.loose_parameters()

    def fetcher(self) -> Callable[[StepPlan], PatientBatch]:
        return PatientFetcher(self.context.reader, self.settings.modality_dropout)

    def losses(self, batch: PatientBatch, share: Share) -> dict[str, Tensor]:
        inputs = batch.inputs
        if self._trains_genes and self.settings.noise:
            inputs = replace(inputs, genes=_with_noise(inputs.genes, self.settings.noise))
        with self.autocast():
            outcome = self.context.model.loss(batch.labels, inputs)
        return _shares(outcome.logits, outcome.loss, batch.labels, share)

    def validate(self) -> Scores:
        model, device = self.context.model, self.context.device
        outputs = self.context.predict(self.val_cases)
        labels = self.context.reader.labels(self.val_cases)
        probabilities, representation = outputs.probabilities, outputs.representation(device)
        if model.fit_to_validation(representation, labels.to(device)):
            with torch.no_grad():
                probabilities = model.classify(representation).float().softmax(-1).cpu().numpy()
        return classification.scores(probabilities, labels.numpy())

    @property
    def _trains_genes(self) -> bool:
        frozen = self.context.model.supervised_genes and self.settings.freeze_genes
        return self.context.reader.uses_genes and not frozen

    def rank(self, scores: Scores) -> tuple[float, ...]:
        return classification.rank(scores, self.settings.select)


def _with_noise(genes: Tensor, sd: float) -> Tensor:
    return genes + sd * torch.randn_like(genes)


def _shares(logits: Tensor, loss: Tensor, labels: Tensor, share: Share) -> dict[str, Tensor]:
    return {"loss": share.mean(loss), "accuracy": share.mean(classification.hits(logits, labels))}


_PRETRAINING: dict[str | None, type[Stage]] = {"gimp": PretrainStage, "alignment": AlignmentStage}


def stages_of(config: TrainConfig) -> list[type[Stage]]:
    """The stages that a configuration runs, in order."""
    wanted: list[type[Stage]] = []
    kind = config.model_class
    if kind.supervised_genes and config.modalities != "slide" and config.genes.epochs:
        wanted.append(GenesStage)
    if kind.pretraining and config.modalities != "rna" and config.pretrain.epochs:
        wanted.append(_PRETRAINING[kind.pretraining])
    return [*wanted, FinetuneStage]
