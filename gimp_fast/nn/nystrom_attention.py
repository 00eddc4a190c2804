"""Multi-head Nyström self-attention as a module whose weights are those of nystrom-attention."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gimp_fast.nn.dropout import Dropout
from gimp_fast.ops.linear import Linear
from gimp_fast.ops.nystrom_attention import choose_backend
from gimp_fast.ops.nystrom_layer import nystrom_layer
from gimp_fast.ops.packing import Bags, as_bags
from gimp_fast.ops.token_conv import token_conv


class NystromAttention(nn.Module):
    """out = W_out · [ Nyström(Q, K, V) + conv(V) ], with Q, K, V = x W_qkv (GiMP eq. 1 and 2).

    The depthwise convolution over V runs along the tokens of one bag. Constructor arguments and
    ``state_dict`` keys are those of ``nystrom_attention.NystromAttention`` 0.0.14, and so are the
    outputs where M divides N, the batch is one bag, and its heads share the maxima from which the
    pseudo-inverse starts. Elsewhere they differ on purpose: nothing is padded, each pseudo-inverse
    starts from its own maxima, and a bag of N ≤ M tokens gets exact softmax attention.

    On the CPU, and everywhere in eval mode, a bag's output is bitwise the same alone, in a batch,
    or packed. Training on a GPU projects the tokens of all bags together, which is faster and may
    round the last digit otherwise.

    Args:
        dim: C, input and output channels.
        dim_head: D.
        heads: H.
        num_landmarks: M.
        pinv_iterations: hyper-power iterations.
        residual: add the depthwise convolution over V.
        residual_conv_kernel: its odd length in tokens.
        dropout: probability after the output projection.
        eps: accepted so that calls written for nystrom-attention run; nothing here divides by it.
        backend: as in :func:`gimp_fast.ops.nystrom_attention`.
    """

    def __init__(
        self,
        dim: int,
        dim_head: int = 64,
        heads: int = 8,
        num_landmarks: int = 256,
        pinv_iterations: int = 6,
        residual: bool = True,
        residual_conv_kernel: int = 33,
        dropout: float = 0.0,
        eps: float = 1e-8,
        *,
        backend: str = "auto",
    ):
        super().__init__()
        if residual and residual_conv_kernel % 2 == 0:
            raise ValueError(f"residual_conv_kernel must be odd, got {residual_conv_kernel}")
        self.heads = heads
        self.dim_head = dim_head
        self.num_landmarks = num_landmarks
        self.pinv_iterations = pinv_iterations
        self.eps = eps
        self.backend = backend
        self.to_qkv = Linear(dim, 3 * heads * dim_head, bias=False)
        self.to_out = nn.Sequential(Linear(heads * dim_head, dim), Dropout(dropout))
        self.res_conv = None
        if residual:
            self.res_conv = nn.Conv2d(
                heads,
                heads,
                (residual_conv_kernel, 1),
                padding=(residual_conv_kernel // 2, 0),
                groups=heads,
                bias=False,
            )

    def forward(
        self, x: Tensor, mask: Tensor | None = None, *, cu_seqlens: Tensor | Bags | None = None
    ) -> Tensor:
        """Attend within each bag.

        Args:
            x: (B, N, C), or (1, T, C) with ``cu_seqlens``.
            mask: (B, N) bool, True = keep. Dropped tokens are left out as if they were not in the
                bag, and their output rows are zero. Not together with ``cu_seqlens``.
            cu_seqlens: (B + 1,) int32 or int64 bounds of packed bags, or bags.

        Returns:
            Same shape as ``x``.

        Raises:
            ValueError: shapes or bounds that do not fit.
        """
        if x.dim() != 3:
            raise ValueError(f"x must be (B, N, C), got {tuple(x.shape)}")
        if cu_seqlens is not None and (mask is not None or x.shape[0] != 1):
            raise ValueError(
                "packed bags need x of shape (1, T, C) and no mask, "
                f"got {tuple(x.shape)} and mask {None if mask is None else tuple(mask.shape)}"
            )
        if mask is None:
            return self._attend_bags(x, cu_seqlens)
        if mask.shape != x.shape[:2] or mask.dtype != torch.bool:
            raise ValueError(
                f"mask must be bool of shape {tuple(x.shape[:2])}, True = keep, "
                f"got {mask.dtype} {tuple(mask.shape)}"
            )
        bounds = F.pad(mask.sum(1).cumsum(0), (1, 0))  # (B + 1,)
        kept = self._attend_bags(x[mask][None], bounds)[0]  # (T, C)
        return kept.new_zeros(x.shape).masked_scatter(mask[..., None], kept)

    def _attend_bags(self, x: Tensor, cu_seqlens: Tensor | Bags | None) -> Tensor:
        if x.is_cuda and self.training:
            return self._attend(x, cu_seqlens)
        # One bag a call: a matrix product may round a row by how many others it computes.
        if cu_seqlens is None:
            bags, dim = x.split(1), 0
        else:
            bags, dim = [x[:, a:b] for a, b in as_bags(cu_seqlens, x.shape[1]).spans], 1
        if len(bags) == 1:
            return self._attend(x)
        return torch.cat([self._attend(bag) for bag in bags], dim) if bags else torch.empty_like(x)

    def _attend(self, x: Tensor, cu_seqlens: Tensor | Bags | None = None) -> Tensor:
        """(B, N, C) or packed (1, T, C) -> the same."""
        qkv = self.to_qkv(x).unflatten(-1, (3, self.heads, self.dim_head))  # (B, N, 3, H, D)
        backend = choose_backend(self.backend, qkv)
        if backend == "torch" and cu_seqlens is None and x.shape[1] <= self.num_landmarks:
            # What nystrom_attention gives for a short bag, and the time of a call matters.
            q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))  # (B, H, N, D) each
            out = F.scaled_dot_product_attention(q, k, v)
            if self.res_conv is not None:
                out = token_conv(v, self.res_conv.weight, add=out)
            return self.to_out(out.transpose(1, 2).flatten(2))
        out = nystrom_layer(
            qkv,
            None if self.res_conv is None else self.res_conv.weight,
            num_landmarks=self.num_landmarks,
            pinv_iterations=self.pinv_iterations,
            cu_seqlens=cu_seqlens,
            backend=backend,
        )
        del qkv  # three fifths of what a pass without gradients holds here
        return self.to_out(out)  # (B, N, C)
