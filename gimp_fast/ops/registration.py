"""Python functions as operators of torch's dispatcher."""

from __future__ import annotations

from collections.abc import Callable

import torch

NAMESPACE = "gimp_fast"


def operator(function: Callable) -> torch._ops.OpOverload:
    """Register a function as ``torch.ops.gimp_fast.<its name>``, on all devices.

    The types of its arguments give the schema; it changes no argument and returns none. Like
    ``torch.library.custom_op``, whose first call, however, imports torch's compiler: a second, and
    more memory (110 MB) than a slide's attention takes.
    """
    name = f"{NAMESPACE}::{function.__name__}"
    torch.library.define(name, torch.library.infer_schema(function, mutates_args=()))
    torch.library.impl(name, "CompositeExplicitAutograd", function)
    return getattr(getattr(torch.ops, NAMESPACE), function.__name__).default
