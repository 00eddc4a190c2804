"""What one Nyström layer asks of a GPU in training, counted where there is no GPU.

The layer runs on tensors without data, on the "meta" device, under what autocast to bf16 does on a
GPU. Counted are the kernels of this package, torch's operators that start a kernel, and waits for
the GPU. An operator of torch counts once, though a few start two kernels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from gimp_fast.kernels import launch as launching
from gimp_fast.nn import NystromAttention
from gimp_fast.nn.layer_norm import LayerNorm
from gimp_fast.ops.packing import Bags
from gimp_fast.ops.registration import implementations

# Operators that start no kernel, though their schema does not say so.
FREE = {
    "empty", "empty_strided", "empty_like", "new_empty", "new_empty_strided", "_unsafe_view",
    "promote_types",
}  # fmt: skip
# Operators whose result the processor needs, so that it waits for the GPU.
WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2"}


@dataclass
class Counts:
    """How often each kernel of the package, each operator and each wait occurred.

    ``largest_cast`` is the number of elements of the largest tensor that changed its dtype.
    """

    launches: Counter[str] = field(default_factory=Counter)
    operators: Counter[str] = field(default_factory=Counter)
    waits: Counter[str] = field(default_factory=Counter)
    largest_cast: int = 0

    @property
    def device_operations(self) -> int:
        return self.launches.total() + self.operators.total()


class _Counting(TorchDispatchMode):
    """Counts operators, and runs those of the package as a GPU would."""

    def __init__(self, counts: Counts):
        super().__init__()
        self.counts = counts

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in implementations:
            with self:
                return implementations[func](*args, **kwargs)
        name = func.overloadpacket.__name__
        waits = (
            name in WAITS or _crosses_devices(args, kwargs) or _has_unknown_size(func, args, kwargs)
        )
        # Counted first: without data, most of them fail.
        if waits:
            self.counts.waits[name] += 1
        elif name not in FREE and not _is_view(func):
            self.counts.operators[name] += 1
        if name == "_to_copy":
            self.counts.largest_cast = max(self.counts.largest_cast, args[0].numel())
        return func(*args, **kwargs)


class _Creating(TorchFunctionMode):
    """Counts tensors that are made on the GPU from numbers: copies that wait."""

    def __init__(self, counts: Counts):
        super().__init__()
        self.counts = counts

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in (torch.tensor, torch.as_tensor) and _is_gpu(kwargs.get("device")):
            self.counts.waits[func.__name__] += 1
        return func(*args, **kwargs)


@contextmanager
def counting(counts: Counts) -> Iterator[None]:
    """Count what this thread asks of the GPU, except launches of the package's kernels."""
    with _Creating(counts), _Counting(counts):
        yield


def _is_view(func: Any) -> bool:
    returns = func._schema.returns
    return bool(returns) and all(x.alias_info and not x.alias_info.is_write for x in returns)


def _is_gpu(device: torch.device | str | None) -> bool:
    return device is not None and torch.device(device).type == "meta"


def _crosses_devices(args: tuple, kwargs: dict[str, Any]) -> bool:
    """True for a copy to the processor or, from memory that is not pinned, to the GPU."""
    devices = [x.device for x in args[:2] if isinstance(x, torch.Tensor) and x.dim()]
    if devices and kwargs.get("device") is not None:
        devices.append(torch.device(kwargs["device"]))
    return len(set(devices)) > 1


def _has_unknown_size(func: Any, args: tuple, kwargs: dict[str, Any]) -> bool:
    """True for ``x[mask]``, and for repetitions, unless the size of the result is given."""
    if func is torch.ops.aten.repeat_interleave.Tensor:
        return kwargs.get("output_size") is None
    indices = (
        args[1] if func.overloadpacket.__name__ in ("index", "index_put", "index_put_") else ()
    )
    return any(x is not None and x.dtype == torch.bool for x in indices)


class _Autocast(TorchFunctionMode):
    """Casts as CUDA's autocast to bf16 does, with one cast of each weight for a pass."""

    def __init__(self) -> None:
        super().__init__()
        self.enabled = True
        self.weights: dict[torch.Tensor, torch.Tensor] = {}

    @contextmanager
    def set(self, device_type: str, *, enabled: bool) -> Iterator[None]:
        """In place of ``torch.autocast``."""
        before, self.enabled = self.enabled, enabled
        yield
        self.enabled = before

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if not self.enabled:
            return func(*args, **(kwargs or {}))
        if func is F.linear:
            args = tuple(self._bf16(x) if isinstance(x, torch.Tensor) else x for x in args)
        elif func is F.layer_norm:
            args = tuple(x.float() if isinstance(x, torch.Tensor) else x for x in args)
        return func(*args, **(kwargs or {}))

    def _bf16(self, x: torch.Tensor) -> torch.Tensor:
        if not isinstance(x, nn.Parameter):
            return x.bfloat16()
        if x not in self.weights:
            self.weights[x] = x.bfloat16()
        return self.weights[x]


@contextmanager
def pretended_gpu(capability: int) -> Iterator[_Autocast]:
    """Let the package take the "meta" device for a GPU, with this autocast."""
    autocast = _Autocast()
    with ExitStack() as stack:
        for target, value in (
            ("torch.is_autocast_enabled", lambda *_: autocast.enabled),
            ("torch.get_autocast_dtype", lambda *_: torch.bfloat16),
            ("torch.autocast", autocast.set),
            ("gimp_fast.ops.backends._why_not", lambda *_, **__: None),
            ("gimp_fast.kernels.launch._capability", lambda device: capability),
        ):
            stack.enter_context(mock.patch(target, value))
        yield autocast


def count_layer(
    bags: int, tokens: int, *, packed: bool = False, dim: int = 512, heads: int = 8,
    landmarks: int = 256, capability: int = 90,
) -> Counts:  # fmt: skip
    """Forward and backward pass of x + attention(norm(x)), projections and convolution included.

    Args:
        bags, tokens: bags, and tokens of each; packed one after the other or as a batch.
        capability: compute capability of the pretended GPU, e.g. 90 for 9.0.
    """
    counts = Counts()
    shape = (1, bags * tokens, dim) if packed else (bags, tokens, dim)
    x = torch.empty(shape, dtype=torch.bfloat16, device="meta", requires_grad=True)
    layer = NystromAttention(dim, dim // heads, heads, landmarks).to("meta")
    norm = LayerNorm(dim, device="meta")
    given = Bags.of_equal(bags, tokens, "meta") if packed else None
    with (
        pretended_gpu(capability) as autocast,
        launching.recording() as launches,
        counting(counts),
    ):
        with autocast:
            out = x + layer(norm(x), cu_seqlens=given)
        out.backward(torch.empty_like(out))
    counts.launches.update(made.name for made in launches)
    return counts


if __name__ == "__main__":
    found = count_layer(8, 6000)
    for name in ("launches", "operators", "waits"):
        counter = getattr(found, name)
        print(name, counter.total(), dict(counter))
