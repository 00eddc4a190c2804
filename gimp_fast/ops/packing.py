"""Packed bags: several bags of different lengths, one after the other in one tensor."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, pairwise

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Bags:
    """Where packed bags begin and end, known to the CPU and to the device at once.

    It is made where a batch is made, and passed down: whoever plans work reads ``bounds``, whoever
    computes reads ``cu_seqlens``, and nobody copies the latter back from a GPU.

    Attributes:
        bounds: B + 1 numbers that rise from 0 to T; bag b is rows ``bounds[b]`` to ``bounds[b+1]``.
        cu_seqlens: (B + 1,) int32, the same numbers on the device of the packed rows.
    """

    bounds: tuple[int, ...]
    cu_seqlens: Tensor

    @classmethod
    def of_lengths(cls, lengths: Iterable[int], device: torch.device | str = "cpu") -> Bags:
        """Bags with so many rows each."""
        bounds = (0, *accumulate(lengths))
        return cls(bounds, torch.tensor(bounds, dtype=torch.int32, device=device))

    def __len__(self) -> int:
        return len(self.bounds) - 1

    @property
    def num_rows(self) -> int:
        """T."""
        return self.bounds[-1]

    @property
    def lengths(self) -> list[int]:
        return [stop - start for start, stop in self.spans]

    @cached_property
    def spans(self) -> list[tuple[int, int]]:
        """First and last-plus-one row of each bag."""
        return list(pairwise(self.bounds))

    @cached_property
    def with_cls(self) -> Bags:
        """The same bags with one more row at the start of each, for a CLS token."""
        bounds = tuple(bound + number for number, bound in enumerate(self.bounds))
        more = torch.arange(len(bounds), dtype=torch.int32, device=self.cu_seqlens.device)
        return Bags(bounds, self.cu_seqlens + more)

    def to(self, device: torch.device, non_blocking: bool = False) -> Bags:
        return replace(self, cu_seqlens=self.cu_seqlens.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Bags:
        return replace(self, cu_seqlens=self.cu_seqlens.pin_memory())


def validate_bounds(cu_seqlens: Tensor) -> None:
    """Raise ValueError for what is wrong with a tensor of bounds, without reading its values."""
    if cu_seqlens.dim() != 1 or cu_seqlens.dtype not in (torch.int32, torch.int64):
        raise ValueError(
            "cu_seqlens must be a 1-D int32 or int64 tensor, "
            f"got {cu_seqlens.dtype} {tuple(cu_seqlens.shape)}"
        )


def as_bags(cu_seqlens: Tensor | Bags, num_rows: int) -> Bags:
    """The bags of a tensor of bounds, checked; a tensor on a GPU is waited for.

    Args:
        cu_seqlens: (B + 1,) integer bounds; or bags, which were checked when they were made.
        num_rows: T, where the last bag has to end.

    Raises:
        ValueError: not a 1-D integer tensor from 0 to T that never falls.
    """
    if isinstance(cu_seqlens, Bags):
        if cu_seqlens.num_rows != num_rows:
            raise ValueError(f"the bags hold {cu_seqlens.num_rows} rows, got {num_rows}")
        return cu_seqlens
    validate_bounds(cu_seqlens)
    values = cu_seqlens.tolist()
    if not values or values[0] != 0 or values[-1] != num_rows or values != sorted(values):
        raise ValueError(
            f"cu_seqlens must rise from 0 to the number of tokens {num_rows}, got {values}"
        )
    return Bags(tuple(values), cu_seqlens)


def operands(
    cu_seqlens: Tensor | Bags | None, num_rows: int
) -> tuple[Tensor | None, list[int] | None]:
    """Bounds as registered operators take them: on the device, and as numbers where known.

    Numbers are left out while a compiler traces, which would compile for each of them, and while a
    CUDA graph is captured, which a copy from the GPU would end. The operator reads the tensor then.

    Raises:
        ValueError: as :func:`as_bags`.
    """
    if cu_seqlens is None:
        return None, None
    tensor = cu_seqlens.cu_seqlens if isinstance(cu_seqlens, Bags) else cu_seqlens
    if torch.compiler.is_compiling():
        return tensor, None
    if tensor.is_cuda and torch.cuda.is_current_stream_capturing():
        return tensor, None
    return tensor, list(as_bags(cu_seqlens, num_rows).bounds)


def spans_of(
    cu_seqlens: Tensor | None, bounds: list[int] | None, num_rows: int
) -> list[tuple[int, int]] | None:
    """First and last-plus-one row of each bag, from an operator's operands; None if not packed."""
    if cu_seqlens is None:
        return None
    return as_bags(cu_seqlens, num_rows).spans if bounds is None else list(pairwise(bounds))
