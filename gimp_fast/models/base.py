"""What all models share: sizes, settings, and how they are called."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from gimp_fast.models.inputs import PatientInputs, Presence
from gimp_fast.nn.group_msa import check_gene_sets
from gimp_fast.targets import classification

Modalities = Literal["both", "slide", "rna"]


class ModelSettings(BaseModel):
    """Architecture: what a user chooses."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Sizes(BaseModel):
    """Architecture: what the cohort gives.

    Attributes:
        num_classes: number of classes.
        feature_dim: C, width of the patch embeddings.
        num_genes: G.
        gene_sets: columns of the genes of each group, for models that read genes in groups; None
            leaves the cut to the model.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_classes: int = Field(ge=2)
    feature_dim: int = Field(1024, ge=1)
    num_genes: int = Field(60_480, ge=0)
    gene_sets: tuple[tuple[int, ...], ...] | None = None

    @model_validator(mode="after")
    def _gene_sets_fit(self) -> Sizes:
        if self.gene_sets is not None:
            check_gene_sets(self.gene_sets, self.num_genes)
        return self


@dataclass(frozen=True, eq=False)
class Representation:
    """What a model classifies, and what it saw of each patient.

    Attributes:
        vectors: (B, ·), all that :meth:`PatientModel.classify` needs.
        slide, rna: who had which modality.
    """

    vectors: Tensor
    slide: Presence
    rna: Presence

    @classmethod
    def of(cls, vectors: Tensor, inputs: PatientInputs) -> Representation:
        return cls(vectors, inputs.slide, inputs.rna)


@dataclass(frozen=True, eq=False)
class Outcome:
    """Of one supervised step.

    Attributes:
        logits: (B, classes).
        loss: (B,) of each patient, to be averaged.
    """

    logits: Tensor
    loss: Tensor


class PatientModel(nn.Module, ABC):
    """Slides and RNA of patients -> classes.

    All models take the same :class:`PatientInputs`; one that has no use for a modality leaves it
    unread.

    Attributes:
        settings_class: what a user chooses.
        config_class: that, and what the cohort gives.
        reads: modalities that it can be built for; the first is the default.
        pretraining: ``"gimp"`` (masked patches, triplets), ``"alignment"`` (slides with genes) or
            None.
        supervised_genes: whether its gene encoder is trained before, by labels, and frozen.
    """

    settings_class: ClassVar[type[ModelSettings]]
    config_class: ClassVar[type[Sizes]]
    reads: ClassVar[tuple[Modalities, ...]]
    pretraining: ClassVar[Literal["gimp", "alignment"] | None] = None
    supervised_genes: ClassVar[bool] = False

    def __init__(self, config: Sizes):
        super().__init__()
        self.config = config

    @abstractmethod
    def vectors(self, inputs: PatientInputs) -> Tensor:
        """(B, ·), all that :meth:`classify` needs of each patient."""

    @abstractmethod
    def classify(self, representation: Representation) -> Tensor:
        """Logits (B, classes) of what :meth:`represent` gave."""

    def represent(self, inputs: PatientInputs) -> Representation:
        """The vectors of patients, and which modalities they come from."""
        return Representation.of(self.vectors(inputs), inputs)

    def forward(self, *inputs, **fields) -> Tensor:
        """Logits (B, classes).

        Args:
            inputs: :class:`PatientInputs`, or what :meth:`PatientInputs.of` makes them from, e.g.
                ``model(patches=patches, genes=genes)``.
        """
        if inputs and isinstance(inputs[0], PatientInputs):
            return self.classify(self.represent(inputs[0]))
        made = PatientInputs.of(*inputs, **fields)
        if getattr(self.config, "modalities", self.reads[0]) == "both":
            for name, absent, flags in (
                ("patches", made.patches is None, "has_slide"),
                ("genes", made.genes is None, "has_genes"),
            ):
                if absent and fields.get(flags) is None:
                    raise ValueError(
                        f"found no {name}, and no patient marked as lacking them by {flags}; the "
                        "model reads slides and RNA"
                    )
        return self.classify(self.represent(made))

    def predict(self, *inputs, **fields) -> Tensor:
        """Class probabilities (B, classes); arguments as :meth:`forward`."""
        return self.forward(*inputs, **fields).float().softmax(-1)

    def loss(self, labels: Tensor, inputs: PatientInputs) -> Outcome:
        """Cross-entropy of each patient, and what a model adds to it; labels are (B,) classes."""
        logits = self.forward(inputs).float()
        return Outcome(logits, classification.loss(logits, labels))

    def gene_classifier(self) -> nn.Module:
        """(B, G) -> logits: what the genes stage trains of a model with ``supervised_genes``."""
        raise NotImplementedError

    def fit_to_validation(self, representation: Representation, labels: Tensor) -> bool:
        """Choose what validation patients decide, if anything; True if predictions may change."""
        return False

    def finetuned_modules(self, freeze_genes: bool) -> Iterator[nn.Module]:
        """Modules that fine-tuning trains.

        Args:
            freeze_genes: leave out a gene encoder that was trained before.
        """
        yield self

    def loose_parameters(self) -> list[nn.Parameter]:
        """Parameters that fine-tuning trains beside those of ``finetuned_modules``."""
        return []


def absent_token(dim: int) -> nn.Parameter:
    """A learned row in place of a modality that a patient lacks."""
    return nn.Parameter(torch.randn(dim) * 0.02)
