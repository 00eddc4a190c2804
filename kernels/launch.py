"""How kernels are launched: one tested configuration for each architecture, no tuning at run time.

Every launch goes through :func:`launch`. Under :func:`recording` it is kept and not made, so that a
GPU need not be present to count launches or to compile them.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

from gimp_fast.kernels.compiled import Compiled, is_watched, specialization


@dataclass(frozen=True)
class Config:
    """Tile sizes and resources of one kernel.

    Attributes:
        tokens: rows of a tile along the tokens (of a product: along the output's rows).
        landmarks: rows of a tile along the landmarks (of a product: along the output's columns).
    """

    tokens: int
    landmarks: int
    num_warps: int
    num_stages: int


# family -> (head dim up to 64, head dim up to 128); larger heads take the safe configuration.
# "reduce" kernels sum over tokens for a tile of landmarks, "rows" kernels give a tile of tokens.
# Each is the largest that spills no register; on sm_86 a block has 99 KB of shared memory.
# "all" kernels hold all landmarks of a head: up to their number here, of a head dim in ALL_DIMS.
HALF_AMPERE = {
    "reduce": (Config(64, 64, 4, 3), Config(64, 64, 8, 2)),
    "rows": (Config(64, 64, 4, 3), Config(64, 32, 8, 2)),
    "reduce_bwd": (Config(64, 32, 4, 2), Config(32, 32, 4, 2)),
    "rows_bwd": (Config(32, 64, 4, 2), Config(64, 32, 8, 2)),
}
HALF_HOPPER = {
    "reduce": (Config(64, 64, 4, 3), Config(64, 64, 8, 3)),
    "rows": (Config(128, 64, 8, 3), Config(64, 64, 8, 3)),
    "reduce_bwd": (Config(64, 64, 8, 2), Config(64, 64, 8, 2)),
    "rows_bwd": (Config(64, 64, 8, 2), Config(64, 64, 8, 2)),
}
# Compilers for Blackwell leave fewer registers to a few kernels.
HALF_SM100 = HALF_HOPPER | {
    "rows": (Config(64, 64, 4, 3), Config(64, 64, 8, 3)),
    "reduce_bwd": (Config(64, 64, 8, 2), Config(64, 32, 8, 2)),
}
HALF_SM120 = HALF_AMPERE | {
    "reduce": (Config(64, 64, 4, 3), Config(64, 64, 8, 3)),
    "reduce_bwd": (Config(64, 32, 8, 2), Config(32, 32, 4, 2)),
}
SINGLE_IEEE = {
    "reduce": (Config(32, 32, 4, 2), Config(16, 32, 8, 2)),
    "rows": (Config(32, 32, 4, 2), Config(16, 32, 4, 2)),
    "reduce_bwd": (Config(32, 32, 8, 1), Config(16, 32, 8, 2)),
    "rows_bwd": (Config(16, 32, 4, 1), Config(16, 32, 4, 2)),
}
SINGLE_TF32X3 = {
    "reduce": (Config(32, 32, 8, 2), Config(32, 16, 8, 1)),
    "rows": (Config(16, 32, 4, 1), Config(16, 32, 8, 1)),
    "reduce_bwd": (Config(32, 32, 8, 1), Config(32, 16, 8, 1)),
    "rows_bwd": (Config(32, 32, 8, 1), Config(16, 32, 8, 1)),
}
# A tile of 64 × 64 scores reads 16 KB from the L2 cache, which takes a Hopper longer than its
# products; with all 256 landmarks it reads a quarter. Smaller GPUs are limited by the products, and
# lack the registers, as Blackwell does in the backward pass.
ALL_HOPPER = {
    "all_reduce": (Config(64, 256, 16, 3),),
    "all_rows": (Config(64, 256, 4, 2),),
    "all_reduce_bwd": (Config(64, 256, 8, 2),),
    "all_rows_bwd": (Config(32, 256, 8, 2),),
}
ALL_SM100 = {"all_reduce": (Config(64, 256, 8, 3),), "all_rows": (Config(64, 256, 4, 2),)}
# Rows of other head dims need masks, and their addresses too many registers.
ALL_DIMS = (16, 32, 64)
PRODUCT = Config(64, 64, 8, 3)
# Fits the 48 KB of shared memory that every GPU has.
SAFE = Config(16, 16, 4, 1)


@dataclass(frozen=True)
class Architecture:
    """What the kernels need to know about a GPU.

    Attributes:
        half: configurations for bf16 and fp16, by family.
        single: configurations for fp32, by family.
        product: configuration of M×M products.
        precision: of fp32 products: ``"ieee"``, or ``"tf32x3"`` where three TF32 products on tensor
            cores are faster than one on the fp32 units. Both are as accurate as fp32.
        half_product: configuration of M×M products of fp16 operands, if it is another one.
    """

    half: dict[str, tuple[Config, ...]]
    single: dict[str, tuple[Config, ...]]
    product: Config
    precision: str
    half_product: Config | None = None


ARCHITECTURES = {
    80: Architecture(HALF_AMPERE, SINGLE_TF32X3, Config(32, 64, 4, 3), "tf32x3", PRODUCT),
    86: Architecture(HALF_AMPERE, SINGLE_IEEE, PRODUCT, "ieee"),
    89: Architecture(HALF_AMPERE, SINGLE_IEEE, PRODUCT, "ieee"),
    90: Architecture(
        HALF_HOPPER | ALL_HOPPER, SINGLE_TF32X3, PRODUCT, "tf32x3", Config(128, 64, 8, 3)
    ),
    100: Architecture(HALF_SM100 | ALL_SM100, SINGLE_TF32X3, Config(32, 64, 4, 3), "tf32x3"),
    120: Architecture(HALF_SM120, SINGLE_IEEE, PRODUCT, "ieee"),
}
UNKNOWN = Architecture({}, {}, Config(32, 32, 4, 1), "ieee")


def architecture(device: torch.device) -> Architecture:
    """The entry of a device in the table; safe settings for a GPU that is not in it."""
    return ARCHITECTURES.get(_capability(device), UNKNOWN)


@functools.cache
def _capability(device: torch.device) -> int | None:
    """Compute capability, e.g. 86 for 8.6; None if this is no GPU."""
    if device.type != "cuda":
        return None
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


# Steps of the pseudo-inverse whose operands surely fit fp16: see ``gimp_fast.kernels.pinv_range``.
LONGEST_HALF_CHAIN = 6


def inverse_precision(arch: Architecture, dtype: torch.dtype, iterations: int) -> str:
    """Precision of the pseudo-inverse's products, by the dtype of q.

    bf16 has three bits fewer than fp16: operands in fp16 add at most a tenth to the error. For q in
    fp16 they would lose accuracy, and long chains could leave the range of fp16.
    """
    half = dtype == torch.bfloat16 and iterations <= LONGEST_HALF_CHAIN
    return "fp16" if half else arch.precision


def choose(arch: Architecture, family: str, dtype: torch.dtype, head_dim: int) -> Config:
    """Configuration of a kernel family for this dtype and head dim."""
    table = arch.single if dtype == torch.float32 else arch.half
    if family not in table or head_dim > 128:
        return SAFE
    config = table[family][0 if head_dim <= 64 else 1]
    # Tiles of small heads are small: a third one in flight costs registers and gains nothing.
    return replace(config, num_stages=min(config.num_stages, 2)) if head_dim <= 32 else config


def choose_all(
    arch: Architecture, family: str, dtype: torch.dtype, head_dim: int, num_landmarks: int
) -> Config | None:
    """Configuration of a kernel that holds all landmarks of a head; None if they do not fit.

    Their number is that of the call, not of a short bag, whose bits must not depend on its batch.
    """
    table = arch.single if dtype == torch.float32 else arch.half
    if family not in table or head_dim not in ALL_DIMS:
        return None
    (config,) = table[family]
    if num_landmarks > config.landmarks:
        return None
    # The matrix instructions of Hopper take 64 rows.
    return replace(config, landmarks=max(64, 1 << (num_landmarks - 1).bit_length()))


@dataclass(frozen=True)
class Launch:
    """One launch of a kernel.

    Attributes:
        kernel: the Triton function.
        grid: programs along each axis.
        arguments: tensors and numbers, in the kernel's order.
        constants: its compile-time arguments, by name.
        cooperative: whether its programs wait for each other, and must all run at the same time.
    """

    kernel: Any
    grid: tuple[int, ...]
    config: Config
    arguments: tuple[Any, ...]
    constants: dict[str, Any]
    cooperative: bool

    @property
    def name(self) -> str:
        return self.kernel.__name__

    @property
    def options(self) -> dict[str, Any]:
        """How Triton is to compile and launch it."""
        options: dict[str, Any] = {
            "num_warps": self.config.num_warps,
            "num_stages": self.config.num_stages,
        }
        return options | {"launch_cooperative_grid": True} if self.cooperative else options

    def make(self) -> Any:
        """Launch it as Triton does; returns the compiled kernel, None if it is interpreted."""
        return self.kernel[self.grid](*self.arguments, **self.constants, **self.options)


@dataclass(frozen=True)
class _Recording:
    multiprocessors: int
    launches: list[Launch] = field(default_factory=list)


_recordings: list[_Recording] = []


@contextmanager
def recording(multiprocessors: int = 132) -> Iterator[list[Launch]]:
    """Keep launches in the list that this gives, and make none, as if for a GPU of this size.

    The tensors may be on any device, "meta" included; what kernels would write is left as it is.
    """
    _recordings.append(_Recording(multiprocessors))
    try:
        yield _recordings[-1].launches
    finally:
        _recordings.pop()


def multiprocessors(device: torch.device) -> int:
    """Blocks that surely run at the same time on a device."""
    return _recordings[-1].multiprocessors if _recordings else _multiprocessors(device)


@functools.cache
def _multiprocessors(device: torch.device) -> int:
    if device.type != "cuda":
        return 1
    return torch.cuda.get_device_properties(device).multi_processor_count


def ceil_div(a: int, b: int) -> int:
    """⌈a / b⌉; Triton's own takes 4 µs outside a kernel."""
    return -(-a // b)


# Kernels that have been launched, by all that Triton compiles them for.
_compiled: dict[tuple[Any, ...], Compiled] = {}


def launch(
    kernel: Any,
    grid: tuple[int, ...],
    config: Config,
    *args: Any,
    cooperative: bool = False,
    **constants: Any,
) -> None:
    """Run a kernel, unless its grid is empty.

    ``cooperative`` blocks wait for each other: they must all run at the same time. The first launch
    of each kind is Triton's own; it compiles the kernel, which is kept for those that follow.
    """
    if 0 in grid:
        return
    if _recordings:
        made = Launch(kernel, grid, config, args, constants, cooperative)
        _recordings[-1].launches.append(made)
        return
    if not isinstance(kernel, JITFunction):  # interpreted
        Launch(kernel, grid, config, args, constants, cooperative).make()
        return
    active = driver.active
    device = active.get_current_device()
    key = (
        id(kernel), device, config.num_warps, config.num_stages, cooperative,
        *constants, *constants.values(), *specialization(kernel, args),
    )  # fmt: skip
    found = _compiled.get(key)
    if found is not None and not is_watched():
        found.launch(grid, active.get_current_stream(device), args)
        return
    compiled = Launch(kernel, grid, config, args, constants, cooperative).make()
    _compiled[key] = Compiled.of(compiled, kernel, len(args), constants)
