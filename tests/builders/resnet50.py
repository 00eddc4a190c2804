"""A truncated ResNet50 whose weights can be written down again."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from gimp_fast.wsi.resnet50 import TruncatedResNet50


def formula_state(network: nn.Module) -> dict[str, Tensor]:
    """Weights by formula, of a size at which the network stays tame."""
    state = network.state_dict()
    return {key: formula(key, tuple(v.shape)) if v.ndim else v for key, v in state.items()}


def formula_network() -> TruncatedResNet50:
    network = TruncatedResNet50().eval()
    network.load_state_dict(formula_state(network))
    return network


def formula(name: str, shape: tuple[int, ...]) -> Tensor:
    """The weight of this name and shape."""
    i = torch.arange(math.prod(shape), dtype=torch.float64)
    if name.endswith("running_var"):
        value = 1 + 0.5 * torch.sin(i)
    elif name.endswith(("running_mean", "bias")):
        value = 0.1 * torch.sin(1.7 * i)
    elif "bn" in name or "downsample.1" in name:
        value = 0.4 + 0.2 * torch.sin(0.9 * i)
    else:
        scale = 1.4 * math.sqrt(2 * shape[1] / len(i))
        value = torch.sin(i * i * 0.37 + len(name)) * scale
    return value.float().reshape(shape)
