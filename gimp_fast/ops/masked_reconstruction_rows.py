"""Distances and signs of decoded rows, in one pass over memory where the native operators are."""

from __future__ import annotations

import torch
from torch import Tensor

from gimp_fast import native
from gimp_fast.ops.backends import backend_of_a_part
from gimp_fast.ops.registration import compute_dtype

FUSED_BACKENDS = ("cuda", "native")


def row_distances(
    decoded: Tensor, target: Tensor, rows: Tensor, wants_signs: bool, wants_sign_sums: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Σ|decoded − target[rows]| of each row, the signs of the differences, and their column sums.

    A row's sum does not depend on other rows or on the number of threads. Sums of signs are exact.

    Args:
        decoded: (R, C), contiguous. The signs may replace it.
        target: (T, C), of any dtype of ``masked_l1.DTYPES``, as decoded. Only ``rows`` are read.
        rows: (R,) int64, the row of target that belongs to each row of decoded.
        wants_signs, wants_sign_sums: whether to return them.

    Returns:
        (R,) in fp32, or fp64 for fp64; (R, C) of the dtype of decoded, 0 for NaN; (C,). What is not
        asked for may be None.
    """
    if _fused_backend(target) is not None:
        sums, sign_sums = _FUSED(decoded, target, rows, wants_sign_sums)
        return sums, decoded, sign_sums
    difference = decoded.to(compute_dtype(decoded)).sub_(target.index_select(0, rows))  # (R, C)
    # Row by row, so that the order of the sum does not depend on the number of threads.
    sums = torch.linalg.vector_norm(difference, 1, dim=1)
    if not wants_signs:
        return sums, None, None
    signs = difference.sign_().to(decoded.dtype)
    return sums, signs, signs.sum(0, dtype=sums.dtype) if wants_sign_sums else None


def _fused_backend(target: Tensor) -> str | None:
    if _FUSED is None or not target.is_contiguous():
        return None
    return backend_of_a_part(FUSED_BACKENDS, device=target.device)


def _fused_fake(decoded, target, index, sum_signs):
    return (
        decoded.new_empty(decoded.shape[:1], dtype=compute_dtype(decoded)),
        decoded.new_empty(decoded.shape[1:] if sum_signs else (0,), dtype=torch.int64),
    )


native.load()
# None without a build, or with one of an earlier version.
_FUSED = getattr(torch.ops.gimp_fast, "masked_reconstruction_rows", None)
if _FUSED is not None:
    torch.library.register_fake("gimp_fast::masked_reconstruction_rows", _fused_fake)
