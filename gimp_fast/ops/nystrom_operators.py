"""Nyström attention for torch's dispatcher, autograd, compiler and functional transforms.

``gimp_fast::nystrom_attention_fwd`` and ``_bwd`` run one backend, which the caller has chosen, and
``gimp_fast::nystrom_rows_fwd`` and ``_bwd`` do so for some of the queries.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gimp_fast.ops import nystrom_native, nystrom_torch
from gimp_fast.ops.packing import as_bags, spans_of
from gimp_fast.ops.registration import differentiable, on_device, operator, token_major, unit_stride

# Backends whose module has nystrom_fwd and nystrom_bwd, as nystrom_torch has.
MODULES = {"native": nystrom_native, "torch": nystrom_torch}


@operator
def nystrom_attention_fwd(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens: Tensor | None,
    num_landmarks: int,
    pinv_iterations: int,
    scale: float,
    backend: str,
    bounds: list[int] | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The output, and what the backward pass needs: see :func:`nystrom_torch.nystrom_fwd`.

    ``bounds`` are the numbers in ``cu_seqlens``; if they are None, the tensor is read. Triton keeps
    other statistics of the scores, and the native backend keeps landmarks in fp32.
    """
    if backend == "triton":
        from gimp_fast.kernels import nystrom_attention as kernels

        with on_device(q):
            return kernels.nystrom_attention_fwd(
                *map(unit_stride, (q, k, v)),
                _device_bounds(cu_seqlens, bounds, q),
                num_landmarks,
                pinv_iterations,
                scale,
            )
    with torch.autocast(q.device.type, enabled=False):
        spans = spans_of(cu_seqlens, bounds, q.shape[2])
        attend = MODULES[backend].nystrom_fwd
        return attend(q, k, v, spans, num_landmarks, pinv_iterations, scale)


@operator
def nystrom_attention_bwd(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens: Tensor | None,
    q_marks: Tensor,
    k_marks: Tensor,
    mark_stats: Tensor,
    values: Tensor,
    mixed: Tensor,
    row_stats: Tensor,
    num_landmarks: int,
    pinv_iterations: int,
    scale: float,
    backend: str,
    bounds: list[int] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v."""
    saved = (q_marks, k_marks, mark_stats, values, mixed, row_stats)
    if backend == "triton":
        from gimp_fast.kernels import nystrom_attention as kernels

        with on_device(q):
            return kernels.nystrom_attention_bwd(
                *map(unit_stride, (grad, q, k, v)),
                _device_bounds(cu_seqlens, bounds, q, checked=True),
                *saved,
                pinv_iterations,
                scale,
                num_landmarks=num_landmarks,
            )
    with torch.autocast(q.device.type, enabled=False):
        spans = spans_of(cu_seqlens, bounds, q.shape[2])
        return MODULES[backend].nystrom_bwd(
            grad, q, k, v, spans, *saved, num_landmarks, pinv_iterations, scale
        )


@operator
def nystrom_rows_fwd(
    q: Tensor,
    q_marks: Tensor,
    k: Tensor,
    v: Tensor,
    q_seqlens: Tensor,
    cu_seqlens: Tensor,
    num_landmarks: int,
    pinv_iterations: int,
    scale: float,
    backend: str,
    q_bounds: list[int] | None = None,
    bounds: list[int] | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The output of some queries, and what the backward pass needs besides q, k and v.

    Args:
        q: (1, H, R, D), the needed queries of packed bags.
        q_marks: (bags, H, M, D), landmarks of all queries; not read for bags of N ≤ M tokens.
        k, v: (1, H, T, D), packed bags.
        q_seqlens, cu_seqlens: bounds of the bags in q, and in k and v.
        q_bounds, bounds: the numbers in them; where they are None, the tensor is read.
    """
    settings = (num_landmarks, pinv_iterations, scale)
    if backend == "triton":
        from gimp_fast.kernels import nystrom_attention as kernels

        with on_device(q):
            return kernels.nystrom_attention_fwd(
                *map(unit_stride, (q, k, v)),
                _device_bounds(cu_seqlens, bounds, k),
                *settings,
                q_marks=q_marks.contiguous(),
                q_seqlens=_device_bounds(q_seqlens, q_bounds, q),
            )
    with torch.autocast(q.device.type, enabled=False):
        spans, q_spans = _both_spans(q, k, q_seqlens, cu_seqlens, q_bounds, bounds)
        attend = MODULES[backend].nystrom_fwd
        return attend(q, k, v, spans, *settings, q_marks=q_marks, q_spans=q_spans)


@operator
def nystrom_rows_bwd(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_seqlens: Tensor,
    cu_seqlens: Tensor,
    q_marks: Tensor,
    k_marks: Tensor,
    mark_stats: Tensor,
    values: Tensor,
    mixed: Tensor,
    row_stats: Tensor,
    num_landmarks: int,
    pinv_iterations: int,
    scale: float,
    backend: str,
    q_bounds: list[int] | None = None,
    bounds: list[int] | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v and the landmarks of q."""
    saved = (q_marks, k_marks, mark_stats, values, mixed, row_stats)
    if backend == "triton":
        from gimp_fast.kernels import nystrom_attention as kernels

        with on_device(q):
            return kernels.nystrom_attention_bwd(
                *map(unit_stride, (grad, q, k, v)),
                _device_bounds(cu_seqlens, bounds, k, checked=True),
                *saved,
                pinv_iterations,
                scale,
                q_seqlens=_device_bounds(q_seqlens, q_bounds, q, checked=True),
                num_landmarks=num_landmarks,
            )
    with torch.autocast(q.device.type, enabled=False):
        spans, q_spans = _both_spans(q, k, q_seqlens, cu_seqlens, q_bounds, bounds)
        settings = (num_landmarks, pinv_iterations, scale)
        return MODULES[backend].nystrom_bwd(
            grad, q, k, v, spans, *saved, *settings, q_spans=q_spans, marks_given=True
        )


def _both_spans(q, k, q_seqlens, cu_seqlens, q_bounds, bounds):
    return spans_of(cu_seqlens, bounds, k.shape[2]), spans_of(q_seqlens, q_bounds, q.shape[2])


def _device_bounds(
    cu_seqlens: Tensor | None, bounds: list[int] | None, q: Tensor, *, checked: bool = False
) -> Tensor | None:
    """The bounds for a kernel; they are read if they are not known and not ``checked`` before.

    Where they are not known and cannot be read they are forced into the tensor, so that wrong ones
    give wrong bags, but kernels read nothing outside.
    """
    if cu_seqlens is None:
        return None
    capturing = q.is_cuda and torch.cuda.is_current_stream_capturing()
    if capturing and not cu_seqlens.is_cuda:
        # A copy to the GPU would replay with old values.
        raise RuntimeError("cu_seqlens must be on the GPU while a CUDA graph is captured")
    unread = capturing or bounds is not None
    if not (bounds or unread or checked):
        as_bags(cu_seqlens, q.shape[2])
    on_device = cu_seqlens.to(q.device, torch.int32, non_blocking=True)
    return on_device.clamp(0, q.shape[2]) if unread and not bounds else on_device


@torch.library.register_fake(nystrom_attention_fwd)
def _(q, k, v, cu_seqlens, num_landmarks, pinv_iterations, scale, backend, bounds=None):
    b, h, n, d = q.shape
    marks = (b, h, min(num_landmarks, n), d)
    if cu_seqlens is not None:
        marks = (cu_seqlens.shape[0] - 1, h, num_landmarks, d)
    return _fake_outputs(q, marks, backend)


@torch.library.register_fake(nystrom_rows_fwd)
def _(q, q_marks, k, v, q_seqlens, cu_seqlens, num_landmarks, iterations, scale, backend, *_):
    _, h, _, d = q.shape
    return _fake_outputs(q, (cu_seqlens.shape[0] - 1, h, num_landmarks, d), backend)


def _fake_outputs(q, marks, backend):
    b, h, n, _ = q.shape
    compute = torch.promote_types(q.dtype, torch.float32)
    values = q.new_empty(marks, dtype=compute)
    mark_dtype = compute if backend == "native" else q.dtype
    return (
        token_major(q),
        q.new_empty(marks, dtype=mark_dtype),
        q.new_empty(marks, dtype=mark_dtype),
        q.new_empty((*marks[:3], 2) if backend == "triton" else marks[:3], dtype=compute),
        values,
        q.new_empty(marks) if backend == "triton" else torch.empty_like(values),
        q.new_empty((b, h, n, 2) if backend == "triton" else (marks[0], h, 2), dtype=compute),
    )


@torch.library.register_fake(nystrom_attention_bwd)
def _(grad, q, k, v, *_):
    return token_major(q), token_major(k), token_major(v)


@torch.library.register_fake(nystrom_rows_bwd)
def _(grad, q, k, v, q_seqlens, cu_seqlens, q_marks, *_):
    return token_major(q), token_major(k), token_major(v), torch.empty_like(q_marks)


def _setup(ctx, inputs, output):
    q, k, v, cu_seqlens, *ctx.settings = inputs
    _, *saved = output
    ctx.mark_non_differentiable(*saved)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(q, k, v, cu_seqlens, *saved)


def _backward(ctx, grad, *_):
    if grad is None:
        return (None,) * 9
    return (*_gradient(grad, *ctx.saved_tensors, *ctx.settings), *[None] * 6)


def _setup_rows(ctx, inputs, output):
    q, _, k, v, q_seqlens, cu_seqlens, *ctx.settings = inputs
    _, *saved = output
    ctx.mark_non_differentiable(*saved)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(q, k, v, q_seqlens, cu_seqlens, *saved)


def _rows_backward(ctx, grad, *_):
    if grad is None:
        return (None,) * 12
    grad_q, grad_k, grad_v, grad_marks = _rows_gradient(grad, *ctx.saved_tensors, *ctx.settings)
    return (grad_q, grad_marks, grad_k, grad_v, *[None] * 8)


def _setup_nothing(ctx, inputs, output):
    pass


def _second_backward(ctx, *_):
    raise NotImplementedError(
        "nystrom_attention is differentiable once; backend='reference' has higher derivatives"
    )


differentiable_attention = differentiable(nystrom_attention_fwd, _setup, _backward)
differentiable_rows = differentiable(nystrom_rows_fwd, _setup_rows, _rows_backward)
_gradient = differentiable(nystrom_attention_bwd, _setup_nothing, _second_backward)
_rows_gradient = differentiable(nystrom_rows_bwd, _setup_nothing, _second_backward)


def _vmap(operator, num_tensors):
    """A vmap rule that folds the mapped dimension into the batch, whose bags are independent."""

    def rule(info, in_dims, *args):
        if args[num_tensors] is not None:
            raise NotImplementedError("nystrom_attention: no vmap over packed bags (cu_seqlens)")
        folded = []
        for x, dim in zip(args, in_dims, strict=True):
            if isinstance(x, Tensor):
                x = (
                    x.unsqueeze(0).expand(info.batch_size, *x.shape)
                    if dim is None
                    else x.movedim(dim, 0)
                )
                x = x.flatten(0, 1)
            folded.append(x)
        results = operator(*folded)
        return tuple(x.unflatten(0, (info.batch_size, -1)) for x in results), (0,) * len(results)

    return rule


torch.library.register_vmap(nystrom_attention_fwd, _vmap(nystrom_attention_fwd, 3))
torch.library.register_vmap(nystrom_attention_bwd, _vmap(nystrom_attention_bwd, 4))
