"""Mean pooling with a linear classifier, the simplest baseline of slide models."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from gimp_fast.models.base import ModelSettings, PatientModel, Sizes
from gimp_fast.models.inputs import PatientInputs
from gimp_fast.nn.linear import Linear
from gimp_fast.nn.pooling import mean_of_bags


class MeanPool(PatientModel):
    """P̂ = softmax(W x̄ + b), x̄ the mean of the patient's patches."""

    title = "Mean pooling"
    settings_class, reads = ModelSettings, ("slide",)

    def __init__(self, config: Sizes, backend: str = "auto"):
        super().__init__(config)
        self.head = Linear(config.feature_dim, config.num_outputs)

    def widths(self) -> Sequence[int]:
        return [self.config.feature_dim]

    def vectors(self, inputs: PatientInputs) -> Tensor:
        """(B, C): the mean of each bag."""
        return mean_of_bags(inputs.patches, inputs.bags)
