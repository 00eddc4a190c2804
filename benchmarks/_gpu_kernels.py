"""What the kernels of Nyström attention have to do: flop, bytes, programs, from recorded launches.

The launches are those of the operator's forward and backward pass on tensors without data, so they
follow the code. How many products a kernel computes is in ``FORMULAS``, by its name.

Bytes of memory: every tensor once. Bytes of the second-level cache: rows are read once for each
tile of landmarks, and landmarks once for each tile of rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from _gpu_devices import Device
from _gpu_work import DTYPES, Case, Recorder, Work, size
from _nystrom_peers import PINV_ITERATIONS
from torch import Tensor

from gimp_fast.kernels import launch as launching
from gimp_fast.kernels.launch import Launch
from gimp_fast.kernels.nystrom_attention import nystrom_attention_bwd, nystrom_attention_fwd

# Constants of kernels that say how fp32 products are computed -> unit of ``Device.rate``.
PRECISIONS = {"ieee": "ieee", "tf32": "tf32", "tf32x3": "tf32x3", "fp16": "half"}


@dataclass(frozen=True)
class Products:
    """What a kernel computes for one head of one bag.

    Attributes:
        rows: products of N × M × D.
        marks: products of M × M × D.
        squares: products of M × M × M.
        meetings: how often the programs of a matrix wait for each other.
        single: operands are fp32, whatever the dtype of q.
    """

    rows: int = 0
    marks: int = 0
    squares: int = 0
    meetings: int = 0
    single: bool = False

    def flop(self, case: Case) -> int:
        m, d = case.landmarks, case.head_dim
        rows = self.rows * case.tokens * m * d
        return 2 * case.matrices * (rows + self.marks * m * m * d + self.squares * m**3)


# The pseudo-inverse makes four classic steps of 4 products, and two thin ones: X of the first, its
# square and X of the second, then 3 products with W each. A meeting follows each product.
CHAIN = Products(marks=2 * 3, squares=4 * 4 + 3, meetings=1 + 4 * 4 + 3 + 2 * 3)
FORMULAS = {
    "_landmarks_fwd_kernel": Products(),
    "_landmarks_to_keys_fwd_kernel": Products(rows=2),
    "_landmarks_to_keys_combine_kernel": Products(),
    # Scores are computed for the sums, and again for the matrix.
    "_landmark_scores_fwd_kernel": Products(marks=2),
    "_pinv_fwd_kernel": Products(
        marks=CHAIN.marks + 1, squares=CHAIN.squares, meetings=CHAIN.meetings + 1, single=True
    ),
    "_to_dtype_kernel": Products(),
    "_queries_to_landmarks_fwd_kernel": Products(rows=2),
    "_queries_to_landmarks_all_fwd_kernel": Products(rows=2),
    "_queries_to_landmarks_all_bwd_kernel": Products(rows=5),
    "_landmarks_to_keys_all_bwd_kernel": Products(rows=5),
    "_landmark_shares_kernel": Products(),
    "_queries_to_landmarks_delta_kernel": Products(rows=2),
    "_queries_to_landmarks_bwd_marks_kernel": Products(rows=4),
    "_sum_chunks_kernel": Products(),
    # The chain again; then 6 products with W for each thin step and 2 for Y, 4 + 2 squares for X
    # and A, and 8 squares for each classic step.
    "_pinv_bwd_kernel": Products(
        marks=CHAIN.marks + 2 * 6 + 2,
        squares=CHAIN.squares + 4 + 2 + 4 * 8,
        meetings=CHAIN.meetings + 1 + 2 * 3 + 3 + 1 + 4 * 4 + 1,
        single=True,
    ),
    "_landmark_scores_bwd_rows_kernel": Products(marks=1, single=True),
    "_landmark_scores_bwd_columns_kernel": Products(marks=1, single=True),
    "_values_gradient_kernel": Products(),
    "_landmarks_to_keys_bwd_marks_kernel": Products(rows=3),
    "_landmarks_to_keys_bwd_rows_kernel": Products(rows=4),
    "_queries_to_landmarks_bwd_rows_kernel": Products(rows=3),
}


def formula(name: str) -> Products:
    if name not in FORMULAS:
        raise SystemExit(
            f"{name} has no formula: add its products to FORMULAS in benchmarks/_gpu_kernels.py"
        )
    return FORMULAS[name]


def works(case: Case, device: Device) -> dict[str, list[Work]]:
    """The work of "forward" and "backward" on this GPU, which need not be here."""
    arch = launching.ARCHITECTURES[device.capability]
    scale = case.head_dim**-0.5
    with launching.recording(device.multiprocessors) as forward, Recorder() as prepared:
        q, k, v, cu_seqlens = inputs(case)
        out, *saved = nystrom_attention_fwd(
            q, k, v, cu_seqlens, case.landmarks, PINV_ITERATIONS, scale, arch
        )
    with launching.recording(device.multiprocessors) as backward, Recorder() as prepared_again:
        nystrom_attention_bwd(out, q, k, v, cu_seqlens, *saved, PINV_ITERATIONS, scale, arch)
    return {
        "forward": [work_of(made, case, device) for made in forward] + prepared.works,
        "backward": [work_of(made, case, device) for made in backward] + prepared_again.works,
    }


def inputs(case: Case) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """q, k and v as a layer makes them, and the bounds of packed bags, without data."""
    batch, length = (1, case.rows) if case.packed else (case.batch, case.tokens)
    qkv = torch.empty(
        batch, length, 3, case.heads, case.head_dim, dtype=DTYPES[case.dtype], device="meta"
    )
    q, k, v = (x.transpose(1, 2) for x in qkv.unbind(2))
    bounds = torch.empty(case.batch + 1, dtype=torch.int32, device="meta")
    return q, k, v, bounds if case.packed else None


def work_of(made: Launch, case: Case, device: Device) -> Work:
    products = formula(made.name)
    named = dict(zip(made.kernel.arg_names, made.arguments, strict=False))
    rooms = named.pop("rooms", None)
    tensors = {id(x): x for x in named.values() if isinstance(x, Tensor)}.values()
    memory, l2 = sum(map(size, tensors)), sum(size(x) * reads(x, made, case) for x in tensors)
    steps = 0
    if products.meetings:
        if rooms is None:
            raise SystemExit(f"{made.name} has meetings, but no argument rooms, (teams, floats)")
        steps = products.meetings * math.ceil(case.matrices / len(rooms))
        l2 += bytes_of_squares(products, made, case)
        # What a team keeps is read again from the cache, if the rooms of all teams fit into it.
        if size(rooms) > device.l2_mib * 2**20:
            memory += 3 * 4 * case.landmarks**2 * products.squares * case.matrices
    return Work(
        made.name, products.flop(case), unit(made, case), "inverse" if steps else "attention",
        memory, l2, math.prod(made.grid), steps, made.config,
    )  # fmt: skip


def unit(made: Launch, case: Case) -> str:
    """Unit of the products of a kernel."""
    if case.dtype != "fp32" and not FORMULAS[made.name].single:
        return "half"
    found = [
        PRECISIONS[x] for x in leaves(made.constants) if isinstance(x, str) and x in PRECISIONS
    ]
    if formula(made.name).flop(case) and not found:
        raise SystemExit(f"no constant of {made.name} is one of {', '.join(PRECISIONS)}")
    return found[0] if found else "ieee"


def leaves(constants: dict[str, Any]) -> Iterator[Any]:
    for value in constants.values():
        yield from value if isinstance(value, tuple) else (value,)


def reads(x: Tensor, made: Launch, case: Case) -> int:
    """How often a kernel of products reads a tensor of all rows, or of all landmarks."""
    if not formula(made.name).rows or x.shape[-1] != case.head_dim:
        return 1
    if x.numel() == case.rows * case.heads * case.head_dim:
        return made.grid[1] if len(made.grid) == 3 else 1
    if x.numel() == case.matrices * case.landmarks * case.head_dim:
        return math.ceil(made.grid[0] / case.batch)
    return 1


def bytes_of_squares(products: Products, made: Launch, case: Case) -> int:
    """What the products of the pseudo-inverse read and write: operands once for each tile."""
    m, d = case.landmarks, case.head_dim
    down, across = math.ceil(m / made.config.tokens), math.ceil(m / made.config.landmarks)
    square = m * m * (down + across + 2)
    thin = m * m * math.ceil(d / made.config.landmarks) + m * d * (down + 2)
    return 4 * case.matrices * (products.squares * square + products.marks * thin)
