"""Nyström attention for torch's dispatcher, autograd, compiler and functional transforms.

``gimp_fast::nystrom_attention_fwd`` and ``_bwd`` run one backend, which the caller has chosen.
"""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from gimp_fast.ops import nystrom_native, nystrom_torch
from gimp_fast.ops.packing import as_bags, spans_of
from gimp_fast.ops.registration import differentiable, operator, token_major


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
    with torch.autocast(q.device.type, enabled=False):
        if backend == "triton":
            from gimp_fast.kernels import nystrom_attention as kernels

            with _on_device(q):
                return kernels.nystrom_attention_fwd(
                    *map(_unit_stride, (q, k, v)),
                    _device_bounds(cu_seqlens, q, check=bounds is None),
                    num_landmarks,
                    pinv_iterations,
                    scale,
                )
        spans = spans_of(cu_seqlens, bounds, q.shape[2])
        module = cpu_module(backend)
        return module.nystrom_fwd(q, k, v, spans, num_landmarks, pinv_iterations, scale)


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
    with torch.autocast(q.device.type, enabled=False):
        if backend == "triton":
            from gimp_fast.kernels import nystrom_attention as kernels

            with _on_device(q):
                return kernels.nystrom_attention_bwd(
                    *map(_unit_stride, (grad, q, k, v)),
                    _device_bounds(cu_seqlens, q, check=False),
                    *saved,
                    pinv_iterations,
                    scale,
                )
        spans = spans_of(cu_seqlens, bounds, q.shape[2])
        return cpu_module(backend).nystrom_bwd(
            grad, q, k, v, spans, *saved, num_landmarks, pinv_iterations, scale
        )


def cpu_module(backend: str) -> ModuleType:
    """The module whose ``nystrom_fwd`` and ``nystrom_bwd`` are this backend."""
    return nystrom_native if backend == "native" else nystrom_torch


def _on_device(x: Tensor) -> torch.cuda.device:
    """Makes the device of x current, where Triton launches; for a CPU tensor it does nothing."""
    return torch.cuda.device(x.device if x.is_cuda else -1)


def _unit_stride(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def _device_bounds(cu_seqlens: Tensor | None, q: Tensor, check: bool) -> Tensor | None:
    if cu_seqlens is None:
        return None
    if q.is_cuda and torch.cuda.is_current_stream_capturing():
        # Reading from the GPU would end the capture. A copy to it would replay with old values.
        if not cu_seqlens.is_cuda:
            raise RuntimeError("cu_seqlens must be on the GPU while a CUDA graph is captured")
    elif check:
        as_bags(cu_seqlens, q.shape[2])
    return cu_seqlens.to(q.device, torch.int32, non_blocking=True)


@torch.library.register_fake(nystrom_attention_fwd)
def _(q, k, v, cu_seqlens, num_landmarks, pinv_iterations, scale, backend, bounds=None):
    b, h, n, d = q.shape
    compute = torch.promote_types(q.dtype, torch.float32)
    marks = (b, h, min(num_landmarks, n), d)
    if cu_seqlens is not None:
        marks = (cu_seqlens.shape[0] - 1, h, num_landmarks, d)
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


def _setup_nothing(ctx, inputs, output):
    pass


def _second_backward(ctx, *_):
    raise NotImplementedError(
        "nystrom_attention is differentiable once; backend='reference' has higher derivatives"
    )


differentiable_attention = differentiable(nystrom_attention_fwd, _setup, _backward)
_gradient = differentiable(nystrom_attention_bwd, _setup_nothing, _second_backward)


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
