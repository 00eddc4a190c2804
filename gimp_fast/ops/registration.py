"""What the operators share: their place in torch's dispatcher, their dtypes and memory layout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

NAMESPACE = "gimp_fast"


def operator(function: Callable) -> torch._ops.OpOverload:
    """The function, registered as ``torch.ops.gimp_fast.<its name>`` on all devices.

    Its type hints become the schema. It must not change its arguments or return one of them.
    ``torch.library.custom_op`` would do the same, but its first call imports torch's compiler,
    which takes a second and more memory (110 MB) than the attention of a slide.
    """
    name = f"{NAMESPACE}::{function.__name__}"
    torch.library.define(name, torch.library.infer_schema(function, mutates_args=()))
    torch.library.impl(name, "CompositeExplicitAutograd", function)
    return getattr(getattr(torch.ops, NAMESPACE), function.__name__).default


def differentiable(function: Callable, setup_context: Callable, backward: Callable) -> Callable:
    """A registered operator with a gradient, which ``torch.func`` and compilers accept too."""
    torch.library.register_autograd(function, backward, setup_context=setup_context)
    members = {"forward": function, "setup_context": setup_context, "backward": backward}
    members = {name: staticmethod(member) for name, member in members.items()}
    # `torch.func` does not accept a registered gradient, and compilers do not accept this class.
    functional = type(
        function.__name__, (torch.autograd.Function,), members | {"generate_vmap_rule": True}
    )

    def call(*inputs: Any) -> Any:
        plain = not torch.is_grad_enabled() or torch.compiler.is_compiling()
        return (function if plain else functional.apply)(*inputs)

    return call


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
