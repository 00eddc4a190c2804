"""What a user chooses of each training stage."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StageSettings(Strict):
    """What every stage has.

    Attributes:
        epochs: passes over the training patients; 0 skips a stage before the last.
        batch_size: patients a step.
        lr: peak learning rate of AdamW; decays to zero along a cosine.
        weight_decay: of AdamW, on matrices only.
        warmup_epochs: linear warm-up before the cosine, may be a fraction.
        clip_norm: largest global gradient norm; null does not clip.
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
    """Masked patch modelling and gene-induced triplets; the gene encoder is frozen; keeps the last.

    Of models that align slides with genes instead (MGCA, BioViL, REFERS), ``window`` alone matters.

    Attributes:
        window: L, patches in a contiguous window; shorter bags are repeated.
        mask_ratio: part of the window's distinct patches that is masked.
        reconstruction: ``"sum"`` is eq. 3, ``"mean"`` divides it by the counted elements.
        reconstruction_weight, triplet_weight: factors of the two losses; the paper adds them.
        triplets: what they are mined of: ``"patient"`` is CLS_pat, slide and genes; ``"slide"`` is
            CLS_img, which no gene induces (an ablation).
        margin: δ of eq. 4.
        mining: triplets of a batch: ``"hard"`` or ``"all"``.
        normalize: scale CLS_pat to unit length before the distances.
    """

    epochs: int = Field(100, ge=0)
    batch_size: int = Field(16, ge=1)
    window: int = Field(6000, ge=1)
    mask_ratio: float = Field(0.5, gt=0, lt=1)
    reconstruction: Literal["mean", "sum"] = "mean"
    reconstruction_weight: float = Field(1.0, ge=0)
    triplet_weight: float = Field(1.0, ge=0)
    triplets: Literal["patient", "slide"] = "patient"
    margin: float = Field(0.8, ge=0)
    mining: Literal["hard", "all"] = "hard"
    normalize: bool = False


class FinetuneSettings(StageSettings):
    """Classification of whole slides and RNA with the MLP head.

    Attributes:
        freeze_genes: keep the gene encoder as the genes stage left it; models that have no such
            stage always train it.
        modality_dropout: probability to hide one of a training patient's two modalities, so that
            the model learns to do without it.
        noise: SD of Gaussian noise on the scaled expression of training patients, for models whose
            gene encoder is trained here; a frozen one has had that of the genes stage.
        select: what chooses the best validation epoch; ties go to the lower validation loss.
    """

    epochs: int = Field(70, ge=1)
    batch_size: int = Field(16, ge=1)
    freeze_genes: bool = True
    modality_dropout: float = Field(0.0, ge=0, lt=1)
    noise: float = Field(0.0, ge=0)
    select: Literal["accuracy", "auc", "loss"] = "accuracy"
