"""What the kernels of Nyström attention have to do: flop, bytes, programs, from recorded launches.

The launches are those of the operator's forward and backward pass on tensors without data, so they
follow the code. How many products a kernel computes is in ``FORMULAS``, by its name; those
of the pseudo-inverse one by one in ``_gpu_pinv.py``.

Bytes of memory: every tensor once. Bytes of the second-level cache: rows are read once for each
tile of landmarks, and landmarks once for each tile of rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import _gpu_pinv as pinv
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
        single: operands do not have the dtype of q, and a constant names the precision.
        groups: of the pseudo-inverse: products from one meeting to the next.
    """

    rows: int = 0
    marks: int = 0
    squares: int = 0
    single: bool = False
    groups: list[list[pinv.Product]] = field(default_factory=list)

    def flop(self, case: Case) -> int:
        m, d = case.landmarks, case.head_dim
        rows = self.rows * case.tokens * m * d
        return 2 * case.matrices * (rows + self.marks * m * m * d + self.squares * m**3)


def inverse(groups: list[list[pinv.Product]]) -> Products:
    marks, squares = pinv.count(groups, "thin", "outer"), pinv.count(groups, "square")
    return Products(marks=marks, squares=squares, single=True, groups=groups)


FORMULAS = {
    "_landmarks_fwd_kernel": Products(),
    "_landmarks_to_keys_fwd_kernel": Products(rows=2),
    "_landmarks_to_keys_combine_kernel": Products(),
    # Scores are computed for the sums, and again for the matrix.
    "_landmark_scores_fwd_kernel": Products(marks=2),
    "_pinv_fwd_kernel": inverse(pinv.FORWARD),
    "_to_dtype_kernel": Products(),
    "_queries_to_landmarks_fwd_kernel": Products(rows=2),
    "_queries_to_landmarks_all_fwd_kernel": Products(rows=2),
    "_queries_to_landmarks_all_bwd_kernel": Products(rows=5),
    "_landmarks_to_keys_all_bwd_kernel": Products(rows=5),
    "_landmark_shares_kernel": Products(),
    "_queries_to_landmarks_delta_kernel": Products(rows=2),
    "_queries_to_landmarks_bwd_marks_kernel": Products(rows=4),
    "_sum_chunks_kernel": Products(),
    "_pinv_bwd_kernel": inverse(pinv.BACKWARD),
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
    work = Work(
        made.name, products.flop(case), unit(made, case), "attention", memory, l2,
        math.prod(made.grid), config=made.config,
    )  # fmt: skip
    if not products.groups:
        return work
    if rooms is None:
        raise SystemExit(f"{made.name} has meetings, but no argument rooms, (teams, floats)")
    return work_of_inverse(work, products.groups, made, named["team"], rooms, case, device)


def work_of_inverse(
    work: Work, groups: list[list[pinv.Product]], made: Launch, team: int, rooms: Tensor,
    case: Case, device: Device,
) -> Work:  # fmt: skip
    """Each team computes one matrix after the other, in its room."""
    sizes, teams = pinv.Sizes.of(made.constants), len(rooms)
    rounds = math.ceil(case.matrices / teams)
    room = pinv.memory_bytes(groups, sizes, teams, size(rooms) // teams, device.l2_mib * 2**20)
    possible = rounds * pinv.flop_of_rounds(groups, sizes, team) // team * device.multiprocessors
    return replace(
        work,
        expected="inverse",
        memory_bytes=work.memory_bytes + case.matrices * room,
        l2_bytes=case.matrices * pinv.cache_bytes(groups, sizes),
        steps=rounds * len(groups),
        busy=work.flop / possible,
    )


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
