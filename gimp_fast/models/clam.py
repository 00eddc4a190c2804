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
        self.branches = config.num_outputs if self.branch_per_class else 1
        self.embed = dense(config.feature_dim, config.dim, config.dropout)
        self.pool = AttentionPooling(
            config.dim, config.attention_dim, self.branches, dropout=config.dropout
        )
        self.head = Linear(config.dim, config.num_outputs)
        self.instances = Linear(config.dim, 2 * config.num_outputs)  # out, in of each class

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
        logits = self.logits(Representation.of(pooled, inputs)) + self.added(inputs)
        logits = logits.float()
        bag_loss = self.target.loss(logits, labels)
        if self.target.kind != "class":  # instances of no class cannot be told apart
            return Outcome(logits, bag_loss)
        instance_loss = self._instance_losses(rows, attention.detach(), inputs.bags, labels)
        weight = self.config.bag_weight
        return Outcome(logits, weight * bag_loss + (1 - weight) * instance_loss)

    def _instance_losses(
        self, rows: Tensor, attention: Tensor, bags: Bags, labels: Tensor
    ) -> Tensor:
        """(B,), the loss of each bag. One pass for all: many small passes would be slow.

        Of a bag, the k most attended patches of each class enter, class after class, and then the k
        least attended ones of its label's class. Each is seen by the classifier of its class.
        """
        num_outputs, device = self.config.num_outputs, rows.device
        lengths = torch.tensor(bags.lengths, device=device)[:, None, None]  # (B, 1, 1)
        k = min(self.config.instances, max(bags.lengths))
        most, least = self._extremes(attention, bags, labels, k)
        places = torch.cat([most, least[:, None]], 1)  # (B, K + 1, k)
        of_all = torch.arange(num_outputs, device=device).expand(len(bags), -1)
        classes = torch.cat([of_all, labels[:, None]], 1)[..., None]  # (B, K + 1, 1)
        in_class = classes == labels[:, None, None]
        targets = in_class.long().expand_as(places).clone()
        targets[:, -1] = 0
        other_weight = 1.0 if self.config.subtyping else 0.0
        weights = torch.where(in_class, 0.5, other_weight) / lengths.clamp(max=k)
        if self.config.subtyping:
            weights = weights / num_outputs
        # A bag of fewer patches has no more to choose.
        exists = torch.arange(k, device=device) < lengths  # (B, 1, k)
        starts = bags.cu_seqlens[:-1].long()[:, None, None]
        chosen = torch.where(exists, places, 0) + starts
        out_in = self.instances(rows[chosen.flatten()]).unflatten(1, (-1, 2))  # (P, K, 2)
        of_class = classes.expand_as(places).flatten()
        out_in = out_in[torch.arange(len(of_class), device=device), of_class].float()
        losses = classification.loss(out_in, targets.flatten()).view_as(places)
        return torch.where(exists, weights * losses, 0).sum((1, 2))

    def _extremes(
        self, attention: Tensor, bags: Bags, labels: Tensor, k: int
    ) -> tuple[Tensor, Tensor]:
        """Places of the most attended patches for each class and of the least for the label's.

        In each bag, (B, K, k) and (B, k); those of a bag of fewer patches come first.
        """
        num_bags, longest = len(bags), max(bags.lengths)
        starts = bags.cu_seqlens[:-1].long()
        rows = torch.arange(len(attention), device=attention.device)
        bag_of_row = torch.searchsorted(starts, rows, right=True) - 1
        place = rows - starts[bag_of_row]
        # With one branch, all classes share its attention; else each class has its own.
        attention = attention.expand(-1, self.config.num_outputs)  # (T, K)
        padded = attention.new_full((num_bags, attention.shape[1], longest), -torch.inf)
        padded[bag_of_row, :, place] = attention
        most = padded.topk(k, dim=2).indices
        of_label = padded[torch.arange(num_bags, device=attention.device), labels]  # (B, longest)
        of_label = torch.where(of_label == -torch.inf, torch.inf, of_label)
        return most, of_label.topk(k, largest=False).indices

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
