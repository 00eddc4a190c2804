"""Masked L1 loss: only masked rows, which a model has to reconstruct, are counted."""

from __future__ import annotations

import torch
from torch import Tensor

from gimp_fast import native
from gimp_fast.ops.backends import resolve_backend
from gimp_fast.reference.masked_l1 import masked_l1_reference

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
REDUCTIONS = ("mean", "sum")
SUPPORTED_BACKENDS = ("cuda", "native", "torch", "reference")


def masked_l1_loss(
    prediction: Tensor,
    target: Tensor,
    mask: Tensor,
    *,
    reduction: str = "mean",
    backend: str = "auto",
) -> Tensor:
    """L1 distance over the counted rows.

    ``sum`` is equation 3 of Jin et al. (MICCAI 2023): Σ over counted rows n and channels c of
    |prediction[n, c] − target[n, c]|. ``mean`` divides it by the number of counted elements. If no
    row is counted, the loss and all gradients are 0. Rows that are not counted are not read and may
    hold anything, even NaN; their gradient is 0. Where prediction equals target, the gradient is 0,
    as in ``torch.nn.functional.l1_loss``.

    Args:
        prediction: (..., N, C), float32, float64, bfloat16 or float16; any strides.
        target: (..., N, C), same shape, dtype and device; it gets a gradient if it requires one.
        mask: (..., N) bool, True = masked = counted.
        reduction: ``"mean"`` or ``"sum"``.
        backend: ``"auto"``, ``"cuda"``, ``"native"`` (C++, CPU), ``"torch"`` or ``"reference"``.
            The first two sum in a fixed order, so their results are bitwise reproducible, on the
            CPU for any number of threads. They save two bits per element for the backward pass.

    Returns:
        Scalar, float32 (float64 for float64 input). Sums are accumulated in float32 or wider.

    Raises:
        ValueError: shapes, dtypes, devices, reduction or backend name do not fit; the message has
            the values.
        RuntimeError: a backend was named that cannot run here; the message has the reason.
    """
    _validate(prediction, target, mask, reduction)
    chosen = resolve_backend(
        backend, SUPPORTED_BACKENDS, op="masked_l1_loss", device=prediction.device
    )
    if chosen == "reference":
        accumulate = torch.promote_types(prediction.dtype, torch.float32)
        return masked_l1_reference(
            prediction.to(accumulate), target.to(accumulate), mask, reduction
        )
    total = (_sum_torch if chosen == "torch" else _sum_native)(prediction, target, mask)
    if reduction == "sum":
        return total
    return total / (mask.sum() * prediction.shape[-1]).clamp(min=1)


def _validate(prediction: Tensor, target: Tensor, mask: Tensor, reduction: str) -> None:
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction is {reduction!r}; expected one of {REDUCTIONS}")
    if prediction.dim() < 2:
        raise ValueError(f"prediction is {tuple(prediction.shape)}; expected (..., N, C)")
    if target.shape != prediction.shape:
        raise ValueError(
            f"target is {tuple(target.shape)}; expected the shape of prediction, "
            f"{tuple(prediction.shape)}"
        )
    if mask.shape != prediction.shape[:-1]:
        raise ValueError(
            f"mask is {tuple(mask.shape)}; expected the shape of prediction without its channels, "
            f"{tuple(prediction.shape[:-1])}"
        )
    if mask.dtype != torch.bool:
        raise ValueError(f"mask is {mask.dtype}; expected torch.bool, True = counted")
    if prediction.dtype not in DTYPES:
        raise ValueError(f"prediction is {prediction.dtype}; expected one of {DTYPES}")
    if target.dtype != prediction.dtype:
        raise ValueError(
            f"target is {target.dtype}; expected the dtype of prediction, {prediction.dtype}"
        )
    for name, tensor in (("target", target), ("mask", mask)):
        if tensor.device != prediction.device:
            raise ValueError(
                f"{name} is on {tensor.device}; expected the device of prediction, "
                f"{prediction.device}"
            )


def _sum_torch(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    accumulate = torch.promote_types(prediction.dtype, torch.float32)
    difference = prediction.to(accumulate) - target.to(accumulate)  # (..., N, C)
    # Select before taking magnitudes, so that NaN in other rows reaches neither sum nor gradient.
    return torch.where(mask.unsqueeze(-1), difference, 0).abs().sum()


def _sum_native(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    needs_grad = torch.is_grad_enabled() and (prediction.requires_grad or target.requires_grad)
    total, _ = torch.ops.gimp_fast.masked_l1_fwd(
        prediction.contiguous(), target.contiguous(), mask.contiguous(), needs_grad
    )
    return total


def _fwd_fake(prediction, target, mask, save_signs):
    dtype = torch.float64 if prediction.dtype == torch.float64 else torch.float32
    signs_shape = (*mask.shape, (prediction.shape[-1] + 3) // 4) if save_signs else (0,)
    return prediction.new_empty((), dtype=dtype), mask.new_empty(signs_shape, dtype=torch.uint8)


def _bwd_fake(grad, signs, mask, channels, dtype):
    return mask.new_empty((*mask.shape, channels), dtype=dtype)


def _setup_context(ctx, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    prediction, _, mask, _ = inputs
    signs = output[1]
    ctx.mark_non_differentiable(signs)
    ctx.save_for_backward(signs, mask)
    ctx.channels, ctx.dtype = prediction.shape[-1], prediction.dtype


def _backward(ctx, grad: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    signs, mask = ctx.saved_tensors
    bwd = torch.ops.gimp_fast.masked_l1_bwd
    grad_prediction = grad_target = None
    if ctx.needs_input_grad[0]:
        grad_prediction = bwd(grad, signs, mask, ctx.channels, ctx.dtype)
    if ctx.needs_input_grad[1]:
        grad_target = bwd(-grad, signs, mask, ctx.channels, ctx.dtype)
    return grad_prediction, grad_target, None, None


if native.load().cpu == native.AVAILABLE:
    torch.library.register_fake("gimp_fast::masked_l1_fwd", _fwd_fake)
    torch.library.register_fake("gimp_fast::masked_l1_bwd", _bwd_fake)
    torch.library.register_autograd(
        "gimp_fast::masked_l1_fwd", _backward, setup_context=_setup_context
    )
