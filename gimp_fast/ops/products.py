"""Matrix products: by the faster of torch's two CPU libraries, and how threads share the work.

``product_library`` says which library that is. oneDNN takes one matrix at a time and pays only for
products that are not tiny.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor

from gimp_fast.ops import native_linear
from gimp_fast.ops.product_library import ONEDNN, choice, onednn_product, onednn_sum

# Below so many multiply-adds, oneDNN's preparations take longer than MKL's work.
SMALLEST = 1 << 20
# oneDNN adds up a dot product in one run, MKL in shorter ones. Rounding errors grow with the run.
LONGEST_RUN = 128
# Rows of one product of the weight's gradient. oneDNN is slow at long sums of few columns.
ROWS = 1000
# Products of fewer rows may be cut within their sums where there are more threads.
FEW_ROWS = 64


def is_fast(x: Tensor, multiply_adds: int) -> bool:
    """True if single products of this size, of tensors like x, go to oneDNN.

    Never in a compiled graph, whose compiler chooses among libraries itself.
    """
    return (
        not torch.compiler.is_compiling()
        and multiply_adds >= SMALLEST
        and x.dtype == torch.float32
        and x.device.type == "cpu"
        and choice().library == ONEDNN
    )


def product(x: Tensor, w: Tensor, add: Tensor | None = None) -> Tensor:
    """x wᵀ, or add + x wᵀ.

    Args:
        x: (G, m, k).
        w: (G, n, k), any strides.
        add: (G, m, n) or (G, 1, n).

    Returns:
        (G, m, n), a new tensor.
    """
    groups, m, k = x.shape
    if groups == 1 and is_fast(x, m * k * w.shape[1]):
        if add is None:
            return onednn_product(x, w[0])
        if add.shape[1] != m:
            return onednn_product(x, w[0], add[0, 0])
        return onednn_sum(add, x, w[0])
    if add is None:
        return torch.bmm(x, w.mT)
    return torch.baddbmm(add, x, w.mT)


def precise_product(x: Tensor, w: Tensor, add: Tensor | None = None) -> Tensor:
    """:func:`product` in runs so short that its rounding errors are as small as MKL's."""
    groups, m, k = x.shape
    if k <= LONGEST_RUN or groups > 1 or not is_fast(x, m * k * w.shape[1]):
        return product(x, w, add)
    for start in range(0, k, LONGEST_RUN):
        run = slice(start, start + LONGEST_RUN)
        # oneDNN has no fast code for some of the columns of w.
        columns = w[..., run] if w.stride(-1) != 1 else w[..., run].contiguous()
        add = product(x[..., run], columns, add)
    return add


def linear(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, longest: int | None = None
) -> Tensor:
    """``torch.nn.functional.linear``, by our own operators or oneDNN where they are faster.

    Args:
        x: (..., C).
        weight: (O, C).
        bias: (O,).
        longest: as in :func:`native_linear.takes`.

    Returns:
        (..., O).
    """
    if native_linear.takes(x, weight, bias, longest):
        return native_linear.linear(x, weight, bias)
    if (
        not is_fast(x, x.numel() * weight.shape[0])
        or weight.dtype != x.dtype
        or torch.is_autocast_enabled("cpu")
    ):
        return F.linear(x, weight, bias)
    return _Linear.apply(x, weight, bias)


@contextmanager
def one_thread() -> Iterator[None]:
    """Lets torch compute on one thread only."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def steady_threads(x: Tensor, *, training: bool) -> AbstractContextManager[None]:
    """A context in which products with the rows of x are the same for any number of threads.

    Args:
        x: (..., C). Few rows get one thread. Products of many rows are cut between rows, where it
            changes nothing.
        training: nothing is promised then, and nothing done.
    """
    few = x.numel() < FEW_ROWS * max(x.shape[-1], 1)
    if training or not few or x.device.type != "cpu" or torch.compiler.is_compiling():
        return nullcontext()
    return one_thread() if torch.get_num_threads() > 1 else nullcontext()


class _Linear(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x, weight, bias):
        return onednn_product(x, weight, bias)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad
        grad_x = linear(grad, weight.t()) if wants_x else None
        grad_weight = _weight_grad(grad.flatten(0, -2), x.flatten(0, -2)) if wants_weight else None
        return grad_x, grad_weight, grad.flatten(0, -2).sum(0) if wants_bias else None


def weight_grad(grad: Tensor, x: Tensor) -> Tensor:
    """gradᵀ x of (R, O) and (R, C), which share a dtype, in at least fp32. Not differentiable.

    On a CPU, half-precision products are rounded to half precision first: torch has no other kind.
    """
    if is_fast(x, x.numel() * grad.shape[1]):
        return _weight_grad(grad, x)
    if x.is_cuda and x.dtype in (torch.float16, torch.bfloat16):
        return torch.mm(grad.t(), x, out_dtype=torch.float32)
    rounded = grad.t() @ x
    return rounded.to(torch.promote_types(rounded.dtype, torch.float32))


def _weight_grad(grad: Tensor, x: Tensor) -> Tensor:
    """gradᵀ x of (R, O) and (R, C), summed over rows in a fixed order."""
    if torch.is_grad_enabled():
        return grad.t() @ x
    total = None
    for rows in chunks(len(x), ROWS):
        # The copy is small. Without it, oneDNN takes twice as long.
        pair = x[rows].t().contiguous(), grad[rows].t()
        total = onednn_product(*pair) if total is None else onednn_sum(total, *pair)
    return total.t()


def chunks(count: int, length: int) -> Iterator[slice]:
    """Slices of up to ``length`` rows that cover ``count`` rows."""
    return (slice(start, min(start + length, count)) for start in range(0, count, length))


def run_side_by_side(tasks: list[Callable[[], None]]) -> None:
    """Run independent tasks, one on each of torch's threads; raise what one of them raises.

    torch would split every single product among its threads. They would then wait for each other
    thousands of times, and much longer where another process wants the same core. The threads end
    with the call, so that a process can be forked before and after it.
    """
    threads = min(torch.get_num_threads(), len(tasks))
    if threads <= 1:
        for task in tasks:
            task()
        return
    before = torch.get_num_threads()
    # Each thread has its own number of threads, and its own modes of autograd and autocast.
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for future in [pool.submit(_without_gradients, task) for task in tasks]:
                future.result()
    finally:
        # New threads start with the last number that any thread has set.
        torch.set_num_threads(before)


def _without_gradients(task: Callable[[], None]) -> None:
    with torch.no_grad():
        task()
