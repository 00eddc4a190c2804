"""Time that the processor takes for Nyström attention on a GPU, measured where there is no GPU.

Tensors without data, on the "meta" device, stand for those of a GPU. A launch ends where Triton
would call the driver. So all of our Python is in the time, and torch's dispatcher and autograd. Not
in it: the driver, about 2 µs a launch; the choice of a backend; torch's allocator, about 1 µs a
tensor more than here; and the wait for autograd's own thread.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

from gimp_fast.kernels import launch as launching
from gimp_fast.kernels.landmarks import _landmarks_fwd_kernel
from gimp_fast.ops import backends, nystrom_attention, registration

MULTIPROCESSORS = 132


def host_ms(
    batch: int,
    tokens: int,
    heads: int,
    head_dim: int,
    landmarks: int,
    dtype: torch.dtype,
    *,
    capability: int = 90,
    repeats: int = 30,
) -> float:
    """Median milliseconds of a forward and a backward pass of ``nystrom_attention``."""
    step = operator_step(batch, tokens, heads, head_dim, landmarks, dtype)
    with pretended_gpu(capability):
        times = []
        for _ in range(repeats + 3):
            begun = time.perf_counter()
            step()
            times.append(time.perf_counter() - begun)
    return 1e3 * statistics.median(times[3:])


def operator_step(
    batch: int, tokens: int, heads: int, head_dim: int, landmarks: int, dtype: torch.dtype
) -> Callable[[], None]:
    """A forward and a backward pass; q, k and v are views of one tensor, as in a layer."""
    qkv = torch.empty(batch, tokens, 3, heads, head_dim, dtype=dtype, device="meta")
    inputs = [x.transpose(1, 2).requires_grad_() for x in qkv.unbind(2)]
    grad = torch.empty(batch, tokens, heads, head_dim, dtype=dtype, device="meta").transpose(1, 2)

    def step() -> None:
        out = nystrom_attention(*inputs, num_landmarks=landmarks, backend="triton")
        torch.autograd.grad(out, inputs, grad)

    return step


@contextmanager
def pretended_gpu(capability: int) -> Iterator[None]:
    """Let Triton's backend run on "meta" tensors, as if on a GPU, up to the driver.

    Raises:
        RuntimeError: kernels are interpreted in this process.
    """
    if not isinstance(_landmarks_fwd_kernel, JITFunction):
        raise RuntimeError("host time is that of compiled kernels; unset TRITON_INTERPRET")
    compiled = SimpleNamespace(run=lambda *arguments: None, function=0, packed_metadata=())
    here = SimpleNamespace(get_current_device=lambda: 0, get_current_stream=lambda device: 0)
    active = driver._active
    with ExitStack() as stack:
        stack.callback(driver.set_active, active)
        driver.set_active(here)
        for target, name, value in (
            (launching, "_compiled", {}),
            (launching, "_capability", lambda device: capability),
            (launching, "_multiprocessors", lambda device: MULTIPROCESSORS),
            (launching.Launch, "make", lambda launch: compiled),
            (registration, "_is_plain", lambda x: True),
            (backends, "_why_not", lambda *_, **__: None),
            # On "meta", torch makes these in Python, which takes 8 to 60 µs; a GPU needs 2 to 5.
            (torch.Tensor, "new_empty", _new),
            (torch.Tensor, "new_zeros", _new),
            (torch, "zeros_like", lambda like: _new(like, like.shape)),
            (torch, "empty_like", lambda like: _new(like, like.shape)),
        ):
            stack.enter_context(mock.patch.object(target, name, value))
        yield


def _new(like: torch.Tensor, *size: Any, dtype: torch.dtype | None = None) -> torch.Tensor:
    return torch.empty(*size, dtype=dtype or like.dtype, device="meta")
