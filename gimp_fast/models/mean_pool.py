"""The mean of the bag and a linear classifier: the least that a slide model has to beat."""

from __future__ import annotations

from torch import Tensor, nn

from gimp_fast.models.base import ModelSettings, PatientModel, Representation, Sizes
from gimp_fast.models.inputs import PatientInputs
from gimp_fast.nn.pooling import mean_of_bags


class MeanPoolSettings(ModelSettings):
    """There is nothing to choose."""


class MeanPoolConfig(MeanPoolSettings, Sizes):
    """The sizes that the cohort gives."""


class MeanPool(PatientModel):
    """P̂ = softmax(W x̄ + b), x̄ the mean of the patient's patches."""

    settings_class, config_class, reads = MeanPoolSettings, MeanPoolConfig, ("slide",)

    def __init__(self, config: MeanPoolConfig, backend: str = "auto"):
        super().__init__(config)
        self.head = nn.Linear(config.feature_dim, config.num_classes)

    def vectors(self, inputs: PatientInputs) -> Tensor:
        """(B, C): the mean of each bag."""
        return mean_of_bags(inputs.patches, inputs.bags)

    def classify(self, representation: Representation) -> Tensor:
        return self.head(representation.vectors)
