"""CLAM: gated attention pooling, whose most and least attended patches are classified too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from gimp_fast.models.base import ModelSettings, Outcome, PatientModel, Representation, Sizes, dense
from gimp_fast.models.inputs import PatientInputs
from gimp_fast.nn.linear import Linear
from gimp_fast.nn.pooling import AttentionPooling
from gimp_fast.ops.packing import Bags
from gimp_fast.targets import classification


class CLAMSettings(ModelSettings):
    """Architecture of CLAM, and its instance loss.

    Attributes:
        dim: width of the embedded patches.
        attention_dim: width of V and U.
        dropout: probability on the embedded patches, and after tanh and gate of the attention.
        instances: k, number of most and of least attended patches in the instance loss; a bag of
            fewer uses all.
        bag_weight: w, weight of the loss of the bag; the instance loss has 1 − w.
        subtyping: classes exclude each other, so evidence for one is evidence against the others.
    """

    dim: int = Field(512, ge=1)
    attention_dim: int = Field(256, ge=1)
    dropout: float = Field(0.25, ge=0, lt=1)
    instances: int = Field(8, ge=1)
    bag_weight: float = Field(0.7, ge=0, le=1)
    subtyping: bool = True


class CLAMSB(PatientModel):
    """Slides -> class, one attention branch (Lu et al., 2021, https://arxiv.org/abs/2004.09666).

    With h = ReLU(W₁ x), gated attention a = softmax(w · (tanh(V h) ⊙ σ(U h))) and z = Σ a_i h_i:

        P̂ = softmax(W z + b),   L = w CE(bag) + (1 − w) L_instances

    Each class has a two-way classifier of patches, in or out of the class. L_instances wants that
    of the label's class to put the k most attended patches in, and the k least attended out. With
    subtyping, those of the other classes must put their k most attended patches out, and the loss
    is the mean over classes. It needs labels and is not part of a prediction.
    """

    title = "CLAM-SB"
    settings_class, reads = CLAMSettings, ("slide",)
    branch_per_class: ClassVar[bool] = False

    def __init__(self, config: Sizes, backend: str = "auto"):
        super().__init__(config)
        self.branches = config.num_classes if self.branch_per_class else 1
        self.embed = dense(config.feature_dim, config.dim, config.dropout)
        self.pool = AttentionPooling(
            config.dim, config.attention_dim, self.branches, dropout=config.dropout
        )
        self.head = Linear(config.dim, config.num_classes)
        self.instances = Linear(config.dim, 2 * config.num_classes)  # out, in of each class

    def _pool(self, inputs: PatientInputs) -> tuple[Tensor, Tensor, Tensor]:
        """Embedded patches (T, d), attention (T, branches), pooled (B, branches · d)."""
        rows = self.embed(inputs.patches)
        pooled, attention = self.pool(rows, inputs.bags)
        return rows, attention, pooled.flatten(1)

    def widths(self) -> Sequence[int]:
        return [self.config.dim, self.config.attention_dim]

    def vectors(self, inputs: PatientInputs) -> Tensor:
        """(B, branches · d): the attention-weighted means of each bag, one per branch."""
        return self._pool(inputs)[2]

    def losses(self, labels: Tensor, inputs: PatientInputs) -> Outcome:
        """Logits, and weighted cross-entropy of the bags and of their extreme instances."""
        rows, attention, pooled = self._pool(inputs)
        logits = self.logits(Representation.of(pooled, inputs)).float()
        bag_loss = self.target.loss(logits, labels)
        instance_loss = self._instance_losses(rows, attention, inputs.bags, labels.tolist())
        weight = self.config.bag_weight
        return Outcome(logits, weight * bag_loss + (1 - weight) * instance_loss)

    def _instance_losses(
        self, rows: Tensor, attention: Tensor, bags: Bags, labels: list[int]
    ) -> Tensor:
        """(B,), the loss of each bag. One pass for all: many small passes would be slow."""
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
        """The patches of one bag, from row `start` on, that enter the instance loss.

        (K · k + k,) each: row of a patch, the class whose classifier sees it, the target (1 in the
        class, 0 out), and the weight of the loss. Attention is (N, branches).
        """
        k, num_classes = min(self.config.instances, len(attention)), self.config.num_classes
        # With one branch, all classes share its attention; else each class has its own.
        attention = attention.expand(-1, num_classes)  # (N, K)
        most = attention.topk(k, dim=0).indices.T.flatten()  # class after class
        least = attention[:, label].topk(k, largest=False).indices
        classes = torch.arange(num_classes + 1, device=attention.device).repeat_interleave(k)
        targets = (classes == label).long()
        classes[-k:] = label
        other_weight = 1.0 if self.config.subtyping else 0.0
        weights = torch.where(classes == label, 0.5, other_weight) / k
        if self.config.subtyping:
            weights = weights / num_classes
        return torch.cat([most, least]) + start, classes, targets, weights

    def attention(self, inputs: PatientInputs) -> Tensor:
        """(T, branches), the attention of each patch; it sums to one over a bag."""
        return self._pool(inputs)[1]


class CLAMMB(CLAMSB):
    """Slides -> class, one attention branch per class (https://arxiv.org/abs/2004.09666).

    It differs from :class:`CLAMSB` in that each class k has its own scores w_k on the shared tanh
    and gate. So it has its own a_k, z_k = Σ a_ki h_i, logit w′_k · z_k + b_k, and most and least
    attended patches.
    """

    title, branch_per_class = "CLAM-MB", True

    def logits(self, representation: Representation) -> Tensor:
        pooled = representation.vectors.unflatten(1, (self.branches, -1))  # (B, K, d)
        return (pooled * self.head.weight).sum(-1) + self.head.bias
