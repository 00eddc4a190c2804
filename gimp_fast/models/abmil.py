"""ABMIL: attention-based deep multiple-instance learning, plain or gated."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field
from torch import Tensor

from gimp_fast.models.base import ModelSettings, PatientModel, Sizes, dense
from gimp_fast.models.inputs import PatientInputs
from gimp_fast.nn.linear import Linear
from gimp_fast.nn.pooling import AttentionPooling


class ABMILSettings(ModelSettings):
    """Architecture of ABMIL.

    Attributes:
        dim: width of the embedded patches.
        attention_dim: width of V and U.
        gated: gated attention (eq. 9), else plain (eq. 8).
        dropout: probability on the embedded patches.
    """

    dim: int = Field(512, ge=1)
    attention_dim: int = Field(128, ge=1)
    gated: bool = True
    dropout: float = Field(0.0, ge=0, lt=1)


class ABMIL(PatientModel):
    """Slides -> class by attention pooling (Ilse et al., ICML 2018, https://arxiv.org/abs/1802.04712).

    h = ReLU(W x),  z = Σ softmax(s(h))_i h_i,  P̂ = softmax(W_c z)
    """

    title = "ABMIL"
    settings_class, reads = ABMILSettings, ("slide",)

    def __init__(self, config: Sizes, backend: str = "auto"):
        super().__init__(config)
        self.embed = dense(config.feature_dim, config.dim, config.dropout)
        self.pool = AttentionPooling(config.dim, config.attention_dim, gated=config.gated)
        self.head = Linear(config.dim, config.num_outputs)

    def widths(self) -> Sequence[int]:
        return [self.config.dim, self.config.attention_dim]

    def vectors(self, inputs: PatientInputs) -> Tensor:
        """(B, d): the attention-weighted mean of each bag."""
        pooled, _ = self.pool(self.embed(inputs.patches), inputs.bags)
        return pooled[:, 0]

    def attention(self, inputs: PatientInputs) -> Tensor:
        """(T, 1), the attention of each patch; it sums to one over a bag."""
        return self.pool(self.embed(inputs.patches), inputs.bags)[1]
