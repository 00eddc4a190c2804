"""CLAM: gated attention pooling whose extremes are sorted into in and out of the class."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from gimp_fast.models.base import ModelSettings, Outcome, PatientModel, Representation, Sizes
from gimp_fast.models.inputs import PatientInputs
from gimp_fast.nn.pooling import AttentionPooling
from gimp_fast.ops.packing import Bags
from gimp_fast.targets import classification


class CLAMSettings(ModelSettings):
    """Architecture of CLAM, and the loss of its instances.

    Attributes:
        dim: width of the embedded patches.
        attention_dim: width of V and U.
        dropout: probability on the embedded patches, and after tanh and gate of the attention.
        instances: k, patches of most and of least attention that the instance loss takes; all of a
            bag that has fewer.
        bag_weight: of the bag's loss; what is missing to one is that of the instances.
        subtyping: classes exclude each other, so that what is evidence for one is none for others.
    """

    dim: int = Field(512, ge=1)
    attention_dim: int = Field(256, ge=1)
    dropout: float = Field(0.25, ge=0, lt=1)
    instances: int = Field(8, ge=1)
    bag_weight: float = Field(0.7, ge=0, le=1)
    subtyping: bool = True


class CLAMConfig(CLAMSettings, Sizes):
    """Architecture and the sizes that the cohort gives."""


class CLAMSB(PatientModel):
    """Slides -> class, one attention branch (Lu et al., 2021, https://arxiv.org/abs/2004.09666).

    With h = ReLU(W₁ x), gated attention a = softmax(w · (tanh(V h) ⊙ σ(U h))) and z = Σ a_i h_i:

        P̂ = softmax(W z + b),   L = w CE(bag) + (1 − w) L_instances

    L_instances asks a two-way classifier of the label's class to find the k patches of most
    attention in the class, and the k of least attention out of it. With subtyping, those of every
    other class have to find the former out of theirs, and the loss is the mean of all classes.
    It needs labels; nothing of it enters a prediction.
    """

    settings_class, config_class, reads = CLAMSettings, CLAMConfig, ("slide",)

    def __init__(self, config: CLAMConfig, backend: str = "auto"):
        super().__init__(config)
        self.embed = nn.Sequential(
            nn.Linear(config.feature_dim, config.dim), nn.ReLU(), nn.Dropout(config.dropout)
        )
        self.pool = AttentionPooling(
            config.dim, config.attention_dim, self._branches(), dropout=config.dropout
        )
        self.head = nn.Linear(config.dim, config.num_classes)
        self.instances = nn.Linear(config.dim, 2 * config.num_classes)  # out, in of each class

    def _branches(self) -> int:
        return 1

    def _pool(self, inputs: PatientInputs) -> tuple[Tensor, Tensor, Tensor]:
        """Embedded patches (T, d), attention (T, branches), pooled (B, branches · d)."""
        rows = self.embed(inputs.patches)
        pooled, attention = self.pool(rows, inputs.bags)
        return rows, attention, pooled.flatten(1)

    def vectors(self, inputs: PatientInputs) -> Tensor:
        """(B, branches · d): the attention-weighted mean of each bag, of each branch."""
        return self._pool(inputs)[2]

    def classify(self, representation: Representation) -> Tensor:
        return self.head(representation.vectors)

    def loss(self, labels: Tensor, inputs: PatientInputs) -> Outcome:
        """Cross-entropy of the bag and of its extreme instances, weighted."""
        rows, attention, pooled = self._pool(inputs)
        logits = self.classify(Representation.of(pooled, inputs)).float()
        of_bag = classification.loss(logits, labels)
        of_instances = self._instance_losses(rows, attention, inputs.bags, labels.tolist())
        weight = self.config.bag_weight
        return Outcome(logits, weight * of_bag + (1 - weight) * of_instances)

    def _instance_losses(
        self, rows: Tensor, attention: Tensor, bags: Bags, labels: list[int]
    ) -> Tensor:
        """(B,) of each bag, all in one pass: many small ones would cost more than the bags."""
        picks = [
            self._picks(attention[start:stop].detach(), start, label)
            for (start, stop), label in zip(bags.spans, labels, strict=True)
        ]
        chosen, classes, targets, weights = map(torch.cat, zip(*picks, strict=True))  # (P,) each
        out_in = self.instances(rows[chosen]).unflatten(1, (-1, 2))  # (P, K, 2)
        out_in = out_in[torch.arange(len(chosen), device=rows.device), classes].float()
        losses = weights * classification.loss(out_in, targets)
        parts = losses.split([len(pick[0]) for pick in picks])
        return torch.stack([part.sum() for part in parts])

    def _picks(self, attention: Tensor, start: int, label: int) -> tuple[Tensor, ...]:
        """What the instance loss asks about one bag.

        Args:
            attention: (N, branches).
            start: row of the bag's first patch.
            label: its class.

        Returns:
            (K · k + k,) each: row of a patch, class whose classifier is asked, whether the patch is
            in that class (1) or out of it (0), and weight of the answer.
        """
        k, num_classes = min(self.config.instances, len(attention)), self.config.num_classes
        # One branch shows the evidence of every class, several show each its own.
        attention = attention.expand(-1, num_classes)  # (N, K)
        most = attention.topk(k, dim=0).indices.T.flatten()  # class after class
        least = attention[:, label].topk(k, largest=False).indices
        classes = torch.arange(num_classes + 1, device=attention.device).repeat_interleave(k)
        targets = (classes == label).long()
        classes[-k:] = label
        of_others = 1.0 if self.config.subtyping else 0.0
        weights = torch.where(classes == label, 0.5, of_others) / k
        if self.config.subtyping:
            weights = weights / num_classes
        return torch.cat([most, least]) + start, classes, targets, weights

    def attention(self, inputs: PatientInputs) -> Tensor:
        """(T, branches) of each patch; sums to one over a bag."""
        return self._pool(inputs)[1]


class CLAMMB(CLAMSB):
    """Slides -> class, an attention branch a class (https://arxiv.org/abs/2004.09666).

    As :class:`CLAMSB`, but each class k has scores w_k of its own on the shared tanh and gate, and
    with them a_k, z_k = Σ a_ki h_i, its logit w′_k · z_k + b_k, and its most and least attended
    patches.
    """

    def _branches(self) -> int:
        return self.config.num_classes

    def classify(self, representation: Representation) -> Tensor:
        pooled = representation.vectors.unflatten(1, (self._branches(), -1))  # (B, K, d)
        return (pooled * self.head.weight).sum(-1) + self.head.bias
