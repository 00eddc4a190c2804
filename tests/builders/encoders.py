"""Published files of encoders in small: tensors by formula, under the names that tools write."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from gimp_fast.wsi.encoders.presets import PRESETS, Preset

DIM, DEPTH = 48, 2
Shapes = dict[str, tuple[int, ...]]


def small(name: str, **arguments: object) -> Preset:
    """A preset with a network of two blocks of 48 channels, or with other arguments."""
    preset = PRESETS[name]
    arguments = arguments or {"embed_dim": DIM, "depth": DEPTH}
    return replace(preset, arguments={**preset.arguments, **arguments})


def by_formula(shapes: Mapping[str, tuple[int, ...]], tables: float = 1.0) -> dict[str, Tensor]:
    """A tensor for each name; those of two or more dimensions are multiplied by ``tables``."""
    return {name: _formula(name, shape) * (tables if len(shape) > 1 else 1)
            for name, shape in shapes.items()}  # fmt: skip


def _formula(name: str, shape: tuple[int, ...]) -> Tensor:
    i = torch.arange(math.prod(shape), dtype=torch.float64)
    value = 0.3 * torch.sin(i * i * 0.37 + i * 1.3 + sum(name.encode()) % 97)
    return (value + ("running_var" in name)).reshape(shape).float()


def image(side: int = 224) -> Tensor:
    return torch.sin(torch.arange(3 * side * side, dtype=torch.float32) * 0.013).reshape(
        1, 3, side, side
    )


def of_transformers(kind: str, patch: int, registers: int = 0, hidden: int = 4 * DIM) -> Shapes:
    """Names and shapes that transformers writes for ViTModel (``vit``) and Dinov2Model."""
    shapes: Shapes = {
        "embeddings.cls_token": (1, 1, DIM),
        "embeddings.position_embeddings": (1, 1 + (224 // patch) ** 2, DIM),
        "embeddings.patch_embeddings.projection.weight": (DIM, 3, patch, patch),
        "embeddings.patch_embeddings.projection.bias": (DIM,),
        "layernorm.weight": (DIM,),
        "layernorm.bias": (DIM,),
    }
    if kind != "vit":
        shapes["embeddings.mask_token"] = (1, DIM)
    if registers:
        shapes["embeddings.register_tokens"] = (1, registers, DIM)
    first, second, norms = {
        "vit": ("intermediate.dense", "output.dense", ("layernorm_before", "layernorm_after")),
        "dinov2": ("mlp.fc1", "mlp.fc2", ("norm1", "norm2")),
        "swiglu": ("mlp.weights_in", "mlp.weights_out", ("norm1", "norm2")),
    }[kind]
    inner = hidden // 2 if kind == "swiglu" else hidden
    maps = {f"attention.attention.{part}": (DIM, DIM) for part in ("query", "key", "value")}
    maps |= {"attention.output.dense": (DIM, DIM), first: (hidden, DIM), second: (DIM, inner)}
    for block in range(DEPTH):
        start = f"encoder.layer.{block}."
        for name, shape in maps.items():
            shapes |= {f"{start}{name}.weight": shape, f"{start}{name}.bias": shape[:1]}
        for norm in norms:
            shapes |= {f"{start}{norm}.weight": (DIM,), f"{start}{norm}.bias": (DIM,)}
        if kind != "vit":
            shapes |= {f"{start}layer_scale{n}.lambda1": (DIM,) for n in (1, 2)}
    return shapes


def of_older_timm(network: nn.Module) -> Shapes:
    """Names and shapes that timm 0.5.4 wrote for a Swin Transformer."""

    def older(name: str) -> str:
        return re.sub(
            r"layers\.(\d)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample", name
        )

    return {older(name): tuple(value.shape) for name, value in network.state_dict().items()
            if value.is_floating_point()}  # fmt: skip
