"""What all models share: sizes, settings, and how they are called."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from gimp_fast.nn.group_msa import check_gene_sets

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


@dataclass(frozen=True)
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

    Inputs are the same for all models, and one that has no use for a modality leaves it unread:

    - ``patches``: (T, C) packed patches of the patients that have any.
    - ``cu_seqlens``: (bags + 1,) their bounds.
    - ``genes``: (B, G) scaled expression; rows of patients without RNA are not read.
    - ``has_slide``: (B,) bool, True = present; all, if not given. Its True rows are the bags.
    - ``has_genes``: (B,) bool, True = present; all, if not given.

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
    def represent(
        self,
        patches: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        genes: Tensor | None = None,
        *,
        has_slide: Tensor | None = None,
        has_genes: Tensor | None = None,
    ) -> Tensor:
        """(B, ·), all that :meth:`classify` needs of each patient."""

    @abstractmethod
    def classify(self, representation: Tensor) -> Tensor:
        """Logits (B, classes) of what :meth:`represent` gave."""

    def forward(self, *args, **kwargs) -> Tensor:
        """Logits (B, classes); arguments as :meth:`represent`."""
        return self.classify(self.represent(*args, **kwargs))

    def predict(self, *args, **kwargs) -> Tensor:
        """Class probabilities (B, classes); arguments as :meth:`represent`."""
        return self.forward(*args, **kwargs).float().softmax(-1)

    def loss(self, labels: Tensor, **inputs) -> Outcome:
        """Cross-entropy of each patient, and what a model adds to it.

        Args:
            labels: (B,) classes.
            inputs: as :meth:`represent`.
        """
        logits = self.forward(**inputs).float()
        return Outcome(logits, F.cross_entropy(logits, labels, reduction="none"))

    def finetuned_modules(self, freeze_genes: bool) -> Iterator[nn.Module]:
        """Modules that fine-tuning trains.

        Args:
            freeze_genes: leave out a gene encoder that was trained before.
        """
        yield self

    def loose_parameters(self) -> list[nn.Parameter]:
        """Parameters that fine-tuning trains beside those of ``finetuned_modules``."""
        return []


def fill_absent(rows: Tensor | None, present: Tensor | None, token: Tensor) -> Tensor:
    """(present rows, d) -> (B, d), with the token in the rows of patients without the modality.

    Args:
        rows: of the patients who have the modality; None if nobody has.
        present: (B,) bool, True = present; None if everybody has.
        token: (d,) learned, for the others.

    Raises:
        ValueError: neither rows nor who lacks them.
    """
    if present is None:
        if rows is None:
            raise ValueError("no bag and no expression profile was given, and none marked absent")
        return rows
    if rows is None:
        return token.expand(len(present), -1)
    filled = token.to(rows.dtype).expand(len(present), -1).clone()
    filled[present] = rows
    return filled


def present_rows(genes: Tensor | None, has_genes: Tensor | None) -> Tensor | None:
    """Rows of the patients who have RNA, (present, G); None if nobody has."""
    if genes is None:
        return None
    rows = genes if has_genes is None else genes[has_genes]
    return rows if len(rows) else None


def has_bags(patches: Tensor | None, cu_seqlens: Tensor | None) -> bool:
    """Whether any patient has a slide."""
    return patches is not None and len(cu_seqlens) > 1


def absent_token(dim: int) -> nn.Parameter:
    """A learned row in place of a modality that a patient lacks."""
    return nn.Parameter(torch.randn(dim) * 0.02)
