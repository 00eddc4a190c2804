"""The image towers of CONCH and CONCHv1.5: a ViT whose tokens one learned query attends to.

Lu et al., "A visual-language foundation model for computational pathology", Nature Medicine 2024,
and Ding et al., arXiv:2411.19666. Names of parameters are those of the published files.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_HEADS = 8


class AttentionalPooler(nn.Module):
    """CONCH's: one query attends to the tokens, (B, N, D) -> (B, W)."""

    def __init__(self, width: int, tokens: int):
        super().__init__()
        self.query = nn.Parameter(torch.zeros(1, width))
        self.attn = nn.MultiheadAttention(width, _HEADS, kdim=tokens, vdim=tokens, batch_first=True)
        self.ln_q = nn.LayerNorm(width)
        self.ln_k = nn.LayerNorm(tokens)

    def forward(self, tokens: Tensor) -> Tensor:
        keys = self.ln_k(tokens)  # (B, N, D)
        query = self.ln_q(self.query).expand(len(tokens), 1, -1)
        return self.attn(query, keys, keys, need_weights=False)[0][:, 0]


class BiasFreePooler(nn.Module):
    """CONCHv1.5's: the same with linear maps without biases, (B, N, D) -> (B, W)."""

    def __init__(self, width: int, tokens: int):
        super().__init__()
        self.query = nn.Parameter(torch.zeros(1, width))
        self.ln_q = nn.LayerNorm(width)
        self.ln_k = nn.LayerNorm(tokens)
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_kv = nn.Linear(tokens, 2 * width, bias=False)
        self.to_out = nn.Linear(width, width, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        def heads(x: Tensor) -> Tensor:  # (B, N, W) -> (B, H, N, W / H)
            return x.unflatten(-1, (_HEADS, -1)).transpose(1, 2)

        query = self.to_q(self.ln_q(self.query)).expand(len(tokens), 1, -1)
        key, value = self.to_kv(self.ln_k(tokens)).chunk(2, dim=-1)
        mixed = F.scaled_dot_product_attention(*map(heads, (query, key, value)))  # (B, H, 1, W / H)
        return self.to_out(mixed.transpose(1, 2).flatten(2))[:, 0]


class ConchTower(nn.Module):
    """Trunk, pooler and LayerNorm, before the projection that compares with text."""

    def __init__(self, trunk: nn.Module, pooler: type[nn.Module], width: int):
        super().__init__()
        self.trunk = trunk
        self.attn_pool_contrast = pooler(width, trunk.num_features)
        self.ln_contrast = nn.LayerNorm(width)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.ln_contrast(self.attn_pool_contrast(self.trunk.forward_features(pixels)))
