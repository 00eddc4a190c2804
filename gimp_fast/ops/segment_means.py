"""Means of the M balanced segments of each bag: landmarks, and inputs that give landmarks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gimp_fast.ops.packing import Bags
from gimp_fast.ops.registration import differentiable, operator


def segment_means(x: Tensor, bags: Bags, num_segments: int) -> Tensor:
    """Means of contiguous, balanced segments: segment i is rows ⌊iN/M⌋ … ⌊(i+1)N/M⌋ of its bag.

    The landmarks of Nyström attention (GiMP eq. 2). As a projection is linear, the landmarks of its
    result are the projected means of its input. Sums are in fp32 or wider, and each bag is summed
    by itself. Differentiable.

    Args:
        x: (T, C), packed bags of any floating dtype.
        bags: their bounds.
        num_segments: M.

    Returns:
        (B, M, C) in the dtype of x. An empty segment, of a bag of fewer than M rows, gives zeros.
    """
    return _means(x, bags.cu_seqlens, num_segments)


def segments(n: int, num_segments: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Segment of each of n rows (N,), and lengths of the segments (M,)."""
    edges = torch.arange(num_segments + 1, device=device) * n // num_segments
    lengths = edges.diff()
    segment = torch.arange(num_segments, device=device)
    return segment.repeat_interleave(lengths, output_size=n), lengths


@operator
def segment_means_fwd(x: Tensor, cu_seqlens: Tensor, num_segments: int) -> Tensor:
    """:func:`segment_means`, as a registered operator."""
    starts, lengths = _layout(cu_seqlens.to(x.device), num_segments)
    with torch.autocast(x.device.type, enabled=False):
        rows = torch.arange(len(x), device=x.device)
        sums = F.embedding_bag(rows, x, starts, mode="sum")  # (B * M, C)
        return (sums / lengths.clamp(min=1)[:, None]).unflatten(0, (-1, num_segments))


@operator
def segment_means_bwd(grad: Tensor, cu_seqlens: Tensor, num_rows: int) -> Tensor:
    """Gradient of x (T, C): each row has its share of the gradient of its segment's mean."""
    _, lengths = _layout(cu_seqlens.to(grad.device), grad.shape[1])
    shares = grad.flatten(0, 1) / lengths.clamp(min=1)[:, None]
    segment = torch.arange(len(lengths), device=grad.device)
    return shares.index_select(0, segment.repeat_interleave(lengths, output_size=num_rows))


def _layout(cu_seqlens: Tensor, num_segments: int) -> tuple[Tensor, Tensor]:
    """First row and number of rows of every segment of every bag, (B * M,) each."""
    bounds = cu_seqlens.long()
    steps = torch.arange(num_segments, device=bounds.device)
    starts = (bounds[:-1, None] + steps * bounds.diff()[:, None] // num_segments).flatten()
    return starts, torch.cat([starts, bounds[-1:]]).diff()


@torch.library.register_fake(segment_means_fwd)
def _(x, cu_seqlens, num_segments):
    return x.new_empty(cu_seqlens.shape[0] - 1, num_segments, x.shape[1])


@torch.library.register_fake(segment_means_bwd)
def _(grad, cu_seqlens, num_rows):
    return grad.new_empty(num_rows, grad.shape[2])


def _setup(ctx, inputs, output):
    x, cu_seqlens, ctx.num_segments = inputs
    ctx.num_rows = x.shape[0]
    ctx.save_for_backward(cu_seqlens)


def _backward(ctx, grad):
    return _shares(grad, *ctx.saved_tensors, ctx.num_rows), None, None


def _setup_shares(ctx, inputs, output):
    ctx.num_segments = inputs[0].shape[1]
    ctx.save_for_backward(inputs[1])


def _shares_backward(ctx, grad):
    return _means(grad, *ctx.saved_tensors, ctx.num_segments), None, None


_means = differentiable(segment_means_fwd, _setup, _backward)
_shares = differentiable(segment_means_bwd, _setup_shares, _shares_backward)
