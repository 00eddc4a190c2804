"""What the peers of Nyström attention have to do on a GPU: their operations, recorded without one.

A peer runs forward and backward on fake tensors, and each of its operations is a piece of work.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from _gpu_work import Case, Recorder, Work
from _nystrom_peers import Setting, make_inputs, make_layer, step
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode

PEERS = ("exact SDPA", "two SDPA calls + pinv", "nystrom-attention")


class FlashAttention(TorchFunctionMode):
    """Fused attention is what it would be on a GPU: one operation each way."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.scaled_dot_product_attention:
            return torch.ops.aten._scaled_dot_product_flash_attention(*args, **(kwargs or {}))[0]
        return func(*args, **(kwargs or {}))


def works_of_peer(name: str, case: Case) -> list[Work]:
    """The operations of a peer's forward and backward pass, at the level of the operator.

    Bags of one length are a batch to the peers, which cannot pack.
    """
    setting = Setting(
        "op", case.dtype, "cpu", case.batch, case.heads, case.head_dim, case.landmarks
    )
    with FakeTensorMode():
        layer, given = make_layer(name, setting), make_inputs(setting, case.tokens)
        with FlashAttention(), Recorder() as recorder:
            step(layer, given, setting, backward=True)
    return recorder.works
