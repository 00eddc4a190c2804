"""GroupMSA, the gene encoder: attention within groups of gene fragments, then between groups."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SelfAttentionBlock(nn.Module):
    """x ← x + MSA(LN(x)), then x ← x + MLP(LN(x)) where an MLP is asked for (pre-LN Transformer).

    Args:
        dim: d, channels.
        heads: attention heads; must divide ``dim``.
        mlp_ratio: hidden width of the MLP over ``dim``; 0 leaves the MLP out.
        dropout: probability after attention and MLP.
    """

    def __init__(self, dim: int, heads: int, mlp_ratio: float = 0.0, dropout: float = 0.0):
        super().__init__()
        if dim % heads:
            raise ValueError(f"heads ({heads}) must divide dim ({dim})")
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.to_qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.to_out = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)
        self.mlp = None
        if mlp_ratio:
            hidden = round(dim * mlp_ratio)
            self.mlp = nn.Sequential(
                nn.LayerNorm(dim),
                nn.Linear(dim, hidden),
                nn.GELU(),
                nn.Linear(hidden, dim),
                nn.Dropout(dropout),
            )

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, d) -> (B, N, d)."""
        qkv = self.to_qkv(self.norm(x)).unflatten(-1, (3, self.heads, -1))  # (B, N, 3, H, D)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, H, N, D) each
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + self.dropout(self.to_out(attended))
        return x if self.mlp is None else x + self.mlp(x)


class GroupMSA(nn.Module):
    """Group multi-head self-attention over an expression profile (GiMP section 2.1).

    X_G ∈ ℝ^G is cut into N_f fragments, H_f = fragments · W + E ∈ ℝ^(N_f × d), with E the learned
    identity of each fragment. The fragments form N_gr groups of consecutive ones, each with one
    learned group token t_i:

        [t_i; H_i] ← MSA([t_i; H_i])                          within a group
        [CLS_ge; t_1 … t_Ngr] ← MSA([CLS_ge; t_1 … t_Ngr])    between groups

    A gene count that N_f does not divide is padded at the end, and fragments that N_gr does not
    divide leave the last group padded; both paddings are constants, the same for every patient.

    Args:
        num_genes: G.
        dim: d.
        heads: attention heads.
        num_fragments: N_f, at most G.
        num_groups: N_gr, at most N_f.
        mlp_ratio: MLP of the attention blocks, see :class:`SelfAttentionBlock`.
        dropout: probability on the fragments and in the blocks.

    Raises:
        ValueError: counts that do not fit each other.
    """

    def __init__(
        self,
        num_genes: int,
        dim: int = 512,
        heads: int = 8,
        num_fragments: int = 64,
        num_groups: int = 8,
        mlp_ratio: float = 0.0,
        dropout: float = 0.0,
    ):
        super().__init__()
        if not 1 <= num_groups <= num_fragments <= num_genes:
            raise ValueError(
                "GroupMSA needs 1 ≤ num_groups ≤ num_fragments ≤ num_genes, "
                f"got {num_groups}, {num_fragments}, {num_genes}"
            )
        self.num_genes = num_genes
        self.fragment_size = -(-num_genes // num_fragments)
        # With the size rounded up, fewer fragments may already hold every gene.
        self.num_fragments = -(-num_genes // self.fragment_size)
        self.group_size = -(-self.num_fragments // num_groups)
        self.num_groups = -(-self.num_fragments // self.group_size)
        slots = self.num_groups * self.group_size
        self.project = nn.Linear(self.fragment_size, dim)
        self.fragment_embedding = nn.Parameter(torch.randn(slots, dim) * 0.02)
        self.group_tokens = nn.Parameter(torch.randn(self.num_groups, 1, dim) * 0.02)
        self.cls_token = nn.Parameter(torch.randn(1, 1, dim) * 0.02)
        self.dropout = nn.Dropout(dropout)
        self.intra = SelfAttentionBlock(dim, heads, mlp_ratio, dropout)
        self.inter = SelfAttentionBlock(dim, heads, mlp_ratio, dropout)
        self.norm = nn.LayerNorm(dim)

    def forward(self, genes: Tensor) -> Tensor:
        """CLS_ge of each patient.

        Args:
            genes: (B, G) scaled expression.

        Returns:
            (B, d).

        Raises:
            ValueError: another number of genes than the encoder was built for.
        """
        if genes.dim() != 2 or genes.shape[1] != self.num_genes:
            raise ValueError(f"genes must be (B, {self.num_genes}), got {tuple(genes.shape)}")
        batch = genes.shape[0]
        slots = self.num_groups * self.group_size
        padded = F.pad(genes, (0, slots * self.fragment_size - self.num_genes))
        fragments = self.project(padded.unflatten(1, (slots, self.fragment_size)))  # (B, slots, d)
        fragments = self.dropout(fragments + self.fragment_embedding)
        groups = fragments.unflatten(1, (self.num_groups, self.group_size))  # (B, Ngr, size, d)
        tokens = self.group_tokens.expand(batch, -1, -1, -1)  # (B, Ngr, 1, d)
        groups = torch.cat([tokens, groups], dim=2).flatten(0, 1)  # (B * Ngr, size + 1, d)
        tokens = self.intra(groups)[:, 0].unflatten(0, (batch, self.num_groups))  # (B, Ngr, d)
        tokens = torch.cat([self.cls_token.expand(batch, -1, -1), tokens], dim=1)
        return self.norm(self.inter(tokens)[:, 0])  # (B, d)
