"""The attention of CLS_ge in the gene encoder: over groups of fragments, and within groups."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from gimp_fast.nn.group_msa import GroupMSA, SelfAttentionBlock


@dataclass(frozen=True)
class GeneAttention:
    """Attention weights of both levels, averaged over the heads; zero for empty slots."""

    groups: Tensor  # (B, Ngr), CLS_ge over the groups
    fragments: Tensor  # (B, Ngr, size), each group token over the fragments of its group

    def rolled_out(self) -> Tensor:
        """Weight of each fragment in CLS_ge through both levels, (B, Ngr, size).

        Attention rollout (Abnar & Zuidema 2020) of two layers, from a fragment to its group token,
        and from there to CLS_ge. The residual connections would multiply all weights by the same
        constant, which is left out. The weights sum to less than one, because tokens also attend to
        themselves and to each other.
        """
        return self.groups[..., None] * self.fragments


@torch.no_grad()
def first_token_attention(block: SelfAttentionBlock, x: Tensor, mask: Tensor | None) -> Tensor:
    """Attention of the first token of each sequence over all tokens.

    Args:
        block: one of the encoder's two blocks.
        x: (B, N, d), the input of the block.
        mask: (B, N) bool, True = may be attended to; None for all.

    Returns:
        (B, N), averaged over the heads; each row sums to one.
    """
    normed = block.norm(x)
    weight = block.to_qkv.weight.unflatten(0, (3, block.heads, -1))  # (3, H, D, d)
    query = torch.einsum("bd,hcd->bhc", normed[:, 0], weight[0])  # (B, H, D)
    keys = torch.einsum("bnd,hcd->bhnc", normed, weight[1])  # (B, H, N, D)
    scores = torch.einsum("bhc,bhnc->bhn", query, keys) * query.shape[-1] ** -0.5
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None], -torch.inf)
    return scores.softmax(-1).mean(1)


class GeneAttentionProbe:
    """Records the inputs of both blocks of an encoder that runs once in the ``with`` block."""

    def __init__(self, encoder: GroupMSA):
        self.encoder = encoder
        self._inputs: dict[nn.Module, tuple[Tensor, Tensor | None]] = {}
        self._hooks: list = []

    def __enter__(self) -> GeneAttentionProbe:
        def keep(block: nn.Module, args: tuple, kwargs: dict) -> None:
            mask = args[1] if len(args) > 1 else kwargs.get("mask")
            self._inputs[block] = (args[0].detach(), mask)

        blocks = (self.encoder.intra, self.encoder.inter)
        self._hooks = [b.register_forward_pre_hook(keep, with_kwargs=True) for b in blocks]
        return self

    def __exit__(self, *exception: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def attention(self) -> GeneAttention | None:
        """Attention of the recorded pass; None if the encoder did not run, as without any RNA."""
        if self.encoder.inter not in self._inputs:
            return None
        tokens, mask = self._inputs[self.encoder.inter]
        groups = first_token_attention(self.encoder.inter, tokens, mask)[:, 1:]
        fragments, mask = self._inputs[self.encoder.intra]
        fragments = first_token_attention(self.encoder.intra, fragments, mask)[:, 1:]
        return GeneAttention(groups, fragments.unflatten(0, (len(groups), -1)))


def fragment_columns(encoder: GroupMSA) -> list[np.ndarray]:
    """Columns of the expression matrix that each slot reads, group after group.

    Returns:
        ``num_groups · group_size`` arrays of int64; that of a padding slot is empty.
    """
    rows = encoder.gene_columns.cpu().numpy()
    return [row[row < encoder.num_genes] for row in rows]
