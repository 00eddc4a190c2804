"""Nyström attention: linear-time attention through M landmarks, for bags of any length."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from gimp_fast.ops.backends import resolve_backend
from gimp_fast.reference.nystrom_attention import nystrom_attention_reference, pinv_reference

# Preferred first. The composition of torch's own attention kernels runs on every device.
SUPPORTED_BACKENDS = ("torch", "reference")
MAX_THIN_ITERATIONS = 6


def nystrom_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    num_landmarks: int = 256,
    pinv_iterations: int = 6,
    scale: float | None = None,
    cu_seqlens: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """softmax(Q K̃ᵀ) · Z · softmax(Q̃ Kᵀ) V with Z the iterative pseudo-inverse of softmax(Q̃ K̃ᵀ).

    GiMP eq. 2, after Nyströmformer (Xiong et al. 2021). Landmarks Q̃, K̃ are means of M contiguous,
    balanced segments (row ⌊iN/M⌋ to ⌊(i+1)N/M⌋), nothing is padded, and a bag of N ≤ M tokens gets
    exact softmax attention. Each bag is computed by itself: output and gradients are bitwise the
    same alone, in a batch, or packed. O(N·M) time; no N×M tensor is formed.

    Args:
        q, k, v: (B, H, N, D) in fp64, fp32, bf16 or fp16; any strides. With ``cu_seqlens``:
            (1, H, T, D), B bags of different lengths one after the other.
        num_landmarks: M.
        pinv_iterations: hyper-power iterations; a model needs the number it was trained with.
        scale: factor of the scores, D^-1/2 by default.
        cu_seqlens: (B + 1,) int32 or int64, bag b is tokens ``cu_seqlens[b]`` up to
            ``cu_seqlens[b + 1]``.
        backend: ``"auto"``, ``"reference"`` or ``"torch"``.

    Returns:
        Same shape and dtype as ``q``. Softmax statistics and the pseudo-inverse are at least fp32.

    Raises:
        ValueError: shapes, dtypes, devices, counts or bounds that do not fit.
        RuntimeError: a backend named explicitly cannot run here.
    """
    _validate(q, k, v, num_landmarks, pinv_iterations)
    scale = q.shape[-1] ** -0.5 if scale is None else float(scale)
    bounds = None if cu_seqlens is None else _bag_bounds(cu_seqlens, q)
    chosen = resolve_backend(backend, SUPPORTED_BACKENDS, op="nystrom_attention", device=q.device)
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
    # Bag by bag: a library may choose its blocking by the batch size, and with it the rounding.
    if bounds is None:
        bags = [(q[b : b + 1], k[b : b + 1], v[b : b + 1]) for b in range(q.shape[0])]
    else:
        bags = [(q[:, :, a:b], k[:, :, a:b], v[:, :, a:b]) for a, b in bounds]
    outputs = [_one_bag(*bag, num_landmarks, pinv_iterations, scale) for bag in bags]
    if len(outputs) == 1:
        return outputs[0]
    return torch.cat(outputs, dim=0 if bounds is None else 2) if outputs else torch.empty_like(q)


def _validate(q: Tensor, k: Tensor, v: Tensor, num_landmarks: int, pinv_iterations: int) -> None:
    if q.dim() != 4 or q.shape != k.shape or q.shape != v.shape:
        raise ValueError(
            "nystrom_attention: q, k, v must share one shape (B, H, N, D), "
            f"got {tuple(q.shape)}, {tuple(k.shape)}, {tuple(v.shape)}"
        )
    if not q.is_floating_point() or q.dtype != k.dtype or q.dtype != v.dtype:
        raise ValueError(
            "nystrom_attention: q, k, v must share one floating dtype, "
            f"got {q.dtype}, {k.dtype}, {v.dtype}"
        )
    if q.device != k.device or q.device != v.device:
        raise ValueError(
            "nystrom_attention: q, k, v must be on one device, "
            f"got {q.device}, {k.device}, {v.device}"
        )
    if num_landmarks < 1:
        raise ValueError(
            f"nystrom_attention: num_landmarks must be at least 1, got {num_landmarks}"
        )
    if pinv_iterations < 0:
        raise ValueError(
            f"nystrom_attention: pinv_iterations must not be negative, got {pinv_iterations}"
        )


def _bag_bounds(cu_seqlens: Tensor, q: Tensor) -> list[tuple[int, int]]:
    if q.shape[0] != 1:
        raise ValueError(
            f"nystrom_attention: packed bags need shape (1, H, T, D), got {tuple(q.shape)}"
        )
    return bag_bounds(cu_seqlens, q.shape[2])


def bag_bounds(cu_seqlens: Tensor, num_tokens: int) -> list[tuple[int, int]]:
    """First and last-plus-one token of every packed bag, checked.

    Args:
        cu_seqlens: (B + 1,) integer bounds.
        num_tokens: T, where the last bag has to end.

    Raises:
        ValueError: not a 1-D integer tensor from 0 to T that never falls.
    """
    if cu_seqlens.dim() != 1 or cu_seqlens.dtype not in (torch.int32, torch.int64):
        raise ValueError(
            "cu_seqlens must be a 1-D int32 or int64 tensor, "
            f"got {cu_seqlens.dtype} {tuple(cu_seqlens.shape)}"
        )
    values = cu_seqlens.tolist()
    if not values or values[0] != 0 or values[-1] != num_tokens or values != sorted(values):
        raise ValueError(
            f"cu_seqlens must rise from 0 to the number of tokens {num_tokens}, got {values}"
        )
    return list(pairwise(values))


def _one_bag(
    q: Tensor, k: Tensor, v: Tensor, num_landmarks: int, pinv_iterations: int, scale: float
) -> Tensor:
    """Two fused attention calls and the pseudo-inverse between them, for one bag (1, H, N, D)."""
    if q.shape[2] <= num_landmarks:
        return F.scaled_dot_product_attention(q, k, v, scale=scale)
    compute = torch.promote_types(q.dtype, torch.float32)
    # Autocast would run the pseudo-inverse in half precision, whose range it can leave.
    with torch.autocast(q.device.type, enabled=False):
        q_marks = _landmarks(q, num_landmarks)  # (1, H, M, D)
        k_marks = _landmarks(k, num_landmarks)  # (1, H, M, D)
        values = F.scaled_dot_product_attention(q_marks, k, v, scale=scale)  # (1, H, M, D)
        scores = (q_marks.to(compute) * scale) @ k_marks.to(compute).mT  # (1, H, M, M)
        values = pinv_matmul(scores.softmax(-1), values.to(compute), pinv_iterations)
        return F.scaled_dot_product_attention(q, k_marks, values.to(q.dtype), scale=scale)


def _landmarks(x: Tensor, num_landmarks: int) -> Tensor:
    """Balanced segment means of (1, H, N, D), summed in at least fp32 -> (1, H, M, D)."""
    n = x.shape[2]
    compute = torch.promote_types(x.dtype, torch.float32)
    if n % num_landmarks == 0:
        return x.unflatten(2, (num_landmarks, -1)).mean(3, dtype=compute).to(x.dtype)
    # Segments hold ⌊N/M⌋ rows, some of them one more: sum the common part, then add the extra rows.
    bounds = torch.arange(num_landmarks + 1, device=x.device) * n // num_landmarks  # (M + 1,)
    starts, lengths = bounds[:-1], bounds.diff()  # (M,)
    common = n // num_landmarks
    rows = (starts[:, None] + torch.arange(common, device=x.device)).flatten()  # (M * common,)
    sums = x[:, :, rows].unflatten(2, (num_landmarks, common)).sum(3, dtype=compute)
    last = x[:, :, bounds[1:] - 1].to(compute)  # (1, H, M, D)
    sums = sums + last * (lengths > common)[:, None]
    return (sums / lengths[:, None]).to(x.dtype)


def pinv_matmul(a: Tensor, w: Tensor, iterations: int) -> Tensor:
    """Z w, with Z the hyper-power pseudo-inverse of each matrix, without forming Z.

    With X₀ = A Z₀ and S = X², the iteration is X ← ¼(13X − 15S + S(7X − S)), two products instead
    of four, and Z w = Z₀ P(X₀) … P(X₅) w goes right to left over the thin w, with
    P(X)w = ¼(13w − 15Xw + S(7w − Xw)). X never meets A again, so its rounding error grows about
    2.5-fold a step (1e-5 after 6 steps in fp32, 1e-2 after 12): longer chains form Z, whose
    iteration corrects itself.

    Args:
        a: (..., M, M), rows that sum to one.
        w: (..., M, D).
        iterations: number of hyper-power steps.

    Returns:
        (..., M, D).
    """
    if iterations > MAX_THIN_ITERATIONS:
        return pinv_reference(a, iterations) @ w
    z0 = a.mT / (a.sum(-1).amax(-1) * a.sum(-2).amax(-1))[..., None, None]
    x = a @ z0
    factors = []
    for step in range(iterations):
        s = x @ x
        factors.append((x, s))
        if step < iterations - 1:
            x = 0.25 * (13 * x - 15 * s + s @ (7 * x - s))
    for x, s in reversed(factors):
        xw = x @ w
        w = 0.25 * (13 * w - 15 * xw + s @ (7 * w - xw))
    return z0 @ w
