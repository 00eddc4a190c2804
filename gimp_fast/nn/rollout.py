"""The attention of the CLS token over patches, in one Nyström layer and through all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gimp_fast.nn.nystrom_attention import NystromAttention
from gimp_fast.nn.patch_aggregator import PatchAggregator
from gimp_fast.ops.nystrom_attention_row import nystrom_attention_left, nystrom_attention_row
from gimp_fast.ops.packing import Bags, as_bags


@dataclass
class LayerInputs:
    """The inputs of a stack of Nyström layers in one forward pass, with CLS tokens."""

    layers: Sequence[NystromAttention]  # in the order in which they run
    tokens: list[Tensor] = field(default_factory=list)  # (B, N + 1, d), or packed (1, T + B, d)
    bags: Bags | None = None  # None if the tokens are not packed

    @torch.no_grad()
    def rollout(self) -> Tensor:
        """The result of :func:`attention_rollout`."""
        is_cls = _cls_positions(self.tokens[0], self.bags)
        compute = torch.promote_types(self.tokens[0].dtype, torch.float32)
        row = is_cls.to(compute).expand(len(self.tokens[0]), -1)  # (B, N + 1), packed (1, T + B)
        for layer, x in zip(reversed(self.layers), reversed(self.tokens), strict=True):
            q, k = _queries_and_keys(layer, x)
            weights = row[:, None].expand(q.shape[:3])
            left = nystrom_attention_left(q, k, weights, **_settings(layer), cu_seqlens=self.bags)
            row = 0.5 * (row + left.mean(1))
            del q, k  # frees them before the next layer computes its own
        return _without_cls(row, self.bags)

    @torch.no_grad()
    def cls_attention(self, layer: int = -1) -> Tensor:
        """The result of :func:`cls_attention`."""
        count = len(self.layers)
        if not -count <= layer < count:
            raise ValueError(f"layer {layer} is outside the {count} layers of the aggregator")
        x, module = self.tokens[layer], self.layers[layer]
        q, k = _queries_and_keys(module, x)
        rows = nystrom_attention_row(q, k, row=0, **_settings(module), cu_seqlens=self.bags)
        return _without_cls(rows, self.bags)


@contextmanager
def layer_inputs(layers: Sequence[NystromAttention]) -> Iterator[LayerInputs]:
    """Inputs of the layers, filled while the ``with`` block runs one forward pass.

    The pass itself does not change and its output can be used too. So one pass over a slide gives
    its prediction and its map.

    Args:
        layers: all Nyström layers of one model. Each must be called once, and each bag must begin
            with its CLS token.
    """
    inputs = LayerInputs(layers)

    def record(_: nn.Module, args: tuple[Tensor], kwargs: dict[str, Any]) -> None:
        inputs.tokens.append(args[0].detach())
        cu_seqlens = kwargs["cu_seqlens"]
        inputs.bags = None if cu_seqlens is None else as_bags(cu_seqlens, args[0].shape[1])

    hooks = [layer.register_forward_pre_hook(record, with_kwargs=True) for layer in layers]
    try:
        yield inputs
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def attention_rollout(
    aggregator: PatchAggregator, patches: Tensor, *, cu_seqlens: Tensor | Bags | None = None
) -> Tensor:
    """Weight of each patch in CLS_img through all layers: attention rollout.

    The CLS row of Πₗ ½(Aₗ + I), last layer first, with Aₗ the Nyström attention matrix of layer l
    averaged over its heads (Abnar & Zuidema 2020, eq. 1). I stands for the residual connection. The
    convolution over V, which reaches only a few neighbours, is left out. The row is multiplied from
    the left, so that L layers take O(L·N·M) time and form no N×N matrix.

    Put the aggregator in ``eval()`` mode first: its dropout would act here too.

    Args:
        aggregator: the trained aggregator.
        patches: (B, N, C), or (T, C) packed bags with ``cu_seqlens``.
        cu_seqlens: (B + 1,) bounds of the packed bags, or bags.

    Returns:
        (B, N), or (T,) packed; fp32 or wider. The weight of CLS on itself is left out; with it, the
        weights sum to about one. Nyström attention can have negative weights; nothing is clipped or
        rescaled.

    Raises:
        ValueError: shapes or bounds do not fit.
    """
    with layer_inputs(aggregator.layers) as inputs:
        aggregator(patches, cu_seqlens=cu_seqlens, keep="none")
    return inputs.rollout()


@torch.no_grad()
def cls_attention(
    aggregator: PatchAggregator,
    patches: Tensor,
    *,
    layer: int = -1,
    cu_seqlens: Tensor | Bags | None = None,
) -> Tensor:
    """Attention of CLS_img over the patches in one layer, for each head.

    Mode, arguments, weights and errors are as in :func:`attention_rollout`.

    Args:
        aggregator, patches, cu_seqlens: as there.
        layer: index of the layer; negative counts from the last.

    Returns:
        (B, H, N), or (H, T) packed; fp32 or wider.

    Raises:
        ValueError: there is no such layer.
    """
    with layer_inputs(aggregator.layers) as inputs:
        aggregator(patches, cu_seqlens=cu_seqlens, keep="none")
    return inputs.cls_attention(layer)


def _queries_and_keys(layer: NystromAttention, x: Tensor) -> tuple[Tensor, Tensor]:
    """The first two thirds of the layer's projection: (B, N, d) -> (B, H, N, D) each."""
    weight = layer.to_qkv.weight.unflatten(0, (3, -1))[:2].flatten(0, 1)  # (2 H D, d)
    projected = F.linear(x, weight).unflatten(-1, (2, layer.heads, layer.dim_head))
    q, k = projected.permute(2, 0, 3, 1, 4)
    return q, k


def _settings(layer: NystromAttention) -> dict[str, int]:
    return {"num_landmarks": layer.num_landmarks, "pinv_iterations": layer.pinv_iterations}


def _cls_positions(x: Tensor, bags: Bags | None) -> Tensor:
    """Bool over the tokens of ``x``: True for the first of each bag."""
    is_cls = torch.zeros(x.shape[1], dtype=torch.bool, device=x.device)
    is_cls[0 if bags is None else bags.cu_seqlens[:-1].long()] = True
    return is_cls


def _without_cls(rows: Tensor, bags: Bags | None) -> Tensor:
    """(B, …, N + 1) -> (B, …, N), or packed (1, …, T + B) -> (…, T)."""
    if bags is None:
        return rows[..., 1:].contiguous()
    parts = [rows[0, ..., start + 1 : stop] for start, stop in bags.spans]
    return torch.cat([rows[0, ..., :0], *parts], dim=-1)
