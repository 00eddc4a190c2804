"""Packed bags: several bags of different lengths, one after the other in one tensor.

Words, here and in every caller: ``cu_seqlens`` is the argument of a public function, a tensor,
plain numbers or :class:`Bags`; ``bags`` is a :class:`Bags`; ``spans`` is a list of (start, stop),
one for each bag; ``bounds`` are the B + 1 numbers themselves.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from gimp_fast.ops import overflow
from gimp_fast.ops.registration import is_transformed

ALIGNMENT = 64  # bytes, of every tensor that torch makes on a CPU
# torch's loops take up to so many elements at a time, and may round those that remain otherwise.
PACKED_WIDTH = 32


@dataclass(frozen=True, eq=False)
class Bags:
    """Where packed bags begin and end, known on the CPU and on the device.

    Make it where you make the batch, and pass it down. Code that plans work reads ``bounds``, code
    that computes reads ``cu_seqlens``, and nothing is ever copied back from a GPU.

    Attributes:
        bounds: B + 1 numbers that rise from 0 to T; bag b is rows ``bounds[b]`` to ``bounds[b+1]``.
        cu_seqlens: (B + 1,) int32, the same numbers on the device of the packed rows.
    """

    bounds: tuple[int, ...]
    cu_seqlens: Tensor

    @classmethod
    def of_lengths(cls, lengths: Iterable[int], device: torch.device | str = "cpu") -> Bags:
        """Bags of these lengths, one after the other."""
        bounds = (0, *accumulate(lengths))
        return cls(bounds, torch.tensor(bounds, dtype=torch.int32, device=device))

    @classmethod
    def of_equal(cls, count: int, length: int, device: torch.device | str = "cpu") -> Bags:
        """The bags of a batch (count, length). They are made on the device; nothing is copied."""
        bounds = tuple(bag * length for bag in range(count + 1))
        return cls(bounds, torch.arange(count + 1, dtype=torch.int32, device=device) * length)

    def __len__(self) -> int:
        return len(self.bounds) - 1

    @property
    def num_rows(self) -> int:
        """T, the rows of all bags together."""
        return self.bounds[-1]

    @property
    def lengths(self) -> list[int]:
        """Number of rows of each bag."""
        return [stop - start for start, stop in pairwise(self.bounds)]

    @cached_property
    def spans(self) -> list[tuple[int, int]]:
        """(start, stop) of each bag; its rows are ``start`` to ``stop - 1``."""
        return list(pairwise(self.bounds))

    @cached_property
    def with_cls(self) -> Bags:
        """The bags with one row more at the start of each, for a CLS token."""
        bounds = tuple(bound + number for number, bound in enumerate(self.bounds))
        shift = torch.arange(len(bounds), dtype=torch.int32, device=self.cu_seqlens.device)
        return Bags(bounds, self.cu_seqlens + shift)

    @property
    def without_cls(self) -> Bags:
        """The bags with one row less each: the other way round."""
        bounds = tuple(bound - number for number, bound in enumerate(self.bounds))
        shift = torch.arange(len(bounds), dtype=torch.int32, device=self.cu_seqlens.device)
        return Bags(bounds, self.cu_seqlens - shift)

    def to(self, device: torch.device, non_blocking: bool = False) -> Bags:
        return replace(self, cu_seqlens=self.cu_seqlens.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Bags:
        return replace(self, cu_seqlens=self.cu_seqlens.pin_memory())


@dataclass(frozen=True, eq=False)
class Rows:
    """The tokens whose outputs are needed, such as the CLS token of each bag.

    Attributes:
        index: (R,) int64, their places among the B·N tokens of a batch or the T packed ones, in
            rising order, on the device of the tokens.
        bags: how many of them each bag has.
    """

    index: Tensor
    bags: Bags

    def positions(self, bags: Bags) -> Tensor:
        """(R,) int64, the place of each row within its bag; ``bags`` are those of the tokens."""
        if len(bags) == 1:
            return self.index
        starts = [
            s for (s, _), n in zip(bags.spans, self.bags.lengths, strict=True) for _ in range(n)
        ]
        return self.index - torch.tensor(starts, dtype=torch.int64, device=self.index.device)

    @classmethod
    def first(cls, bags: Bags) -> Rows:
        """The first token of each bag that has one."""
        lengths = bags.lengths
        if all(lengths):
            rows = Bags.of_equal(len(bags), 1, bags.cu_seqlens.device)
            return cls(bags.cu_seqlens[:-1].long(), rows)
        device = bags.cu_seqlens.device
        starts = [start for start, stop in bags.spans if stop > start]
        rows = Bags.of_lengths([min(n, 1) for n in lengths], device)
        return cls(torch.tensor(starts, dtype=torch.int64, device=device), rows)

    @classmethod
    def cls_and_masked(
        cls, bags: Bags, masked: Tensor, counts: Sequence[int] | None = None
    ) -> Rows:
        """The CLS token of each bag, and its masked patches; places are those of ``with_cls``.

        Args:
            bags: of the patches, without CLS tokens.
            masked: (T,) bool over the patches, True = masked.
            counts: masked patches of each bag; without them a GPU is asked, and waited for.
        """
        before = F.pad(masked.cumsum(0), (1, 0))[bags.cu_seqlens.long()]  # (B + 1,)
        ends = before + torch.arange(len(before), device=before.device)
        is_cls = masked.new_zeros(len(masked) + len(bags))
        is_cls[bags.with_cls.cu_seqlens[:-1].long()] = True
        needed = is_cls.masked_scatter(~is_cls, masked)
        bounds = ends.tolist() if counts is None else accumulate((n + 1 for n in counts), initial=0)
        rows = Bags(tuple(bounds), ends.int())
        return cls(needed.nonzero_static(size=rows.num_rows)[:, 0], rows)


def validate_rows(rows: Rows, bags: Bags, device: torch.device) -> None:
    """Raise ValueError unless ``rows`` are tokens of ``bags``; on a GPU their values are not read.

    Args:
        device: where the tokens are.
    """
    expected = f"expected Rows of {len(bags)} bags of {bags.num_rows} tokens on {device}"
    if not isinstance(rows, Rows):
        raise ValueError(f"rows is {type(rows).__name__}; {expected}")
    index = rows.index
    if index.dim() != 1 or index.dtype != torch.int64 or index.device != device:
        raise ValueError(
            f"rows.index is {index.dtype} {tuple(index.shape)} on {index.device}; "
            f"{expected}, with an index (R,) int64"
        )
    if len(rows.bags) != len(bags) or rows.bags.num_rows != len(index):
        raise ValueError(
            f"rows.bags has {len(rows.bags)} bags of {rows.bags.num_rows} rows, "
            f"rows.index {len(index)} rows; {expected}"
        )
    if not overflow.can_be_read(index):
        return
    places = torch.searchsorted(index, torch.tensor(bags.bounds)).tolist()
    if tuple(places) != rows.bags.bounds or bool((index.diff() <= 0).any()):
        raise ValueError(
            f"rows.index does not rise, or has other tokens than {rows.bags.lengths} of bags of "
            f"{bags.lengths}; {expected}"
        )


def packed_argument(cu_seqlens: object) -> Tensor | Bags | None:
    """``cu_seqlens`` as a tensor or bags; plain numbers, in a list or an array, become a tensor.

    Raises:
        ValueError: none of these.
    """
    if cu_seqlens is None or isinstance(cu_seqlens, (Tensor, Bags)):
        return cu_seqlens
    try:
        bounds = [operator.index(bound) for bound in cu_seqlens]
    except TypeError:
        raise ValueError(
            f"cu_seqlens is {cu_seqlens!r}; expected whole numbers that rise from 0 to the number "
            "of tokens: a 1-D int32 or int64 tensor, a list, or Bags"
        ) from None
    return torch.tensor(bounds, dtype=torch.int64)


def validate_bounds(cu_seqlens: Tensor) -> None:
    """Raise ValueError if shape or dtype of the tensor are wrong; its values are not read."""
    if cu_seqlens.dim() != 1 or cu_seqlens.dtype not in (torch.int32, torch.int64):
        raise ValueError(
            f"cu_seqlens is {cu_seqlens.dtype} {tuple(cu_seqlens.shape)}; "
            "expected a 1-D int32 or int64 tensor"
        )


def validate_packed(op: str, x: Tensor, cu_seqlens: Tensor | Bags | None) -> None:
    """Raise ValueError if ``cu_seqlens`` cannot be bounds of bags in x (1, H, T, D)."""
    cu_seqlens = packed_argument(cu_seqlens)
    if isinstance(cu_seqlens, Tensor):
        validate_bounds(cu_seqlens)
    if cu_seqlens is not None and x.shape[0] != 1:
        raise ValueError(f"{op}: packed bags need shape (1, H, T, D), got {tuple(x.shape)}")


def as_bags(cu_seqlens: Tensor | Bags, num_rows: int) -> Bags:
    """The bags, checked. Reading a tensor on a GPU waits for the GPU.

    Args:
        cu_seqlens: (B + 1,) integer bounds, as a tensor or plain numbers; or bags, of which only
            the end is checked.
        num_rows: T, where the last bag must end.

    Raises:
        ValueError: not a 1-D integer tensor that rises from 0 to T; equal neighbours are allowed.
    """
    cu_seqlens = packed_argument(cu_seqlens)
    if isinstance(cu_seqlens, Bags):
        if cu_seqlens.num_rows != num_rows:
            raise ValueError(f"the bags have {cu_seqlens.num_rows} rows; expected {num_rows}")
        return cu_seqlens
    validate_bounds(cu_seqlens)
    bounds = cu_seqlens.tolist()
    if not bounds or bounds[0] != 0 or bounds[-1] != num_rows or bounds != sorted(bounds):
        raise ValueError(
            f"cu_seqlens must rise from 0 to the number of tokens {num_rows}, got {bounds}"
        )
    return Bags(tuple(bounds), cu_seqlens)


def operands(
    cu_seqlens: Tensor | Bags | None, num_rows: int
) -> tuple[Tensor | None, list[int] | None]:
    """The bounds as registered operators take them: a tensor, and numbers where they are known.

    The numbers are not given while a compiler traces (it would compile once for each set of
    numbers) and while a CUDA graph is captured (a copy from the GPU would end the capture). Of
    :class:`Bags` they are then an empty list, which means that they need no check. Of a tensor they
    are None, and the operator reads it.

    Raises:
        ValueError: as :func:`as_bags`.
    """
    cu_seqlens = packed_argument(cu_seqlens)
    if cu_seqlens is None:
        return None, None
    tensor = cu_seqlens.cu_seqlens if isinstance(cu_seqlens, Bags) else cu_seqlens
    if torch.compiler.is_compiling() or (
        tensor.is_cuda and torch.cuda.is_current_stream_capturing()
    ):
        return tensor, [] if isinstance(cu_seqlens, Bags) else None
    return tensor, list(as_bags(cu_seqlens, num_rows).bounds)


def spans_of(
    cu_seqlens: Tensor | None, bounds: list[int] | None, num_rows: int
) -> list[tuple[int, int]] | None:
    """(start, stop) of each bag, from the operands of an operator; None if nothing is packed."""
    if cu_seqlens is None:
        return None
    return list(pairwise(bounds)) if bounds else as_bags(cu_seqlens, num_rows).spans


def bag_slices(x: Tensor, spans: list[tuple[int, int]] | None) -> list[tuple[int, slice]]:
    """Where each bag lies in x (B, H, N, D) or packed (1, H, T, D): entry of the batch, tokens."""
    if spans is None:
        return [(entry, slice(0, x.shape[2])) for entry in range(x.shape[0])]
    return [(0, slice(start, stop)) for start, stop in spans]


def aligned(x: Tensor) -> Tensor:
    """The tensor, copied if it does not start where torch would have put a tensor of its own.

    Products may round in another order elsewhere, and a row of a batch may lie anywhere.
    """
    return x if is_transformed(x) or x.data_ptr() % ALIGNMENT == 0 else x.clone()


def lengths_within(counts: Sequence[int], most: int) -> list[int]:
    """How many neighbours to take together, so that their counts add up to at most ``most``.

    One whose count is larger is taken alone.
    """
    lengths, total = [], most
    for count in counts:
        if total + count > most:
            lengths.append(0)
            total = 0
        lengths[-1] += 1
        total += count
    return lengths
