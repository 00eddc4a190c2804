"""The stages that pre-train a slide encoder, before labels are learnt."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from gimp_fast.data import Cohort
from gimp_fast.losses import triplet_loss_of_pairs
from gimp_fast.targets.base import Scores
from gimp_fast.training.balance import balancing_weight
from gimp_fast.training.config import TrainConfig
from gimp_fast.training.distributed import Share
from gimp_fast.training.loader import StepPlan
from gimp_fast.training.sampling import ViewBatch, WindowBatch, read_views, read_windows
from gimp_fast.training.stage import Stage, StageContext


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
