"""Weights that make the models of other packages comparable with ours."""

from __future__ import annotations

from torch import Tensor, nn


def equal_heads(to_qkv: Tensor, heads: int) -> Tensor:
    """The weights with every head like the first.

    nystrom-attention takes maxima over all heads; with equal heads, these are the maxima of each.
    """
    per_head = to_qkv.unflatten(0, (3, heads, -1))  # (3, H, D, C)
    return per_head[:, :1].expand_as(per_head).flatten(0, 2).clone()


def summed_over_heads(to_qkv: Tensor, heads: int) -> Tensor:
    """The gradient of the weights, summed over equal heads.

    The shared maximum of nystrom-attention mixes the gradients of its heads; their sum is the same.
    """
    return to_qkv.unflatten(0, (3, heads, -1)).sum(1)


def one_logit_of(head: nn.Linear, peer: nn.Linear) -> None:
    """Make the one logit of a torchmil model the difference of the two logits of ours."""
    peer.weight.data = head.weight[1:] - head.weight[:1]
    peer.bias.data = head.bias[1:] - head.bias[:1]
