"""What the operators share: their place in torch's dispatcher, their dtypes and memory layout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

NAMESPACE = "gimp_fast"

# What each operator of this package runs.
implementations: dict[torch._ops.OpOverload, Callable] = {}


def operator(function: Callable) -> torch._ops.OpOverload:
    """The function, registered as ``torch.ops.gimp_fast.<its name>`` on all devices.

    Its type hints become the schema. It must not change its arguments or return one of them.
    ``torch.library.custom_op`` would do the same, but its first call imports torch's compiler,
    which takes a second and more memory (110 MB) than the attention of a slide.
    """
    name = f"{NAMESPACE}::{function.__name__}"
    torch.library.define(name, torch.library.infer_schema(function, mutates_args=()))
    torch.library.impl(name, "CompositeExplicitAutograd", function)
    overload = getattr(getattr(torch.ops, NAMESPACE), function.__name__).default
    implementations[overload] = function
    return overload


def differentiable(function: Callable, setup_context: Callable, backward: Callable) -> Callable:
    """A registered operator with a gradient, which ``torch.func`` and compilers accept too.

    Its arguments are given by position, none left out.
    """
    torch.library.register_autograd(function, backward, setup_context=setup_context)

    def forward(ctx: Any, *inputs: Any) -> Any:
        output = run_operator(function, *inputs)
        setup_context(ctx, inputs, output)
        return output

    # `torch.func` does not accept a registered gradient, and compilers do not accept these classes.
    functional = _gradient_class(
        function, forward=function, setup_context=setup_context, backward=backward
    )
    functional.generate_vmap_rule = True
    # With a context of its own torch inspects the signature at every call, which takes 50 µs.
    eager = _gradient_class(function, forward=forward, backward=backward)

    def call(*inputs: Any) -> Any:
        if torch.compiler.is_compiling():
            return function(*inputs)
        if not torch.is_grad_enabled():
            return run_operator(function, *inputs)
        transforms = torch._C._are_functorch_transforms_active()
        return (functional if transforms else eager).apply(*inputs)

    return call


def run_operator(function: torch._ops.OpOverload, *inputs: Any) -> Any:
    """The operator's results, without a gradient.

    Torch's dispatcher, which takes 7 to 20 µs, is left out where it would only call the operator.
    """
    return (implementations[function] if _is_plain(inputs[0]) else function)(*inputs)


def _is_plain(x: Tensor) -> bool:
    """False if a mode, a profiler, a transform or a subclass of tensors wants to see operators."""
    return not (
        x.is_meta
        or type(x) not in (Tensor, torch.nn.Parameter)
        or torch._C._len_torch_dispatch_stack()
        or torch._C._are_functorch_transforms_active()
        or torch.autograd._profiler_enabled()
    )


def _gradient_class(function: Callable, **members: Callable) -> type[torch.autograd.Function]:
    statics = {name: staticmethod(member) for name, member in members.items()}
    return type(function.__name__, (torch.autograd.Function,), statics)


def is_transformed(x: Tensor) -> bool:
    """True for a tensor inside a ``torch.func`` transform."""
    return torch._C._functorch.is_functorch_wrapped_tensor(x)


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype of sums and statistics of x: its own, but at least fp32."""
    return torch.promote_types(x.dtype, torch.float32)


def product_dtype(x: Tensor) -> torch.dtype:
    """The dtype of matrix products of x: autocast's where that is on, else its own."""
    if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
        return torch.get_autocast_dtype(x.device.type)
    return x.dtype


def token_major(like: Tensor) -> Tensor:
    """An empty (B, H, N, D) tensor that stores the heads of a token together.

    Merging the heads of such a tensor is free.
    """
    b, h, n, d = like.shape
    return like.new_empty(b, n, h, d).transpose(1, 2)


def on_device(x: Tensor) -> torch.cuda.device:
    """Makes the device of x current, where Triton launches; for a CPU tensor it does nothing."""
    return torch.cuda.device(x.device if x.is_cuda else -1)


def unit_stride(x: Tensor) -> Tensor:
    """x with channels that lie side by side, as kernels read them."""
    return x if x.stride(-1) == 1 else x.contiguous()
