"""SNN: a self-normalising network on the expression profile."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field
from torch import Tensor

from gimp_fast.models.base import ModelSettings, PatientModel, Sizes
from gimp_fast.models.inputs import PatientInputs
from gimp_fast.nn.linear import Linear
from gimp_fast.nn.snn import SNNEncoder


class SNNSettings(ModelSettings):
    """Architecture of the SNN.

    Attributes:
        hidden: width of the blocks.
        num_blocks: number of blocks.
        dropout: probability of AlphaDropout after each block.
    """

    hidden: int = Field(256, ge=1)
    num_blocks: int = Field(4, ge=1)
    dropout: float = Field(0.25, ge=0, lt=1)


class SNN(PatientModel):
    """RNA -> class (Klambauer et al., NeurIPS 2017, https://arxiv.org/abs/1706.02515).

    hˡ⁺¹ = AlphaDropout(ELU(Wˡ hˡ + bˡ)),  h⁰ = X_G,  P̂ = softmax(W h + b)

    It cannot predict for a patient without RNA.
    """

    title = "SNN"
    settings_class, reads = SNNSettings, ("rna",)

    def __init__(self, config: Sizes, backend: str = "auto"):
        super().__init__(config)
        widths = [config.hidden] * config.num_blocks
        self.gene_encoder = SNNEncoder(config.num_genes, widths, config.dropout)
        self.head = Linear(config.hidden, config.num_outputs)

    def check(self, inputs: PatientInputs) -> None:
        super().check(inputs)
        if inputs.genes is None or not inputs.rna.everybody:
            lacking = len(inputs) - inputs.rna.count
            raise ValueError(
                f"snn reads only RNA, and {lacking} of {len(inputs)} patients lack it; leave these "
                "patients out"
            )

    def widths(self) -> Sequence[int]:
        return []  # the encoder takes any

    def vectors(self, inputs: PatientInputs) -> Tensor:
        """(B, hidden), the output of the last block."""
        return self.gene_encoder(inputs.genes)
