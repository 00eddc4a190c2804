"""DSMIL: a classifier of instances, and attention to the critical instance."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor, nn

from gimp_fast.models.base import ModelSettings, Outcome, PatientModel, Representation, Sizes
from gimp_fast.models.inputs import PatientInputs
from gimp_fast.nn.linear import Linear
from gimp_fast.nn.pooling import attention_of_bags, split_bags, weighted_sums
from gimp_fast.ops.packing import Bags


class DSMILSettings(ModelSettings):
    """Architecture of DSMIL.

    Attributes:
        query_dim: width of the queries.
        bag_weight: w, weight of the loss of the bag; that of the critical instances has 1 − w.
    """

    query_dim: int = Field(128, ge=1)
    bag_weight: float = Field(0.5, ge=0, le=1)


class DSMIL(PatientModel):
    """Slides -> class in two streams (Li et al., CVPR 2021, https://arxiv.org/abs/2011.08939).

    For a bag x (N, C) and each class k:

        c = W x + b,  m_k = argmax_i c_ik                  the critical instance
        q = tanh(W₂ ReLU(W₁ x)),  a_k = softmax_i(q_i · q_{m_k} / √128)
        z_k = Σ a_ki x_i,  bag = conv(z)                   across all classes and channels
        L = w CE(bag) + (1 − w) CE(max_i c_i),  P̂ = softmax((bag + max_i c_i) / 2)

    The prediction is the mean of both streams' logits. The public code has a version that averages
    their sigmoids and one that predicts from the bag alone; it trains by binary cross-entropy of
    each class, where we take the softmax. If instances tie, the first is critical.
    """

    title = "DSMIL"
    settings_class, reads = DSMILSettings, ("slide",)

    def __init__(self, config: Sizes, backend: str = "auto"):
        super().__init__(config)
        channels, classes = config.feature_dim, config.num_outputs
        self.instances = Linear(channels, classes)
        self.query = nn.Sequential(
            Linear(channels, config.query_dim),
            nn.ReLU(),
            Linear(config.query_dim, config.query_dim),
            nn.Tanh(),
        )
        # The paper's convolution is as long as its input, so it is a linear map of (K, C).
        self.head = Linear(classes * channels, classes)

    def _streams(self, patches: Tensor, bags: Bags) -> tuple[Tensor, Tensor]:
        """Logits of the critical instances (B, K), and attention (T, K)."""
        scores = self.instances(patches)  # (T, K)
        critical = torch.stack(
            [
                bag.argmax(0) + start
                for bag, (start, _) in zip(split_bags(scores, bags), bags.spans, strict=True)
            ]
        )  # (B, K)
        queries = self.query(patches)  # (T, D)
        similarities = [
            rows @ queries[chosen].T
            for rows, chosen in zip(split_bags(queries, bags), critical, strict=True)
        ]
        scale = queries.shape[1] ** -0.5
        attention = attention_of_bags(torch.cat(similarities) * scale, bags)
        return scores.gather(0, critical), attention

    def widths(self) -> Sequence[int]:
        return [self.config.feature_dim, self.config.query_dim]

    def vectors(self, inputs: PatientInputs) -> Tensor:
        """(B, K + K·C): logits of the critical instances, and a bag embedding per class."""
        largest, attention = self._streams(inputs.patches, inputs.bags)
        embeddings = weighted_sums(attention, inputs.patches, inputs.bags)  # (B, K, C)
        return torch.cat([largest, embeddings.flatten(1)], dim=1)

    def _logits(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, classes) of the critical instances and of the bag."""
        classes = self.config.num_outputs
        return vectors[:, :classes], self.head(vectors[:, classes:])

    def logits(self, representation: Representation) -> Tensor:
        largest, bag = self._logits(representation.vectors)
        return (largest + bag) / 2

    def losses(self, labels: Tensor, inputs: PatientInputs) -> Outcome:
        """Logits, and the weighted cross-entropy of both streams."""
        added = self.added(inputs)
        streams = self._logits(self.vectors(inputs))
        largest, bag = ((logits + added).float() for logits in streams)
        weight = self.config.bag_weight
        bag_loss = self.target.loss(bag, labels)
        instance_loss = self.target.loss(largest, labels)
        return Outcome((largest + bag) / 2, weight * bag_loss + (1 - weight) * instance_loss)

    def attention(self, inputs: PatientInputs) -> Tensor:
        """(T, K), the attention of each patch for each class; it sums to one over a bag."""
        return self._streams(inputs.patches, inputs.bags)[1]
