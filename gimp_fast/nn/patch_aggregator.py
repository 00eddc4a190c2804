"""The patch aggregator: a CLS token and two Nyström layers over the patches of a patient."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gimp_fast.nn.nystrom_attention import NystromAttention
from gimp_fast.ops.masked_reconstruction import masked_reconstruction_loss
from gimp_fast.ops.packing import Bags, as_bags
from gimp_fast.ops.patch_embedding import embed_patches, place_cls, place_patches
from gimp_fast.ops.rows import is_transformed, take_rows

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
            the layer again, with the same dropout: less memory, more time, the same gradients.
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
        self.input_dropout = nn.Dropout(input_dropout)
        self.cls_token = nn.Parameter(torch.randn(dim) * 0.02)
        self.mask_token = nn.Parameter(torch.randn(dim) * 0.02)
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(num_layers))
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
        masked: Tensor | None = None,
        keep: Keep = "all",
    ) -> tuple[Tensor, Tensor | None]:
        """Encode bags of patches.

        Args:
            patches: (B, N, C) bags of one length, or (T, C) packed bags with ``cu_seqlens``.
            cu_seqlens: (B + 1,) bounds of the packed bags, or bags.
            masked: bool, shape of ``patches`` without C; True = masked: the embedded patch is
                replaced with the mask token (masked patch modelling, GiMP section 2.3). Its values
                are not read.
            keep: which patch tokens are wanted besides CLS_img; the last LayerNorm leaves out the
                others, for which nothing is kept.

        Returns:
            ``(cls, tokens)`` after the last LayerNorm: CLS_img (B, d), and the patch tokens:
            ``"all"``, (B, N, d) or (T, d); the ``"masked"`` ones in their order, (R, d); or
            ``"none"``, None.

        Raises:
            ValueError: shapes that do not fit.
        """
        self._validate(patches, cu_seqlens, masked, keep)
        shape = patches.shape[:-1]
        if cu_seqlens is None:
            spans = [(i * shape[1], (i + 1) * shape[1]) for i in range(shape[0])]
        else:
            bags = as_bags(cu_seqlens, len(patches))
            spans = bags.spans
        masked = None if masked is None else masked.flatten()

        def embed() -> Tensor:  # (T + B, d); a name for it would keep it while the layers run
            return self._embed(patches.reshape(-1, self.feature_dim), spans, masked)

        if cu_seqlens is None:
            hidden = self._layers(embed().unflatten(0, (shape[0], shape[1] + 1)))  # (B, N + 1, d)
            if keep == "all":
                hidden = self.norm(hidden)
                return hidden[:, 0], hidden[:, 1:]
            hidden = hidden.flatten(0, 1)
        else:
            hidden = self._layers(embed()[None], bags.with_cls)[0]
        rows = place_cls(spans, hidden.device)
        if keep == "none":
            return self.norm(take_rows(hidden, rows)), None
        if keep == "masked":
            kept = masked.nonzero()[:, 0]
        else:
            kept = torch.arange(len(patches), device=hidden.device)
        rows = torch.cat([rows, place_patches(kept, spans)])
        cls, tokens = self.norm(take_rows(hidden, rows)).split([len(spans), len(kept)])
        return cls, tokens

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
        self, patches: Tensor, bounds: list[tuple[int, int]], masked: Tensor | None
    ) -> Tensor:
        """(T, C) -> (T + B, d), a CLS token before the patches of each bag."""
        weights = (self.embed.weight, self.embed.bias, self.cls_token, self.mask_token)
        if not (
            (self.training and self.input_dropout.p > 0)
            or torch.compiler.is_compiling()
            or is_transformed(patches)
        ):
            return embed_patches(patches, *weights, bounds, masked)
        tokens = self.input_dropout(self.embed(patches))
        if masked is not None:
            tokens = torch.where(masked[:, None], self.mask_token.to(tokens.dtype), tokens)
        cls = self.cls_token.to(tokens.dtype).expand(len(bounds), -1)
        parts = [
            part
            for bag, (start, stop) in enumerate(bounds)
            for part in (cls[bag : bag + 1], tokens[start:stop])
        ]
        return torch.cat([tokens[:0], *parts])

    def _layers(self, hidden: Tensor, bags: Bags | None = None) -> Tensor:
        """The Nyström layers, without the last LayerNorm."""
        again = self.checkpoint_layers and torch.is_grad_enabled()
        for norm, layer in zip(self.norms, self.layers, strict=True):
            arguments = (norm, layer, hidden, bags)
            if again:
                hidden = checkpoint(_residual, *arguments, use_reentrant=False)
            else:
                hidden = _residual(*arguments)
        return hidden


def _residual(
    norm: nn.LayerNorm, layer: NystromAttention, hidden: Tensor, bags: Bags | None
) -> Tensor:
    """Hˡ⁺¹ = Hˡ + Nyström(LN(Hˡ))."""
    return hidden + layer(norm(hidden), cu_seqlens=bags)


class PatchDecoder(nn.Module):
    """ĥ = W₂ GELU(W₁ z) or ĥ = W z: from a token back to its patch embedding (GiMP eq. 3).

    Give it the masked rows only: no others enter the loss, of which ``reconstruction_loss`` never
    forms all at once.

    Args:
        dim: d.
        feature_dim: C.
        hidden: width of a hidden layer; 0 leaves one linear map.
    """

    def __init__(self, dim: int = 512, feature_dim: int = 1024, hidden: int = 0):
        super().__init__()
        if hidden:
            self.layers = nn.Sequential(
                nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, feature_dim)
            )
        else:
            self.layers = nn.Sequential(nn.Linear(dim, feature_dim))

    def forward(self, tokens: Tensor) -> Tensor:
        """(..., d) -> (..., C)."""
        return self.layers(tokens)

    def reconstruction_loss(
        self,
        tokens: Tensor,
        target: Tensor,
        masked: Tensor,
        *,
        reduction: Literal["mean", "sum"] = "mean",
    ) -> Tensor:
        """Masked L1 between the decoded tokens and their patches (GiMP eq. 3).

        The decoded patches exist a chunk at a time:
        :func:`gimp_fast.ops.masked_reconstruction_loss`.

        Args:
            tokens: (R, d), the masked ones in their order.
            target: (..., N, C) patch embeddings.
            masked: (..., N) bool, True = masked, R of them.
            reduction: ``"mean"`` or ``"sum"``.
        """
        *hidden, last = self.layers
        for layer in hidden:
            tokens = layer(tokens)
        return masked_reconstruction_loss(
            tokens, last.weight, last.bias, target, masked, reduction=reduction
        )
