"""Nyström attention: linear-time attention through M landmarks, for bags of any length."""

from __future__ import annotations

import torch
from torch import Tensor

from gimp_fast.ops.backends import resolve_backend
from gimp_fast.ops.nystrom_operators import differentiable_attention
from gimp_fast.ops.packing import Bags, operands, validate_packed
from gimp_fast.reference.nystrom_attention import nystrom_attention_reference

# In order of preference. "torch" is composed of torch's own operators and runs on every device.
SUPPORTED_BACKENDS = ("triton", "native", "torch", "reference")
# Of the backends with their own code; fp64 is left to torch, as it is for exactness, not for speed.
FAST_BACKENDS = ("triton", "native")
FAST_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def nystrom_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    num_landmarks: int = 256,
    pinv_iterations: int = 6,
    scale: float | None = None,
    cu_seqlens: Tensor | Bags | None = None,
    backend: str = "auto",
) -> Tensor:
    """softmax(Q K̃ᵀ) · Z · softmax(Q̃ Kᵀ) V with Z the iterative pseudo-inverse of softmax(Q̃ K̃ᵀ).

    GiMP eq. 2, after Nyströmformer (Xiong et al. 2021). Landmarks Q̃, K̃ are means of M contiguous,
    balanced segments (row ⌊iN/M⌋ to ⌊(i+1)N/M⌋). Nothing is padded, and a bag of N ≤ M tokens gets
    exact softmax attention. Each bag is computed by itself: output and gradients are bitwise the
    same alone, in a batch, or packed, and from run to run. It takes O(N·M) time and forms no N×M
    tensor. For the backward pass it saves q, k, v, one number per row, and M×D tensors.

    Under autocast it computes in the dtype of its inputs. It is differentiable once; only
    ``backend="reference"`` has higher derivatives. ``torch.func.grad`` and ``vmap`` (not of packed
    bags) work; forward-mode derivatives do not.

    Scores that overflow fp32 (q and k beyond about 1e18) give the limit of softmax, its largest
    entry alone, on the CPU. A GPU is not asked, because that would wait for it: there the output of
    such a bag is NaN.

    Args:
        q, k, v: (B, H, N, D) in fp64, fp32, bf16 or fp16; any strides. With ``cu_seqlens``:
            (1, H, T, D), B bags of different lengths one after the other.
        num_landmarks: M.
        pinv_iterations: hyper-power iterations; use the number that the model was trained with.
        scale: factor of the scores, D^-1/2 by default.
        cu_seqlens: (B + 1,) int32 or int64, or plain numbers; bag b is tokens ``cu_seqlens[b]`` up
            to ``cu_seqlens[b + 1]``. Checking a tensor on a GPU waits for the GPU, and is skipped
            while a CUDA graph is captured. :class:`Bags` need no such wait.
        backend: ``"auto"``, ``"triton"`` (GPU) or ``"native"`` (C++, CPU), both for fp32, bf16 and
            fp16, ``"torch"`` or ``"reference"``.

    Returns:
        Same shape and dtype as ``q``; memory holds the heads of a token together. Softmax
        statistics and the pseudo-inverse are fp32 or wider.

    Raises:
        ValueError: shapes, dtypes, devices, counts or bounds do not fit.
        RuntimeError: a backend was named that cannot run here.
    """
    tensors = {"q": q, "k": k, "v": v}
    validate_inputs("nystrom_attention", tensors, num_landmarks, pinv_iterations, cu_seqlens)
    scale = q.shape[-1] ** -0.5 if scale is None else float(scale)
    if scale <= 0:  # kernels look for the largest score before they scale it
        q, scale = q * scale, 1.0
    chosen = choose_backend(backend, q)
    cu_seqlens, bounds = operands(cu_seqlens, q.shape[2])
    if chosen == "reference":
        return nystrom_attention_reference(
            q,
            k,
            v,
            num_landmarks=num_landmarks,
            pinv_iterations=pinv_iterations,
            scale=scale,
            cu_seqlens=cu_seqlens,
        )
    settings = (num_landmarks, pinv_iterations, scale, chosen)
    return differentiable_attention(q, k, v, cu_seqlens, *settings, bounds)[0]


def choose_backend(backend: str, q: Tensor) -> str:
    """Name of the backend that runs for tensors like q. Errors as in ``nystrom_attention``."""
    takes_fast = q.dtype in FAST_DTYPES
    if backend in FAST_BACKENDS and not takes_fast:
        raise RuntimeError(
            f"nystrom_attention: backend={backend!r} cannot run: it takes {FAST_DTYPES}, "
            f"got {q.dtype}"
        )
    supported = [b for b in SUPPORTED_BACKENDS if takes_fast or b not in FAST_BACKENDS]
    return resolve_backend(backend, supported, op="nystrom_attention", device=q.device)


def validate_inputs(
    op: str,
    tensors: dict[str, Tensor],
    num_landmarks: int,
    pinv_iterations: int,
    cu_seqlens: Tensor | Bags | None,
) -> None:
    """Raise ValueError, with the values, for arguments of ``op`` that do not fit each other."""
    q, *rest = tensors.values()
    names = ", ".join(tensors)
    if q.dim() != 4 or any(x.shape != q.shape for x in rest):
        shapes = ", ".join(str(tuple(x.shape)) for x in tensors.values())
        raise ValueError(f"{op}: {names} must share one shape (B, H, N, D), got {shapes}")
    if not q.is_floating_point() or any(x.dtype != q.dtype for x in rest):
        dtypes = ", ".join(str(x.dtype) for x in tensors.values())
        raise ValueError(f"{op}: {names} must share one floating dtype, got {dtypes}")
    if any(x.device != q.device for x in rest):
        devices = ", ".join(str(x.device) for x in tensors.values())
        raise ValueError(f"{op}: {names} must be on one device, got {devices}")
    if num_landmarks < 1:
        raise ValueError(f"{op}: num_landmarks must be at least 1, got {num_landmarks}")
    if pinv_iterations < 0:
        raise ValueError(f"{op}: pinv_iterations must not be negative, got {pinv_iterations}")
    validate_packed(op, q, cu_seqlens)
