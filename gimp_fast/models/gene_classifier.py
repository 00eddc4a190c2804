"""A gene encoder with a linear head, which is trained alone before the model that it belongs to."""

from __future__ import annotations

from torch import Tensor, nn

from gimp_fast.nn.linear import Linear


class GeneClassifier(nn.Module):
    """Classifier for training only the gene encoder: softmax(W e + b) (GiMP section 2.3).

    Args:
        encoder: (B, G) -> (B, dim).
        dim: width of the encoder's result.
    """

    def __init__(self, encoder: nn.Module, dim: int, num_outputs: int):
        super().__init__()
        self.encoder = encoder
        self.head = Linear(dim, num_outputs)

    def forward(self, genes: Tensor) -> Tensor:
        """(B, G) -> logits (B, classes)."""
        return self.head(self.encoder(genes))
