"""Multi-head Nyström self-attention as a module whose weights are those of nystrom-attention."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gimp_fast.nn.dropout import Dropout
from gimp_fast.nn.linear import Linear
from gimp_fast.ops import native_layer, native_linear
from gimp_fast.ops.nystrom_attention import choose_backend
from gimp_fast.ops.nystrom_layer import nystrom_layer
from gimp_fast.ops.nystrom_rows import nystrom_rows
from gimp_fast.ops.overflow import has_overflowed, multiplied, score_factors
from gimp_fast.ops.packing import Bags, Rows, as_bags, validate_rows
from gimp_fast.ops.token_conv import token_conv


class NystromAttention(nn.Module):
    """out = W_out · [ Nyström(Q, K, V) + conv(V) ], with Q, K, V = x W_qkv (GiMP eq. 1 and 2).

    The depthwise convolution over V runs along the tokens of each bag. Constructor arguments and
    ``state_dict`` keys are those of ``nystrom_attention.NystromAttention`` 0.0.14. Its outputs are
    the same too where M divides N, the batch is one bag, and all heads share the maxima from which
    the pseudo-inverse starts. Elsewhere they differ on purpose: nothing is padded, each
    pseudo-inverse starts from its own maxima, and a bag of N ≤ M tokens gets exact softmax
    attention.

    On the CPU, and on any device in eval mode, the output of a bag is bitwise the same alone, in a
    batch, or packed. Training on a GPU projects the tokens of all bags together; this is faster,
    but the last digit may differ.

    Args:
        dim: C, input and output channels.
        dim_head: D.
        heads: H.
        num_landmarks: M.
        pinv_iterations: hyper-power iterations.
        residual: add the depthwise convolution over V.
        residual_conv_kernel: its odd length in tokens.
        dropout: probability after the output projection.
        eps: not used; accepted for calls that were written for nystrom-attention.
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
        self,
        x: Tensor,
        mask: Tensor | None = None,
        *,
        cu_seqlens: Tensor | Bags | None = None,
        rows: Rows | None = None,
    ) -> Tensor:
        """The tokens of each bag after they have attended to each other.

        Args:
            x: (B, N, C), or (1, T, C) with ``cu_seqlens``.
            mask: (B, N) bool, True = keep. Other tokens are treated as absent, and their output
                rows are zero. It cannot be combined with ``cu_seqlens``.
            cu_seqlens: (B + 1,) int32 or int64 bounds of packed bags (a tensor or plain numbers),
                or bags.
            rows: :class:`Rows`, tokens whose outputs are needed; all tokens are attended to. Less
                is computed, and the result equals these rows of the whole to rounding. It cannot
                be combined with ``mask``.

        Returns:
            Same shape as ``x``; with ``rows`` (R, C), in their order.

        Raises:
            ValueError: shapes, dtype, device, bounds or rows do not fit.
        """
        self._check_rows(x)
        if cu_seqlens is not None and (mask is not None or x.shape[0] != 1):
            raise ValueError(
                "packed bags need x of shape (1, T, C) and no mask, "
                f"got {tuple(x.shape)} and mask {None if mask is None else tuple(mask.shape)}"
            )
        if rows is not None:
            if mask is not None:
                raise ValueError("rows cannot be combined with a mask; drop masked tokens instead")
            return self._attend_rows(x, cu_seqlens, rows)
        if mask is None:
            return self._attend_bags(x, cu_seqlens)
        if mask.shape != x.shape[:2] or mask.dtype != torch.bool:
            raise ValueError(
                f"mask must be bool of shape {tuple(x.shape[:2])}, True = keep, "
                f"got {mask.dtype} {tuple(mask.shape)}"
            )
        cu_seqlens = F.pad(mask.sum(1).cumsum(0), (1, 0))  # (B + 1,)
        kept = self._attend_bags(x[mask][None], cu_seqlens)[0]  # (T, C)
        return kept.new_zeros(x.shape).masked_scatter(mask[..., None], kept)

    def _check_rows(self, x: Tensor) -> None:
        weight = self.to_qkv.weight
        channels = weight.shape[1]
        if not isinstance(x, Tensor) or x.dim() != 3 or x.shape[2] != channels:
            found = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(f"x must be a tensor (B, N, {channels}), got {found}")
        autocast = torch.is_autocast_enabled(x.device.type) and x.is_floating_point()
        if x.dtype != weight.dtype and not autocast:
            raise ValueError(f"x must be {weight.dtype} like the weights, got {x.dtype}")
        if x.device != weight.device:
            raise ValueError(f"x must be on {weight.device} like the weights, got {x.device}")

    def _attend_bags(self, x: Tensor, cu_seqlens: Tensor | Bags | None) -> Tensor:
        if x.device.type != "cpu" and self.training:  # bounds on the GPU are not read here
            return self._attend(x, cu_seqlens)
        bags = None if cu_seqlens is None else as_bags(cu_seqlens, x.shape[1])
        longest = x.shape[1] if bags is None else max(bags.lengths, default=0)
        if self._may_pack(x, longest):
            if x.device.type == "cpu" and choose_backend(self.backend, x) == "native":
                return self._attend_at_once(x, bags)
            return self._attend(x, bags, longest)
        # One bag per call: a matrix product may round a row differently when it has more rows.
        if bags is None:
            parts, dim = x.split(1), 0
        else:
            parts, dim = [x[:, start:stop] for start, stop in bags.spans], 1
        if len(parts) == 1:
            return self._attend(x)
        if not parts:
            return torch.empty_like(x)
        return torch.cat([self._attend(part) for part in parts], dim)

    def _attend_at_once(self, x: Tensor, bags: Bags | None) -> Tensor:
        linear, dropout = self.to_out
        out = native_layer.layer(
            x,
            self.to_qkv.weight,
            linear.weight,
            linear.bias,
            None if self.res_conv is None else self.res_conv.weight,
            bags,
            self.heads,
            self.num_landmarks,
            self.pinv_iterations,
        )
        return dropout(out)

    def _projects_in_plainly(self) -> bool:
        """True if no module need be called for Q, K and V: their weight says all."""
        return _is_plain(self.to_qkv) and self.to_qkv.bias is None

    def _projects_out_plainly(self) -> bool:
        """True if no module but the dropout need be called for the output."""
        return _is_plain(self.to_out[0]) and not _has_hooks(self.to_out)

    def _may_pack(self, x: Tensor, longest: int) -> bool:
        """True if bags of up to ``longest`` rows may be computed by one call.

        Either no row rounds otherwise then, or it may.
        """
        if x.device.type != "cpu":
            return self.training
        if not (self._projects_in_plainly() and self._projects_out_plainly()):
            return False
        projections = (self.to_qkv, self.to_out[0])
        return all(native_linear.takes(x, y.weight, y.bias, longest) for y in projections)

    def _attend_rows(self, x: Tensor, cu_seqlens: Tensor | Bags | None, rows: Rows) -> Tensor:
        """(B, N, C) or packed (1, T, C) -> (R, C)."""
        tokens = x.flatten(0, 1)  # (T, C)
        if cu_seqlens is None:
            bags = Bags.of_equal(*x.shape[:2], x.device)
        else:
            bags = as_bags(cu_seqlens, x.shape[1])
        validate_rows(rows, bags, x.device)
        if not self._projects_in_plainly():
            return self._attend_bags(x, cu_seqlens).flatten(0, 1).index_select(0, rows.index)
        longest = max(bags.lengths, default=0)
        if len(bags) == 1 or self._may_pack(x, longest):
            return self._rows(tokens, rows, bags, longest)
        # One bag per call, as for all tokens.
        parts = [
            self._rows(tokens[start:stop], *_alone(rows, bag, start, stop))
            for bag, (start, stop) in enumerate(bags.spans)
            if rows.bags.lengths[bag]
        ]
        return torch.cat(parts) if parts else tokens[:0]

    def _rows(self, x: Tensor, rows: Rows, bags: Bags, longest: int | None = None) -> Tensor:
        """(T, C) -> (R, C)."""
        out = nystrom_rows(
            x,
            self.to_qkv.weight,
            None if self.res_conv is None else self.res_conv.weight,
            rows,
            bags,
            heads=self.heads,
            num_landmarks=self.num_landmarks,
            pinv_iterations=self.pinv_iterations,
            backend=self.backend,
            longest=longest,
        )
        return self._project(out, longest)

    def _project(self, x: Tensor, longest: int | None) -> Tensor:
        if not self._projects_out_plainly():
            return self.to_out(x)
        linear, dropout = self.to_out
        return dropout(linear(x, longest))

    def _attend(
        self, x: Tensor, cu_seqlens: Tensor | Bags | None = None, longest: int | None = None
    ) -> Tensor:
        """(B, N, C) or packed (1, T, C) -> the same; ``longest`` as in ``native_linear.takes``."""
        qkv = self.to_qkv(x, longest) if _is_plain(self.to_qkv) else self.to_qkv(x)
        qkv = qkv.unflatten(-1, (3, self.heads, self.dim_head))  # (B, N, 3, H, D)
        backend = choose_backend(self.backend, qkv)
        if backend == "torch" and cu_seqlens is None and x.shape[1] <= self.num_landmarks:
            # The same as nystrom_attention for a short bag, with fewer calls, whose time matters.
            q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))  # (B, H, N, D) each
            out = F.scaled_dot_product_attention(q, k, v)
            if has_overflowed(out):
                q, k = multiplied(q, k, score_factors(q.detach(), k.detach()))
                out = F.scaled_dot_product_attention(q, k, v)
            if self.res_conv is not None:
                out = token_conv(v, self.res_conv.weight, add=out)
            return self._project(out.transpose(1, 2).flatten(2), longest)
        out = nystrom_layer(
            qkv,
            None if self.res_conv is None else self.res_conv.weight,
            num_landmarks=self.num_landmarks,
            pinv_iterations=self.pinv_iterations,
            cu_seqlens=cu_seqlens,
            backend=backend,
        )
        del qkv  # without gradients, this frees three fifths of the memory in use
        return self._project(out, longest)  # (B, N, C)


def _has_hooks(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


def _is_plain(linear: nn.Module) -> bool:
    """False if a projection has hooks, was replaced or parametrized: then it must be called."""
    return type(linear) is Linear and not _has_hooks(linear)


def _alone(rows: Rows, bag: int, start: int, stop: int) -> tuple[Rows, Bags]:
    """The rows of one bag, and that bag, as if it were the only one."""
    first, last = rows.bags.spans[bag]
    index = rows.index[first:last] - start
    bags = (Bags.of_equal(1, n, index.device) for n in (last - first, stop - start))
    return Rows(index, next(bags)), next(bags)
