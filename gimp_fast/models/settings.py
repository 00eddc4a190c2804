"""The settings of all models: what a user chooses, and what the cohort decides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal

from pydantic import Field, model_serializer, model_validator

from gimp_fast.nn.group_msa import check_gene_sets
from gimp_fast.validation import Settings

Modalities = Literal["both", "slide", "rna"]
"""What a model reads: slides and RNA, slides alone, or RNA alone."""


class ModelSettings(Settings):
    """Architecture, as far as a user chooses it.

    Attributes:
        covariate_hidden: width of a hidden layer (ReLU) between clinical covariates and what they
            add to the outputs; 0 for a linear map.
        covariate_dropout: probability after that layer.
        later: settings that came later -> their default, with which they are not written down.
    """

    later: ClassVar[dict[str, Any]] = {}

    covariate_hidden: int = Field(0, ge=0)
    covariate_dropout: float = Field(0.25, ge=0, lt=1)

    @model_serializer(mode="wrap")
    def _as_before(self, serialize: Callable[[ModelSettings], dict[str, Any]]) -> dict[str, Any]:
        """Without the fields of a hidden layer that the model lacks, and of later settings.

        So configurations, and all that is made of them, are as before there were such choices.
        """
        values = serialize(self)
        for name, default in self.later.items():
            if getattr(self, name) == default:
                values.pop(name, None)
        if not self.covariate_hidden:
            for name in ("covariate_hidden", "covariate_dropout"):
                values.pop(name, None)
        return values


class Sizes(Settings):
    """Architecture, as far as the cohort decides it.

    Attributes:
        num_outputs: K, numbers that the target takes: logits of classes, hazards, a value.
        feature_dim: C, width of the patch embeddings.
        num_genes: G.
        num_covariates: D, columns of encoded clinical covariates; 0 for a model without any.
        gene_sets: columns of the genes of each group, for models that read genes in groups; None
            lets the model form the groups.
        linear: whether risks are added that are linear in each input, for a target of survival.
    """

    num_outputs: int = Field(ge=1)
    feature_dim: int = Field(1024, ge=1)
    num_genes: int = Field(60_480, ge=0)
    num_covariates: int = Field(0, ge=0)
    gene_sets: tuple[tuple[int, ...], ...] | None = None
    linear: bool = False

    @model_validator(mode="before")
    @classmethod
    def _of_classes(cls, values: Any) -> Any:
        """Earlier versions, which knew classes only, called ``num_outputs`` ``num_classes``."""
        if isinstance(values, dict) and "num_classes" in values and "num_outputs" not in values:
            values = {**values, "num_outputs": values["num_classes"]}
            del values["num_classes"]
        return values

    @property
    def num_classes(self) -> int:
        """``num_outputs``, for models that were written for an earlier version."""
        return self.num_outputs

    @model_validator(mode="after")
    def _gene_sets_fit(self) -> Sizes:
        if self.gene_sets is not None:
            check_gene_sets(self.gene_sets, self.num_genes)
        return self
