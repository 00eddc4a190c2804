"""Settings of the training stages."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from gimp_fast.errors import one_of
from gimp_fast.validation import Settings

MEASURES = ("accuracy", "auc", "c_index", "correlation", "loss")  # that can choose an epoch


class StageSettings(Settings):
    """Settings that every stage has.

    Attributes:
        epochs: passes over the training patients; 0 skips a stage before the last.
        batch_size: patients per step.
        lr: peak learning rate of AdamW; decays to zero along a cosine.
        weight_decay: of AdamW, on matrices only.
        warmup_epochs: linear warm-up before the cosine; may be a fraction.
        clip_norm: largest global norm of the gradient; null does not clip.
    """

    epochs: int = Field(ge=0)
    batch_size: int = Field(ge=1)
    lr: float = Field(1e-4, gt=0)
    weight_decay: float = Field(1e-2, ge=0)
    warmup_epochs: float = Field(0.0, ge=0)
    clip_norm: float | None = Field(None, gt=0)


class GenesSettings(StageSettings):
    """Supervised training of the gene encoder (section 2.3); keeps the best validation epoch.

    Attributes:
        noise: SD of Gaussian noise on the scaled expression of training patients.
    """

    epochs: int = Field(70, ge=0)
    batch_size: int = Field(32, ge=1)
    noise: float = Field(0.0, ge=0)


class PretrainSettings(StageSettings):
    """Masked patch modelling and gene-induced triplets, with a frozen gene encoder.

    Models that align slides with genes instead (MGCA, BioViL, REFERS) use only ``window`` and
    ``keep``.

    Attributes:
        window: L, patches in a contiguous window; shorter bags are repeated.
        mask_ratio: share of the window's distinct patches that is masked.
        reconstruction: ``"sum"`` is eq. 3 of each patient, averaged over the batch; ``"mean"``
            averages over all masked elements of the batch instead.
        reconstruction_weight, triplet_weight: factors of the two losses; the paper adds them.
        balance: weigh the triplet loss anew in every step, so that it changes the last layer of the
            slide encoder as much as the reconstruction does, and then by ``triplet_weight``. With
            the paper's plain sum one of them decides alone: which one depends on the number of
            channels and the scale of the features.
        triplets: vectors of the triplets: ``"patient"`` is CLS_pat, slide and genes; ``"slide"`` is
            CLS_img, without genes (an ablation).
        margin: δ of eq. 4.
        mining: which triplets of a batch: ``"hard"`` or ``"all"``.
        normalize: scale the vectors to unit length before distances are taken.
        keep: the epoch that fine-tuning starts from: ``"last"``, as in the paper, or ``"probe"``,
            the one whose CLS_img tells patients apart best. A linear model of CLS_img is fitted on
            the training patients after every epoch, and its loss on the validation patients
            decides.
        cuda_graphs: after three steps of one kind, replay such steps as a CUDA graph: the same
            results, and faster where a processor starts kernels too slowly for its GPU. Steps are
            of one kind if they have as many patients, the same of them lack RNA, and windows have
            as many masked patches; slides shorter than a window make others. A graph keeps the
            memory of its step. It has no effect on a CPU, with several processes, ``compile`` or
            ``model.checkpoint_layers``.
    """

    epochs: int = Field(100, ge=0)
    batch_size: int = Field(16, ge=1)
    window: int = Field(6000, ge=1)
    mask_ratio: float = Field(0.5, gt=0, lt=1)
    reconstruction: Literal["mean", "sum"] = "mean"
    reconstruction_weight: float = Field(1.0, ge=0)
    triplet_weight: float = Field(1.0, ge=0)
    balance: bool = False
    triplets: Literal["patient", "slide"] = "patient"
    margin: float = Field(0.8, ge=0)
    mining: Literal["hard", "all"] = "hard"
    normalize: bool = False
    keep: Literal["last", "probe"] = "last"
    cuda_graphs: bool = False


class FinetuneSettings(StageSettings):
    """Classification of whole slides and RNA with the MLP head.

    Attributes:
        freeze_genes: keep the gene encoder as the genes stage left it; models without that stage
            always train it. ``genes.epochs=0`` needs false.
        modality_dropout: probability of hiding one of a training patient's two modalities, and,
            drawn apart, of hiding all covariates, so that the model learns to do without them.
        site_weights: how much training patients count: ``"none"``, all the same, or ``"sqrt"``, in
            inverse proportion to the root of the number of patients of their hospital.
        noise: SD of Gaussian noise on the scaled expression of training patients, for models whose
            gene encoder is trained in this stage.
        covariate_lr: peak learning rate of what clinical covariates add to the outputs. That begins
            at nothing and is a few numbers for each output: a network's rate would leave them so.
        select: score that chooses the best validation epoch; ties go to the lower validation loss.
            null is the first score of the target: accuracy of classes, C-index of survival, loss of
            numbers. Of several targets it is the loss, their mean, or null; or a score of one of
            them, as ``os:c_index``.
    """

    epochs: int = Field(70, ge=1)
    batch_size: int = Field(16, ge=1)
    freeze_genes: bool = True
    modality_dropout: float = Field(0.0, ge=0, lt=1)
    site_weights: Literal["none", "sqrt"] = "none"
    noise: float = Field(0.0, ge=0)
    covariate_lr: float = Field(3e-2, gt=0)
    select: str | None = None

    @field_validator("select")
    @classmethod
    def _check_select(cls, select: str | None) -> str | None:
        if select is not None and (measure := select.rpartition(":")[2]) not in MEASURES:
            raise ValueError(
                f"{one_of(measure, MEASURES)}; or, of several targets, the name of one before it, "
                "as os:c_index; or null"
            )
        return select
