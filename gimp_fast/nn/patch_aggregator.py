"""The patch aggregator: a CLS token and two Nyström layers over the patches of a patient."""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gimp_fast.nn.dropout import Dropout
from gimp_fast.nn.layer_norm import LayerNorm
from gimp_fast.nn.nystrom_attention import NystromAttention
from gimp_fast.ops.masked_reconstruction import masked_reconstruction_loss
from gimp_fast.ops.masks import Masked, split_masked
from gimp_fast.ops.packing import Bags, Rows, as_bags
from gimp_fast.ops.patch_embedding import (
    embed_patches,
    place_cls,
    place_patches,
    take_rows,
    take_rows_of_residual,
)
from gimp_fast.ops.registration import is_transformed

Keep = Literal["all", "masked", "none"]


class PatchAggregator(nn.Module):
    """CLS_img and patch tokens of each bag (GiMP section 2.2, eq. 1 and 2).

        H⁰ = [CLS_img; H_p W + b],   Hˡ⁺¹ = Hˡ + Nyström(LN(Hˡ)),   l ∈ {0, 1}

    Args:
        feature_dim: C, width of the patch embeddings.
        dim: d.
        heads: H; each has d / H channels.
        num_layers: Nyström layers.
        num_landmarks: M.
        pinv_iterations: hyper-power iterations.
        conv_kernel: length in tokens of the depthwise residual convolution.
        dropout: probability after each attention layer.
        input_dropout: probability on the embedded patches.
        checkpoint_layers: keep only the input of each layer for the backward pass, which computes
            the layer again with the same dropout. Less memory, more time, the same gradients.
        backend: as in :func:`gimp_fast.ops.nystrom_attention`.
    """

    def __init__(
        self,
        feature_dim: int = 1024,
        dim: int = 512,
        heads: int = 8,
        num_layers: int = 2,
        num_landmarks: int = 256,
        pinv_iterations: int = 6,
        conv_kernel: int = 33,
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        checkpoint_layers: bool = False,
        backend: str = "auto",
    ):
        super().__init__()
        if dim % heads:
            raise ValueError(f"heads ({heads}) must divide dim ({dim})")
        self.feature_dim = feature_dim
        self.checkpoint_layers = checkpoint_layers
        self.embed = nn.Linear(feature_dim, dim)
        self.input_dropout = Dropout(input_dropout)
        self.cls_token = nn.Parameter(torch.randn(dim) * 0.02)
        self.mask_token = nn.Parameter(torch.randn(dim) * 0.02)
        self.norms = nn.ModuleList(LayerNorm(dim) for _ in range(num_layers))
        self.layers = nn.ModuleList(
            NystromAttention(
                dim,
                dim_head=dim // heads,
                heads=heads,
                num_landmarks=num_landmarks,
                pinv_iterations=pinv_iterations,
                residual_conv_kernel=conv_kernel,
                dropout=dropout,
                backend=backend,
            )
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(
        self,
        patches: Tensor,
        *,
        cu_seqlens: Tensor | Bags | None = None,
        masked: Tensor | Masked | None = None,
        keep: Keep = "all",
    ) -> tuple[Tensor, Tensor | None]:
        """CLS_img and patch tokens of bags of patches.

        Args:
            patches: (B, N, C) bags of one length, or (T, C) packed bags with ``cu_seqlens``.
            cu_seqlens: (B + 1,) bounds of the packed bags, or bags.
            masked: bool, shape of ``patches`` without C; True = masked. The mask token replaces the
                embedded patch (masked patch modelling, GiMP section 2.3), which is not read. A GPU
                is asked how many there are, and waited for, unless they are :class:`Masked`.
            keep: which patch tokens to return besides CLS_img. The last layer computes no others.

        Returns:
            ``(cls, tokens)`` after the last LayerNorm: CLS_img (B, d), and the patch tokens. With
            ``"all"`` these are (B, N, d) or (T, d), with ``"masked"`` the masked ones in order,
            (R, d), and with ``"none"`` None.

        Raises:
            ValueError: shapes do not fit.
        """
        masked, counts = split_masked(masked)
        self._validate(patches, cu_seqlens, masked, keep)
        shape = patches.shape[:-1]
        if cu_seqlens is None:
            bags = Bags.of_equal(*shape, patches.device)
        else:
            bags = as_bags(cu_seqlens, len(patches)).to(patches.device)
        masked = None if masked is None else masked.flatten()
        rows = None
        if keep == "none":
            rows = Rows.first(bags.with_cls)
        elif keep == "masked":
            rows = Rows.cls_and_masked(bags, masked, counts)

        def embed() -> Tensor:  # a variable would keep it alive while the layers run
            tokens = patches.reshape(-1, self.feature_dim)
            hidden = self._embed(tokens, bags, masked, counts)  # (T + B, d)
            if cu_seqlens is not None:
                return hidden[None]
            return hidden.unflatten(0, (shape[0], shape[1] + 1))

        hidden = self._layers(embed(), None if cu_seqlens is None else bags.with_cls, rows)
        if keep == "none":
            return self.norm(hidden), None
        if keep == "all" and cu_seqlens is None:
            hidden = self.norm(hidden)  # (B, N + 1, d)
            return hidden[:, 0], hidden[:, 1:]
        if keep == "masked":  # (R, d), a CLS token before the masked patches of each bag
            bags = rows.bags.without_cls
        else:
            hidden = hidden[0]
        cls = place_cls(bags)
        tokens = place_patches(torch.arange(bags.num_rows, device=hidden.device), bags)
        hidden = self.norm(take_rows(hidden, torch.cat([cls, tokens])))
        return hidden.tensor_split([len(cls)])

    def _validate(
        self, patches: Tensor, cu_seqlens: Tensor | Bags | None, masked: Tensor | None, keep: str
    ) -> None:
        expected = 3 if cu_seqlens is None else 2
        if patches.dim() != expected or patches.shape[-1] != self.feature_dim:
            layout = "(B, N" if cu_seqlens is None else "packed (T"
            raise ValueError(
                f"patches must be {layout}, {self.feature_dim}), got {tuple(patches.shape)}"
            )
        if masked is not None and masked.shape != patches.shape[:-1]:
            raise ValueError(
                f"masked must be {tuple(patches.shape[:-1])}, got {tuple(masked.shape)}"
            )
        if keep not in ("all", "masked", "none"):
            raise ValueError(f"keep must be 'all', 'masked' or 'none', got {keep!r}")
        if keep == "masked" and masked is None:
            raise ValueError("keep='masked' needs masked")

    def _embed(
        self,
        patches: Tensor,
        bags: Bags,
        masked: Tensor | None,
        counts: tuple[int, ...] | None,
    ) -> Tensor:
        """(T, C) -> (T + B, d), with a CLS token before the patches of each bag."""
        weights = (self.embed.weight, self.embed.bias, self.cls_token, self.mask_token)
        if not (
            (self.training and self.input_dropout.p > 0)
            or torch.compiler.is_compiling()
            or is_transformed(patches)
        ):
            return embed_patches(
                patches, *weights, bags, masked, None if counts is None else sum(counts)
            )
        tokens = self.input_dropout(self.embed(patches))
        if masked is not None:
            tokens = torch.where(masked[:, None], self.mask_token.to(tokens.dtype), tokens)
        cls = self.cls_token.to(tokens.dtype).expand(len(bags), -1)
        parts = [
            part
            for bag, (start, stop) in enumerate(bags.spans)
            for part in (cls[bag : bag + 1], tokens[start:stop])
        ]
        return torch.cat([tokens[:0], *parts])

    def _layers(self, hidden: Tensor, bags: Bags | None, rows: Rows | None) -> Tensor:
        """The Nyström layers, without the last LayerNorm; of the last one only ``rows``, (R, d)."""
        recompute = self.checkpoint_layers and torch.is_grad_enabled()
        call = partial(checkpoint, _residual, use_reentrant=False) if recompute else _residual
        last = len(self.layers) - 1
        for number, (norm, layer) in enumerate(zip(self.norms, self.layers, strict=True)):
            hidden = call(norm, layer, hidden, bags, rows if number == last else None)
        if rows is not None and not self.layers:
            hidden = take_rows(hidden.flatten(0, 1), rows.index)
        return hidden


def _residual(
    norm: nn.LayerNorm,
    layer: NystromAttention,
    hidden: Tensor,
    bags: Bags | None,
    rows: Rows | None,
) -> Tensor:
    """Hˡ⁺¹ = Hˡ + Nyström(LN(Hˡ)), or its rows (R, d)."""
    if rows is None:
        return hidden + layer(norm(hidden), cu_seqlens=bags)
    needed, tokens = take_rows_of_residual(hidden.flatten(0, 1), rows.index)
    return needed + layer(norm(tokens.view_as(hidden)), cu_seqlens=bags, rows=rows)


class PatchDecoder(nn.Module):
    """ĥ = W₂ GELU(W₁ z) or ĥ = W z: from a token back to its patch embedding (GiMP eq. 3).

    Decode only masked rows, because no others enter the loss. ``reconstruction_loss`` never forms
    all of them at once.

    Args:
        dim: d.
        feature_dim: C.
        hidden: width of the hidden layer; 0 for a single linear map.
    """

    def __init__(self, dim: int = 512, feature_dim: int = 1024, hidden: int = 0):
        super().__init__()
        before = [nn.Linear(dim, hidden), nn.GELU()] if hidden else []
        self.layers = nn.Sequential(*before, nn.Linear(hidden or dim, feature_dim))

    def forward(self, tokens: Tensor) -> Tensor:
        """(..., d) -> (..., C)."""
        return self.layers(tokens)

    def reconstruction_loss(
        self,
        tokens: Tensor,
        target: Tensor,
        masked: Tensor | Masked,
        *,
        reduction: Literal["mean", "sum"] = "mean",
    ) -> Tensor:
        """Masked L1 between the decoded tokens and their patches (GiMP eq. 3).

        Arguments are as in :func:`gimp_fast.ops.masked_reconstruction_loss`; tokens are (R, d), the
        masked ones in order.
        """
        *hidden, last = self.layers
        for layer in hidden:
            tokens = layer(tokens)
        return masked_reconstruction_loss(
            tokens, last.weight, last.bias, target, masked, reduction=reduction
        )
