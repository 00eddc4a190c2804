"""The common part of models that are pre-trained by alignment of slides with genes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import ClassVar

from pydantic import Field, field_validator
from torch import Tensor, nn

from gimp_fast.losses import info_nce_loss, unit_rows
from gimp_fast.models.gimp import GiMP, GiMPConfig, GiMPSettings
from gimp_fast.nn.linear import Linear

Gather = Callable[[Tensor], Tensor]


class AlignedSettings(GiMPSettings):
    """Architecture of GiMP's encoders and head, and settings of the alignment.

    Attributes:
        projection_dim: width of the space in which slides and genes are compared.
        temperature: τ of the contrast between patients.
    """

    projection_dim: int = Field(128, ge=1)
    temperature: float = Field(0.07, gt=0)

    @field_validator("gene_encoder")
    @classmethod
    def _has_fragments(cls, gene_encoder: str) -> str:
        if gene_encoder != "group_msa":
            raise ValueError("group_msa, because slides are aligned with its gene fragments")
        return gene_encoder


class AlignedModel(GiMP):
    """GiMP's encoders and head, pre-trained by aligning slides with genes, without labels.

    The methods were made for images and reports. Here a window of patches replaces the image, the
    expression profile the report, its fragments the words, and CLS_img and CLS_ge the global
    representations. Encoders, head and fine-tuning are those of GiMP, so that only pre-training
    differs; projections are used in pre-training only. The gene encoder is trained with the rest,
    not by labels before.

    Attributes:
        views: windows of each patient in a step.
        words: (W,) slots of the gene encoder that hold fragments, not padding.
        word_genes: (W, fragment size) bool, True = a gene.

    Raises:
        ValueError: the configuration does not have both modalities.
    """

    reads = ("both",)
    pretraining, supervised_genes = "alignment", False
    views: ClassVar[int] = 1

    def __init__(self, config: GiMPConfig, backend: str = "auto"):
        if config.modalities != "both":
            raise ValueError(
                f"modalities is {config.modalities!r}; expected 'both', because slides are aligned "
                "with genes"
            )
        super().__init__(config, backend)
        self.decoder = None  # these models have no masked patches
        self.project_slide = projection(config.dim, config.projection_dim)
        self.project_genes = projection(config.dim, config.projection_dim)
        genes = self.gene_encoder.gene_mask
        words = genes.any(1).nonzero()[:, 0]
        self.register_buffer("words", words, persistent=False)
        self.register_buffer("word_genes", genes[words], persistent=False)

    @abstractmethod
    def alignment_terms(self, windows: Tensor, genes: Tensor, gather: Gather) -> dict[str, Tensor]:
        """Weighted terms of one pre-training step, whose sum is minimised.

        Args:
            windows: (b, views, L, C) contiguous patch windows of the patients of this process, who
                all have both modalities.
            genes: (b, G) their scaled expression.
            gather: collects rows (b, ...) of the patients of all processes.

        Returns:
            Terms by name. A scalar is computed from the patients of all processes; (b,) has a value
            for each patient of this process, to be averaged. Nothing after a ``gather`` may have
            parameters, because each process would add their whole gradient.
        """

    def aligned_modules(self) -> Iterator[nn.Module]:
        """Modules that pre-training trains."""
        yield from (self.aggregator, self.gene_encoder, self.project_slide, self.project_genes)

    def encode_windows(self, windows: Tensor) -> Tensor:
        """CLS_img of each window: (b, V, L, C) -> (b, V, d)."""
        cls, _ = self.aggregator(windows.flatten(0, 1), keep="none")
        return cls.unflatten(0, windows.shape[:2])

    def contrast(
        self, cls_img: Tensor, cls_ge: Tensor, gather: Gather, first_weight: float = 0.5
    ) -> Tensor:
        """InfoNCE of the projected pairs among the patients of all processes, a scalar.

        Args:
            cls_img, cls_ge: (b, d).
            gather: as in :meth:`alignment_terms`.
            first_weight: weight of the direction from slide to genes.
        """
        slide = gather(unit_rows(self.project_slide(cls_img)))
        rna = gather(unit_rows(self.project_genes(cls_ge)))
        return info_nce_loss(slide, rna, self.config.temperature, first_weight)


def projection(dim: int, out: int) -> nn.Sequential:
    """W₂ GELU(W₁ LN(x)). Public codes normalise over the batch, but ours has few patients."""
    return nn.Sequential(nn.LayerNorm(dim), Linear(dim, dim), nn.GELU(), Linear(dim, out))
