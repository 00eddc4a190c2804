"""Orders of a slide's patches. Windows and landmarks are runs of rows, so the order shapes them.

``file``: as stored (CLAM: by column inside each contour; TRIDENT: by row). ``row`` and ``column``:
by coordinates. ``hilbert``: along a Hilbert curve, under which a run of rows is a compact piece of
tissue.
"""

from __future__ import annotations

import numpy as np

from gimp_fast.data.names import PATCH_ORDERS

_BITS = 16


def patch_order(coords: np.ndarray, order: str) -> np.ndarray:
    """Row numbers of a file in the order asked for.

    Args:
        coords: (N, 2 or more) x, y of each patch; any unit.
        order: one of ``PATCH_ORDERS``.

    Returns:
        (N,) uint32 row numbers: row i of the ordered slide is row ``result[i]`` of the file.
        Patches of equal rank keep the order of the file.
    """
    coords = np.asarray(coords)
    if order == "file":
        return np.arange(len(coords), dtype=np.uint32)
    x, y = coords[:, 0], coords[:, 1]
    if order == "hilbert":
        rows = np.argsort(hilbert_index(_to_grid(x, y)), kind="stable")
    elif order in PATCH_ORDERS:
        rows = np.lexsort((x, y) if order == "row" else (y, x))
    else:
        raise ValueError(f"order must be one of {', '.join(PATCH_ORDERS)}, got '{order}'")
    return rows.astype(np.uint32)


def _to_grid(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Points on a square grid of 2^16, (N, 2) int64; one scale for both axes."""
    points = np.stack([x, y], -1).astype(np.float64)
    if not len(points):
        return np.empty((0, 2), np.int64)
    points -= points.min(0)
    extent = points.max() or 1.0
    return (points * ((1 << _BITS) - 1) / extent).astype(np.int64)


def hilbert_index(points: np.ndarray, bits: int = _BITS) -> np.ndarray:
    """Distance along the Hilbert curve that fills a square of side 2^bits.

    Args:
        points: (N, 2) int64 in 0 … 2^bits − 1.
        bits: levels of the curve, at most 31.

    Returns:
        (N,) int64. Neighbours on the curve are neighbours on the grid.
    """
    x, y = points[:, 0].copy(), points[:, 1].copy()
    index = np.zeros(len(points), np.int64)
    # From the largest square to the smallest: find the quarter, then turn it upright.
    for level in range(bits - 1, -1, -1):
        side = 1 << level
        right, upper = (x & side) > 0, (y & side) > 0
        index += side * side * ((3 * right) ^ upper)
        x, y = x & (side - 1), y & (side - 1)
        flip = right & ~upper
        x[flip], y[flip] = side - 1 - x[flip], side - 1 - y[flip]
        lower = ~upper
        x[lower], y[lower] = y[lower], x[lower]
    return index
