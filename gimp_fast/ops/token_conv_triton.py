"""The convolution along tokens by Triton kernels, for the tensors that they take."""

from __future__ import annotations

import torch
from torch import Tensor

from gimp_fast.ops.backends import backend_of_a_part
from gimp_fast.ops.packing import as_bags
from gimp_fast.ops.registration import on_device, unit_stride

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def takes(v: Tensor) -> bool:
    """Whether the kernels compute the convolution of v. Interpreted ones never do by themselves."""
    return v.dtype in DTYPES and backend_of_a_part(("triton",), device=v.device) == "triton"


def token_conv_fwd(
    v: Tensor,
    weight: Tensor,
    add: Tensor | None,
    cu_seqlens: Tensor | None,
    bounds: list[int] | None,
    flip: bool,
) -> Tensor:
    """As :func:`token_conv.token_conv_fwd`."""
    from gimp_fast.kernels import token_conv as kernels

    with on_device(v):
        return kernels.token_conv_fwd(
            unit_stride(v),
            weight.contiguous(),
            None if add is None else unit_stride(add),
            _device_bounds(cu_seqlens, bounds, v),
            flip,
        )


def token_conv_weight_grad(
    grad: Tensor, v: Tensor, cu_seqlens: Tensor | None, bounds: list[int] | None, kernel: int
) -> Tensor:
    """As :func:`token_conv.token_conv_weight_grad`."""
    from gimp_fast.kernels import token_conv as kernels

    with on_device(v):
        return kernels.token_conv_weight_grad(
            unit_stride(grad), unit_stride(v), _device_bounds(cu_seqlens, bounds, v), kernel
        )


def token_conv_rows_fwd(
    v: Tensor,
    weight: Tensor,
    add: Tensor | None,
    index: Tensor,
    cu_seqlens: Tensor,
    bounds: list[int] | None,
) -> Tensor:
    """As :func:`token_conv_rows.token_conv_rows_fwd`."""
    from gimp_fast.kernels import token_conv as kernels

    with on_device(v):
        return kernels.token_conv_rows_fwd(
            unit_stride(v),
            weight.contiguous(),
            None if add is None else unit_stride(add),
            index.contiguous(),
            _device_bounds(cu_seqlens, bounds, v),
        )


def token_conv_rows_bwd(
    grad: Tensor,
    v: Tensor,
    weight: Tensor,
    index: Tensor,
    cu_seqlens: Tensor,
    bounds: list[int] | None,
) -> tuple[Tensor, Tensor]:
    """As :func:`token_conv_rows.token_conv_rows_bwd`."""
    from gimp_fast.kernels import token_conv as kernels

    with on_device(v):
        return kernels.token_conv_rows_bwd(
            unit_stride(grad),
            unit_stride(v),
            weight.contiguous(),
            index.contiguous(),
            _device_bounds(cu_seqlens, bounds, v),
        )


def _device_bounds(cu_seqlens: Tensor | None, bounds: list[int] | None, v: Tensor) -> Tensor | None:
    """The bounds for a kernel. On a GPU they are not read: kernels stay inside the tensors."""
    if cu_seqlens is None:
        return None
    if not bounds and not cu_seqlens.is_cuda:
        if v.is_cuda and torch.cuda.is_current_stream_capturing():
            # A copy to the GPU would replay with old values.
            raise RuntimeError("cu_seqlens must be on the GPU while a CUDA graph is captured")
        as_bags(cu_seqlens, v.shape[2])
    return cu_seqlens.to(v.device, torch.int32, non_blocking=True)
