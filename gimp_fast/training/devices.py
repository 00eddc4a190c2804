"""Where a model runs."""

from __future__ import annotations

import torch

from gimp_fast.errors import GimpError


def choose_device(name: str) -> torch.device:
    """The device called `name`; ``"auto"`` is a GPU if there is one. GimpError if there is none."""
    asked = name
    if name == "auto":
        asked = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(asked)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise GimpError(f"device '{name}' cannot be used: {error}") from error
    return device
