"""The patch aggregator: a CLS token and two Nyström layers over the patches of a patient."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gimp_fast.nn.nystrom_attention import NystromAttention
from gimp_fast.ops.packing import bag_bounds


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
        backend: str = "auto",
    ):
        super().__init__()
        if dim % heads:
            raise ValueError(f"heads ({heads}) must divide dim ({dim})")
        self.feature_dim = feature_dim
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
        self, patches: Tensor, *, cu_seqlens: Tensor | None = None, masked: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Encode bags of patches.

        Args:
            patches: (B, N, C) bags of one length, or (T, C) packed bags with ``cu_seqlens``.
            cu_seqlens: (B + 1,) bounds of the packed bags.
            masked: bool, shape of ``patches`` without C; True = masked: the embedded patch is
                replaced with the mask token (masked patch modelling, GiMP section 2.3).

        Returns:
            ``(cls, tokens)``: CLS_img (B, d), and the patch tokens (B, N, d) or (T, d), both after
            the last LayerNorm.

        Raises:
            ValueError: shapes that do not fit.
        """
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
        tokens = self.input_dropout(self.embed(patches))
        if masked is not None:
            tokens = torch.where(masked[..., None], self.mask_token.to(tokens.dtype), tokens)
        if cu_seqlens is None:
            cls = self.cls_token.to(tokens.dtype).expand(tokens.shape[0], 1, -1)
            hidden = self._layers(torch.cat([cls, tokens], dim=1))  # (B, N + 1, d)
            return hidden[:, 0], hidden[:, 1:]
        num_bags = len(bag_bounds(cu_seqlens, len(patches)))
        bounds = cu_seqlens + torch.arange(num_bags + 1, device=cu_seqlens.device)
        is_patch = torch.ones(len(tokens) + num_bags, dtype=torch.bool, device=tokens.device)
        is_patch[bounds[:-1].long()] = False
        # Row i of a bag comes from patch i - 1; the CLS rows, read from row 0, are replaced.
        source = is_patch.cumsum(0).clamp(min=1) - 1
        hidden = torch.where(
            is_patch[:, None], tokens[source], self.cls_token.to(tokens.dtype)
        )  # (T + B, d)
        hidden = self._layers(hidden[None], cu_seqlens=bounds)[0]
        return hidden[~is_patch], hidden[is_patch]

    def _layers(self, hidden: Tensor, cu_seqlens: Tensor | None = None) -> Tensor:
        for norm, layer in zip(self.norms, self.layers, strict=True):
            hidden = hidden + layer(norm(hidden), cu_seqlens=cu_seqlens)
        return self.norm(hidden)


class PatchDecoder(nn.Module):
    """ĥ = W₂ GELU(W₁ z) or ĥ = W z: from a token back to its patch embedding (GiMP eq. 3).

    Give it the masked rows only: no others enter the loss.

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
