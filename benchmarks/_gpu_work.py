"""Work on a GPU: a case of Nyström attention, and how torch's own operations are recorded.

An operation that would start a kernel is one piece of work: its operands and results are read or
written once, and its flop are those of torch's own formulas. An operation that torch makes several
kernels of counts as one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
# Operations that only make a tensor, or look at one in another way.
NO_KERNEL = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided",
             "_unsafe_view", "_reshape_alias", "detach", "lift_fresh"}  # fmt: skip
# Rows and columns of a tile of a library's products, which reads its operands once for each.
TILE = 128


@dataclass(frozen=True)
class Case:
    """Bags of one length, in a batch or packed, of more tokens than landmarks."""

    batch: int
    tokens: int
    packed: bool = False
    heads: int = 8
    head_dim: int = 64
    landmarks: int = 256
    dtype: str = "bf16"

    def __post_init__(self) -> None:
        if self.tokens <= self.landmarks:
            raise ValueError(
                f"{self.tokens} tokens and {self.landmarks} landmarks: the model is of bags with "
                "more tokens than landmarks"
            )

    def __str__(self) -> str:
        return f"{self.batch}x{self.tokens}" + ("-packed" if self.packed else "")

    @property
    def rows(self) -> int:
        return self.batch * self.tokens

    @property
    def matrices(self) -> int:
        return self.batch * self.heads

    @property
    def bytes_of_rows(self) -> int:
        """One of q, k, v and the output."""
        return self.rows * self.heads * self.head_dim * DTYPES[self.dtype].itemsize


@dataclass(frozen=True)
class Work:
    """What one kernel, or one operation of torch, has to do.

    Attributes:
        unit: of its products, as in ``Device.rate``.
        expected: the field of ``Device`` with the part of the peak that is expected of it.
        programs: None if unknown.
        steps: after which programs wait for each other, ``STEP_US`` each.
        busy: part of the multiprocessors that has products to compute; None if it follows from
            ``programs``.
        config: tiles and warps of a kernel of ours.
    """

    name: str
    flop: int
    unit: str
    expected: str
    memory_bytes: int
    l2_bytes: int
    programs: int | None = None
    steps: int = 0
    busy: float | None = None
    config: Any = None


class Recorder(TorchDispatchMode):
    """Keeps every operation that would start a kernel, as work."""

    def __init__(self) -> None:
        super().__init__()
        self.works: list[Work] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        name = func.overloadpacket.__name__
        # Of namespace "prim" are questions to a tensor, such as that for its device.
        if not func.is_view and name not in NO_KERNEL and func.namespace != "prim":
            tensors = [x for x in tree_leaves((args, kwargs, out)) if isinstance(x, Tensor)]
            counted = sum(map(size, {id(x): x for x in tensors}.values()))
            formula = flop_registry.get(func.overloadpacket)
            flop = formula(*args, **kwargs, out_val=out) if formula else 0
            unit = "half" if tensors and tensors[0].dtype.itemsize == 2 else "ieee"
            again = flop // TILE * tensors[0].element_size() if name.endswith("mm") else 0
            self.works.append(Work(name, flop, unit, "library", counted, counted + again))
        return out


def size(x: Tensor) -> int:
    """Bytes of a tensor; those of an expanded one lie in memory once."""
    return min(x.numel() * x.element_size(), x.untyped_storage().nbytes())
