"""What the pseudo-inverse multiplies, reads and writes: the products of ``kernels/pinv*.py``.

Between two meetings a team computes the products of one group. A product reads its operands once
for each tile, in fp16 or fp32, and what it adds in fp32. It writes values, the copy that products
read, or both; with operands in fp32 these are one matrix.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

VALUES, COPY, BOTH = "values", "copy", "both"


@dataclass(frozen=True)
class Product:
    """One product.

    Attributes:
        shape: "square" (M, M) of M terms, "thin" (M, D) of M, "outer" (M, M) of D; "none" for
            sums and copies of (M, M).
        adds: how many matrices of values it reads besides its operands.
        writes: what is kept of each result.
    """

    shape: str
    adds: int
    writes: tuple[str, ...]

    def sizes(self, m: int, d: int) -> tuple[int, int, int]:
        """Rows, columns and terms."""
        return {"square": (m, m, m), "thin": (m, d, m), "outer": (m, m, d), "none": (m, m, 0)}[
            self.shape
        ]


def square(adds: int, *writes: str) -> Product:
    return Product("square", adds, writes)


def thin(adds: int, *writes: str) -> Product:
    return Product("thin", adds, writes)


def outer(adds: int, *writes: str) -> Product:
    return Product("outer", adds, writes)


# Six steps: four classic ones of 4 products, and two thin ones, which need X of the first, its
# square and X of the second, then 3 products with W each.
START = [[Product("none", 1, ())], [Product("none", 1, (BOTH, COPY))]]
CLASSIC = [[square(0, BOTH)], [square(1, COPY)], [square(1, COPY)], [square(1, BOTH)]]
THIN = [[square(0, BOTH)], [square(1, BOTH, COPY)], [square(2, COPY)]]
APPLY = [[thin(1, COPY)], [thin(1, COPY)], [thin(1, BOTH)]]
CHAIN = START + 4 * CLASSIC + THIN + 2 * APPLY
FORWARD = [*CHAIN, [thin(0, VALUES)]]
GRADS_OF_APPLY = [
    [thin(1, COPY, VALUES)],
    [thin(0, BOTH)],
    [thin(2, BOTH), outer(0, VALUES), outer(1, VALUES), outer(1, BOTH)],
]
GRADS_OF_THIN = [[square(0, VALUES)], [square(2, COPY)], [square(2, VALUES), square(2, COPY)]]
GRADS_OF_CLASSIC = [
    [square(0, BOTH), square(1, VALUES)],
    [square(0, BOTH)],
    [square(2, VALUES), square(1, VALUES), square(1, COPY)],
    [square(1, VALUES), square(1, BOTH)],
]
# The chain again, then everything backwards.
BACKWARD = [
    *CHAIN,
    [outer(0, BOTH), thin(0, BOTH)],
    *(2 * GRADS_OF_APPLY),
    *GRADS_OF_THIN,
    [square(0, VALUES), square(1, BOTH)],
    *(4 * GRADS_OF_CLASSIC),
    [Product("none", 2, ())],
    [Product("none", 2, (VALUES,))],
]
# Bytes for each entry of a matrix that a team works on at a time: two Z, X, T, R and A.
NEAR = {2: 2 * 6 + 6 + 3 * 2, 4: 6 * 4}


def count(groups: list[list[Product]], *shapes: str) -> int:
    return sum(product.shape in shapes for group in groups for product in group)


@dataclass(frozen=True)
class Sizes:
    """Of the matrices, of the tiles, and of the operands' elements in bytes."""

    m: int
    d: int
    rows: int
    columns: int
    item: int

    @classmethod
    def of(cls, constants: dict[str, Any]) -> Sizes:
        m, d, rows, columns, _, precision = constants["SHAPE"]
        return cls(m, d, rows, columns, 2 if precision == "fp16" else 4)


def passes(product: Product, sizes: Sizes) -> Iterator[tuple[int, int]]:
    """Bytes of what a product reads and writes, and how often."""
    rows, columns, terms = product.sizes(sizes.m, sizes.d)
    yield sizes.item * rows * terms, math.ceil(columns / sizes.columns)
    yield sizes.item * terms * columns, math.ceil(rows / sizes.rows)
    each = (
        {VALUES: 4, COPY: 2, BOTH: 6} if sizes.item == 2 else dict.fromkeys((VALUES, COPY, BOTH), 4)
    )
    written = sum(each[kept] for kept in product.writes)
    yield rows * columns * (4 * product.adds + written), 1


def cache_bytes(groups: list[list[Product]], sizes: Sizes) -> int:
    """What the products of one matrix read from the second-level cache and write there."""
    return sum(n * times for group in groups for p in group for n, times in passes(p, sizes))


def memory_bytes(
    groups: list[list[Product]], sizes: Sizes, teams: int, room: int, cache: int
) -> int:
    """What one matrix's room reads from the memory and writes there; ``room`` has so many bytes.

    Nothing if the rooms of all teams fit into the cache. If what they work on at a time fits, a
    room is written and read once; if not, so is every matrix at every product.
    """
    if teams * room <= cache:
        return 0
    if teams * NEAR[sizes.item] * sizes.m**2 <= cache:
        return 2 * room
    return sum(n for group in groups for p in group for n, _ in passes(p, sizes))


def flop_of_rounds(groups: list[list[Product]], sizes: Sizes, team: int) -> int:
    """Flop that a team could do while it computes one matrix, if no program ever lacked a tile."""
    total = 0
    for product in (product for group in groups for product in group):
        rows, columns, terms = product.sizes(sizes.m, sizes.d)
        tiles = math.ceil(rows / sizes.rows) * math.ceil(columns / sizes.columns)
        total += math.ceil(tiles / team) * team * 2 * sizes.rows * sizes.columns * terms
    return total
