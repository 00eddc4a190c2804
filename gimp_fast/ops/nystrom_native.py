"""Nyström attention by the C++ operators of the package: csrc/nystrom_attention.cpp."""

from __future__ import annotations

import torch
from torch import Tensor

from gimp_fast.ops.registration import token_major, unit_stride

Spans = list[tuple[int, int]] | None


def nystrom_fwd(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    spans: Spans,
    num_landmarks: int,
    pinv_iterations: int,
    scale: float,
    q_marks: Tensor | None = None,
    q_spans: Spans = None,
    conv_weight: Tensor | None = None,
    positions: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """As :func:`gimp_fast.ops.nystrom_torch.nystrom_fwd`, plus the residual convolution.

    Landmarks are fp32. The rows of W and Y of a bag with N ≤ M are zero.

    Args:
        conv_weight: (H, 1, K, 1); the convolution of v is added to the output.
        positions: (R,) int64, the token of each query within its bag; only with ``q_marks``.
    """
    bags = q.shape[0] if spans is None else len(spans)
    marks = min(num_landmarks, k.shape[2]) if spans is None else num_landmarks
    sizes = (bags, q.shape[1], marks, q.shape[3])
    shapes = (sizes, sizes, sizes[:3], sizes, sizes, (*sizes[:2], 2))
    saved = [q.new_zeros(shape, dtype=torch.float32) for shape in shapes]
    if q_marks is not None:
        saved[0].copy_(q_marks)
    saved[-1].fill_(1)  # the factors of bags without tokens
    out = token_major(q)
    torch.ops.gimp_fast.nystrom_native_fwd(
        *map(unit_stride, (q, k, v)),
        _bounds(spans),
        _bounds(q_spans if q_marks is not None else spans),
        *saved,
        _filter(conv_weight),
        positions,
        q_marks is not None,
        num_landmarks,
        pinv_iterations,
        scale,
        out,
    )
    return out, *saved


def nystrom_bwd(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    spans: Spans,
    q_marks: Tensor,
    k_marks: Tensor,
    mark_lse: Tensor,
    values: Tensor,
    mixed: Tensor,
    factors: Tensor,
    num_landmarks: int,
    pinv_iterations: int,
    scale: float,
    grads: tuple[Tensor, Tensor, Tensor] | None = None,
    q_spans: Spans = None,
    marks_given: bool = False,
    conv_weight: Tensor | None = None,
    positions: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """Gradients of q, k and v, written into ``grads`` or else into memory (B, N, H, D).

    Then, if they were given, those of ``q_marks`` (fp32) and of ``conv_weight`` (fp32).
    """
    grads = grads or (token_major(q), token_major(k), token_major(v))
    grad_marks = torch.zeros_like(q_marks) if marks_given else None
    grad_filter = torch.ops.gimp_fast.nystrom_native_bwd(
        *map(unit_stride, (grad, q, k, v)),
        _bounds(spans),
        _bounds(q_spans if marks_given else spans),
        q_marks,
        k_marks,
        mark_lse,
        values,
        mixed,
        factors,
        _filter(conv_weight),
        positions,
        marks_given,
        num_landmarks,
        pinv_iterations,
        scale,
        *grads,
        grad_marks,
    )
    given = [] if grad_marks is None else [grad_marks]
    return (*grads, *given, *([] if conv_weight is None else [grad_filter]))


def weights_fwd(
    q: Tensor,
    k: Tensor,
    spans: list[tuple[int, int]],
    num_landmarks: int,
    pinv_iterations: int,
    scale: float,
    q_marks: Tensor,
    conv_weight: Tensor | None = None,
    positions: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The weights that the one query of each bag gives to the values of the bag.

    Args:
        q: (1, H, B, D), fp32.
        k: (1, H, T, D).
        spans, num_landmarks, pinv_iterations, scale, q_marks: as in :func:`nystrom_fwd`.
        conv_weight: (H, 1, K, 1), whose taps are added to the weights around the query.
        positions: (B,) int64, the token of each query within its bag.

    Returns:
        The weights (T, H), and what :func:`weights_bwd` needs.
    """
    sizes = q_marks.shape
    shapes = (sizes, sizes[:3], sizes[:3], (*sizes[:2], 2))
    saved = [q_marks.contiguous().clone(), *(q.new_zeros(shape) for shape in shapes)]
    saved[-1].fill_(1)  # the factors of bags without tokens
    out = k.new_empty(k.shape[2], k.shape[1])
    torch.ops.gimp_fast.nystrom_weights_fwd(
        *map(unit_stride, (q, k)), _bounds(spans), *saved, _filter(conv_weight), positions,
        num_landmarks, pinv_iterations, scale, out,
    )  # fmt: skip
    return out, *saved


def weights_bwd(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    spans: list[tuple[int, int]],
    *saved_and_settings: Tensor | float,
    grads: tuple[Tensor, Tensor],
    conv_weight: Tensor | None = None,
    positions: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Gradients of ``q_marks`` and of ``conv_weight``, (H, 1, K, 1) or empty.

    Those of q and k are written into ``grads``. ``saved_and_settings`` are what the forward pass
    left, then ``num_landmarks``, ``pinv_iterations`` and ``scale``.
    """
    *saved, num_landmarks, pinv_iterations, scale = saved_and_settings
    grad_marks = torch.zeros_like(saved[0])
    grad_filter = torch.ops.gimp_fast.nystrom_weights_bwd(
        grad, *map(unit_stride, (q, k)), _bounds(spans), *saved, _filter(conv_weight), positions,
        num_landmarks, pinv_iterations, scale, *grads, grad_marks,
    )  # fmt: skip
    return grad_marks, grad_filter


def _bounds(spans: Spans) -> list[int]:
    return [] if spans is None else [0, *(stop for _, stop in spans)]


def _filter(weight: Tensor | None) -> Tensor | None:
    return None if weight is None else weight.detach().float().contiguous()
