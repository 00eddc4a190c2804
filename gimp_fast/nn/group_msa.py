"""GroupMSA, the gene encoder: attention within groups of gene fragments, then between groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gimp_fast.nn.dropout import Dropout
from gimp_fast.nn.fragment_projection import FragmentProjection
from gimp_fast.nn.linear import Linear

Projection = Literal["shared", "own"]


class SelfAttentionBlock(nn.Module):
    """x ← x + MSA(LN(x)), then, if there is an MLP, x ← x + MLP(LN(x)) (pre-LN Transformer).

    Args:
        dim: d, channels.
        heads: attention heads; must divide ``dim``.
        mlp_ratio: hidden width of the MLP divided by ``dim``; 0 for no MLP.
        dropout: probability after attention and MLP.
    """

    def __init__(self, dim: int, heads: int, mlp_ratio: float = 0.0, dropout: float = 0.0):
        super().__init__()
        if dim % heads:
            raise ValueError(f"heads ({heads}) must divide dim ({dim})")
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.to_qkv = Linear(dim, 3 * dim, bias=False)
        self.to_out = Linear(dim, dim)
        self.dropout = Dropout(dropout)
        self.mlp = None
        if mlp_ratio:
            hidden = round(dim * mlp_ratio)
            self.mlp = nn.Sequential(
                nn.LayerNorm(dim),
                Linear(dim, hidden),
                nn.GELU(),
                Linear(hidden, dim),
                Dropout(dropout),
            )

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, N, d) -> (B, N, d); ``mask`` (B, N) bool, True = may be attended to."""
        qkv = self.to_qkv(self.norm(x)).unflatten(-1, (3, self.heads, -1))  # (B, N, 3, H, D)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, H, N, D) each
        keys = None if mask is None else mask[:, None, None]  # (B, 1, 1, N)
        attended = F.scaled_dot_product_attention(q, k, v, keys).transpose(1, 2).flatten(2)
        x = x + self.dropout(self.to_out(attended))
        return x if self.mlp is None else x + self.mlp(x)


class GroupMSA(nn.Module):
    """Group multi-head self-attention over an expression profile (GiMP section 2.1).

    X_G ∈ ℝ^G is cut into N_f fragments, H_f = fragments · W + E ∈ ℝ^(N_f × d), with E the learned
    identity of each fragment. The fragments form N_gr groups of consecutive ones, each with one
    learned group token t_i:

        [t_i; H_i] ← MSA([t_i; H_i])                          within a group
        [CLS_ge; t_1 … t_Ngr] ← MSA([CLS_ge; t_1 … t_Ngr])    between groups

    If N_f does not divide G, the last fragment is padded; if N_gr does not divide N_f, the last
    group is padded. Both paddings are constants, the same for every patient.

    With ``gene_sets`` (for example pathways), each set is a group. The sets are cut into about N_f
    fragments of one size. A gene may be in several sets; a gene in no set is not read. The last
    fragment of a set is padded with zeros, and shorter groups are padded with slots that the
    attention masks out.

    Args:
        num_genes: G.
        dim: d.
        heads: attention heads.
        num_fragments: N_f, at most G; with ``gene_sets``, at most the genes of all sets together.
        num_groups: N_gr, at most N_f; not used with ``gene_sets``.
        mlp_ratio: MLP of the attention blocks, see :class:`SelfAttentionBlock`.
        dropout: probability on the fragments and in the blocks.
        gene_sets: columns of the genes of each group.
        projection: ``"shared"`` is W of the paper, ``"own"`` a matrix for each fragment.

    Raises:
        ValueError: counts do not fit each other, or :func:`check_gene_sets` refuses the gene sets.
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
        *,
        gene_sets: Sequence[Sequence[int]] | None = None,
        projection: Projection = "shared",
    ):
        super().__init__()
        self.num_genes = num_genes
        if gene_sets is None:
            self._cut_in_order(num_fragments, num_groups)
        else:
            self._cut_by_sets(num_fragments, gene_sets)
        slots = self.num_groups * self.group_size
        if projection == "own":
            self.project: nn.Module = FragmentProjection(slots, self.fragment_size, dim)
        else:
            self.project = Linear(self.fragment_size, dim)
        self.fragment_embedding = nn.Parameter(torch.randn(slots, dim) * 0.02)
        self.group_tokens = nn.Parameter(torch.randn(self.num_groups, 1, dim) * 0.02)
        self.cls_token = nn.Parameter(torch.randn(1, 1, dim) * 0.02)
        self.dropout = Dropout(dropout)
        self.intra = SelfAttentionBlock(dim, heads, mlp_ratio, dropout)
        self.inter = SelfAttentionBlock(dim, heads, mlp_ratio, dropout)
        self.norm = nn.LayerNorm(dim)

    def _cut_in_order(self, num_fragments: int, num_groups: int) -> None:
        if not 1 <= num_groups <= num_fragments <= self.num_genes:
            raise ValueError(
                "GroupMSA needs 1 ≤ num_groups ≤ num_fragments ≤ num_genes, "
                f"got {num_groups}, {num_fragments}, {self.num_genes}"
            )
        self.fragment_size = -(-self.num_genes // num_fragments)
        # The size is rounded up, so fewer fragments may hold all genes.
        self.num_fragments = -(-self.num_genes // self.fragment_size)
        self.group_size = -(-self.num_fragments // num_groups)
        self.num_groups = -(-self.num_fragments // self.group_size)
        self.register_buffer("gene_index", None, persistent=False)
        self.register_buffer("slot_mask", None, persistent=False)

    def _cut_by_sets(self, num_fragments: int, gene_sets: Sequence[Sequence[int]]) -> None:
        check_gene_sets(gene_sets, self.num_genes)
        lengths = [len(genes) for genes in gene_sets]
        if not 1 <= num_fragments <= sum(lengths):
            raise ValueError(
                "GroupMSA needs 1 ≤ num_fragments ≤ genes of all gene sets, "
                f"got {num_fragments}, {sum(lengths)}"
            )
        self.fragment_size = min(-(-sum(lengths) // num_fragments), max(lengths))
        fragments = [-(-length // self.fragment_size) for length in lengths]
        self.num_fragments = sum(fragments)
        self.group_size = max(fragments)
        self.num_groups = len(fragments)
        # An extra column after the last gene is zero; it pads fragments and groups.
        index = torch.full((self.num_groups, self.group_size * self.fragment_size), self.num_genes)
        for row, genes in zip(index, gene_sets, strict=True):
            row[: len(genes)] = torch.as_tensor(genes)
        self.register_buffer("gene_index", index.flatten(), persistent=False)
        mask = None
        if min(fragments) < self.group_size:
            # The extra slot in front is for the group token.
            slots = torch.arange(self.group_size + 1)
            mask = slots <= torch.tensor(fragments)[:, None]  # (Ngr, size + 1), True = in use
        self.register_buffer("slot_mask", mask, persistent=False)

    @property
    def num_tokens(self) -> int:
        """Tokens of one patient: those of the fragments and of their groups."""
        return self.num_groups * (self.group_size + 1)

    @property
    def gene_columns(self) -> Tensor:
        """(slots, fragment size), columns of the expression matrix; G or more is padding."""
        columns, slots = self.gene_index, self.num_groups * self.group_size
        if columns is None:
            columns = torch.arange(slots * self.fragment_size, device=self.cls_token.device)
        return columns.unflatten(0, (slots, self.fragment_size))

    @property
    def gene_mask(self) -> Tensor:
        """(slots, fragment size) bool: True = a gene, False = padding, for which :meth:`cut` has 0.

        Slots are numbered group after group. A slot without any gene holds no fragment.
        """
        return self.gene_columns < self.num_genes

    def forward(self, genes: Tensor) -> Tensor:
        """CLS_ge (B, d) of scaled expression (B, G); raises what :meth:`encode` raises."""
        return self.encode(genes)[0]

    def encode(
        self, genes: Tensor, *, masked: Tensor | None = None, mask_token: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """CLS_ge, and the tokens of the fragments after the attention within their groups.

        Args:
            genes: (B, G) scaled expression.
            masked: (B, slots) bool, True = masked. The mask token replaces the content of the
                fragment; its learned identity stays.
            mask_token: (d,).

        Returns:
            CLS_ge (B, d), and fragments (B, slots, d) without a last norm; :attr:`gene_mask` says
            which slots hold genes.

        Raises:
            ValueError: the number of genes is not the one that the encoder was built for, or only
                one of ``masked`` and ``mask_token`` was given.
        """
        if genes.dim() != 2 or genes.shape[1] != self.num_genes:
            raise ValueError(f"genes must be (B, {self.num_genes}), got {tuple(genes.shape)}")
        if (masked is None) != (mask_token is None):
            raise ValueError("masked and mask_token go together; only one was given")
        batch = genes.shape[0]
        fragments = self.project(self.cut(genes))  # (B, slots, d)
        if masked is not None:
            fragments = torch.where(masked[..., None], mask_token.to(fragments.dtype), fragments)
        fragments = self.dropout(fragments + self.fragment_embedding)
        groups = fragments.unflatten(1, (self.num_groups, self.group_size))  # (B, Ngr, size, d)
        tokens = self.group_tokens.expand(batch, -1, -1, -1)  # (B, Ngr, 1, d)
        groups = torch.cat([tokens, groups], dim=2).flatten(0, 1)  # (B * Ngr, size + 1, d)
        mask = None if self.slot_mask is None else self.slot_mask.repeat(batch, 1)
        groups = self.intra(groups, mask).unflatten(0, (batch, self.num_groups))
        tokens, fragments = groups[:, :, 0], groups[:, :, 1:]  # (B, Ngr, d), (B, Ngr, size, d)
        tokens = torch.cat([self.cls_token.expand(batch, -1, -1), tokens], dim=1)
        return self.norm(self.inter(tokens)[:, 0]), fragments.flatten(1, 2)

    def cut(self, genes: Tensor) -> Tensor:
        """The genes of each fragment, padded with zeros: (B, G) -> (B, slots, fragment size)."""
        slots = self.num_groups * self.group_size
        if self.gene_index is None:
            padded = F.pad(genes, (0, slots * self.fragment_size - self.num_genes))
        else:
            padded = F.pad(genes, (0, 1))[:, self.gene_index]
        return padded.unflatten(1, (slots, self.fragment_size))


def check_gene_sets(gene_sets: Sequence[Sequence[int]], num_genes: int) -> None:
    """ValueError for no sets, an empty set, a column outside 0 … G − 1, or twice in a set."""
    if len(gene_sets) == 0:
        raise ValueError("gene_sets is empty; give one set or more, or None")
    for number, genes in enumerate(gene_sets):
        if len(genes) == 0:
            raise ValueError(f"gene set {number} is empty")
        if outside := [gene for gene in genes if not 0 <= gene < num_genes]:
            raise ValueError(
                f"gene set {number}: column {outside[0]} is not in 0 … {num_genes - 1}"
            )
        if len(set(genes)) < len(genes):
            twice = next(gene for i, gene in enumerate(genes) if gene in genes[:i])
            raise ValueError(f"gene set {number} has column {twice} twice")
