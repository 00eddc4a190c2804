"""Attention layers that the Nyström benchmark compares: one interface, the same weights.

Level ``module`` is a whole layer, (B, N, C) -> (B, N, C): projections, attention, and for the
Nyström layers the convolution over V. Level ``op`` is what lies between the projections, from their
output (B, N, 3 C), of which q, k, v are views, to the merged heads (B, N, C).
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import distribution
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gimp_fast.nn import NystromAttention
from gimp_fast.ops import nystrom_attention
from gimp_fast.reference.nystrom_attention import nystrom_attention_reference, pinv_reference

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp64": torch.float64}
CONV_KERNEL = 33
PINV_ITERATIONS = 6


@dataclass(frozen=True)
class Setting:
    """What all peers share; it can be sent to another process."""

    level: str
    dtype: str
    device: str
    batch: int
    heads: int = 8
    dim_head: int = 64
    landmarks: int = 256
    cap_gb: float | None = None

    @property
    def dim(self) -> int:
        return self.heads * self.dim_head


@dataclass(frozen=True)
class Peer:
    """One way to compute the layer.

    Attributes:
        build: the layer of a setting, with random weights.
        floats: fp32 numbers that it holds at its peak, predicted from (setting, N, backward).
        exact: softmax attention, no approximation.
        compiled: passed through ``torch.compile``.
        fp32_pinv: False: under autocast its pseudo-inverse runs in half precision, and its error
            is reported without a bound.
    """

    build: Callable[[Setting], nn.Module]
    floats: Callable[[Setting, int, bool], int]
    exact: bool = False
    compiled: bool = False
    fp32_pinv: bool = True


class Layer(nn.Module):
    """Projections around ``attend(q, k, v)``, with the parameter names of nystrom-attention."""

    def __init__(self, setting: Setting, attend: Callable[..., Tensor], convolution: bool):
        super().__init__()
        self.attend = attend
        self.shape = (3, setting.heads, setting.dim_head)
        self.to_qkv, self.to_out, self.res_conv = nn.Identity(), nn.Identity(), None
        if setting.level == "op":
            return
        self.to_qkv = nn.Linear(setting.dim, 3 * setting.dim, bias=False)
        self.to_out = nn.Sequential(nn.Linear(setting.dim, setting.dim))
        if convolution:
            self.res_conv = nn.Conv2d(
                setting.heads,
                setting.heads,
                (CONV_KERNEL, 1),
                padding=(CONV_KERNEL // 2, 0),
                groups=setting.heads,
                bias=False,
            )

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.to_qkv(x).unflatten(-1, self.shape).permute(2, 0, 3, 1, 4)  # (B, H, N, D)
        out = self.attend(q, k, v)
        if self.res_conv is not None:
            out = out + self.res_conv(v)
        return self.to_out(out.transpose(1, 2).flatten(2))


def two_sdpa(q: Tensor, k: Tensor, v: Tensor, num_landmarks: int) -> Tensor:
    """Nyström attention without a library: two fused attention calls.

    Segments are balanced and nothing is padded; the segments that are longer by one come first.
    """
    if q.shape[2] <= num_landmarks:
        return F.scaled_dot_product_attention(q, k, v)
    q_marks, k_marks = _segment_means(q, num_landmarks), _segment_means(k, num_landmarks)
    values = F.scaled_dot_product_attention(q_marks, k, v)  # (B, H, M, D)
    with torch.autocast(q.device.type, enabled=False):
        scores = (q_marks.float() * q.shape[-1] ** -0.5) @ k_marks.float().mT
        values = pinv_reference(scores.softmax(-1), PINV_ITERATIONS) @ values.float()
    return F.scaled_dot_product_attention(q, k_marks, values.to(q.dtype))


def _segment_means(x: Tensor, num_landmarks: int) -> Tensor:
    length, longer = divmod(x.shape[2], num_landmarks)
    cut = longer * (length + 1)
    means = x[:, :, cut:].unflatten(2, (num_landmarks - longer, length)).mean(3)
    if longer:
        first = x[:, :, :cut].unflatten(2, (longer, length + 1)).mean(3)
        means = torch.cat([first, means], dim=2)
    return means  # (B, H, M, D)


def _gimp_fast(setting: Setting, backend: str = "auto") -> nn.Module:
    options = {
        "num_landmarks": setting.landmarks,
        "pinv_iterations": PINV_ITERATIONS,
        "backend": backend,
    }
    if setting.level == "op":
        return Layer(setting, partial(nystrom_attention, **options), convolution=False)
    return NystromAttention(
        setting.dim,
        setting.dim_head,
        setting.heads,
        residual_conv_kernel=CONV_KERNEL,
        **options,
    )


def _nystrom_attention(setting: Setting) -> nn.Module:
    layer = installed("nystrom_attention").NystromAttention(
        setting.dim,
        setting.dim_head,
        setting.heads,
        setting.landmarks,
        PINV_ITERATIONS,
        residual=setting.level == "module",
        residual_conv_kernel=CONV_KERNEL,
    )
    if setting.level == "op":
        layer.to_qkv, layer.to_out = nn.Identity(), nn.Identity()
    return layer


def _two_sdpa(setting: Setting) -> nn.Module:
    return Layer(setting, partial(two_sdpa, num_landmarks=setting.landmarks), convolution=True)


def _exact(setting: Setting) -> nn.Module:
    return Layer(setting, F.scaled_dot_product_attention, convolution=False)


def _reference(setting: Setting) -> nn.Module:
    attend = partial(
        nystrom_attention_reference,
        num_landmarks=setting.landmarks,
        pinv_iterations=PINV_ITERATIONS,
    )
    return Layer(setting, attend, convolution=True)


def installed(name: str) -> ModuleType:
    """The installed package, which a benchmark of the same name hides from ``import``."""
    if name not in sys.modules:
        file = distribution(name.replace("_", "-")).locate_file(f"{name}/__init__.py")
        spec = importlib.util.spec_from_file_location(name, file)
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def _few_rows(setting: Setting, n: int, backward: bool) -> int:
    """Elements of the (B, N, C) tensors that are held, as measured on a CPU; no scores are kept."""
    return (26 if backward else 12) * setting.batch * n * setting.dim


def _scores(setting: Setting, n: int, backward: bool) -> int:
    """Elements of the (B, H, N, M) tensors that nystrom-attention holds, as measured; N padded."""
    padded = -(-n // setting.landmarks) * setting.landmarks
    return (9 if backward else 7) * setting.batch * setting.heads * padded * setting.landmarks


PEERS = {
    "gimp_fast": Peer(_gimp_fast, _few_rows),
    "gimp_fast, backend=torch": Peer(partial(_gimp_fast, backend="torch"), _few_rows),
    "nystrom-attention": Peer(_nystrom_attention, _scores, fp32_pinv=False),
    "nystrom-attention, torch.compile": Peer(
        _nystrom_attention, _scores, compiled=True, fp32_pinv=False
    ),
    "two SDPA calls + pinv": Peer(_two_sdpa, _few_rows),
    "exact SDPA": Peer(_exact, _few_rows, exact=True),
}


def make_layer(name: str, setting: Setting, same_heads: bool = False) -> nn.Module:
    """A peer's layer with the weights that all peers of this setting share."""
    layer = _with_shared_weights(PEERS[name].build(setting), setting, same_heads)
    if PEERS[name].compiled:
        layer.compile(dynamic=False)
    return layer


def _with_shared_weights(layer: nn.Module, setting: Setting, same_heads: bool) -> nn.Module:
    torch.manual_seed(0)
    shared = _gimp_fast(replace(setting, level="module")).state_dict()
    per_head = shared["to_qkv.weight"].unflatten(0, (3, setting.heads, setting.dim_head))
    per_head[:2] *= 2  # otherwise attention is nearly uniform and hides errors
    if same_heads:
        per_head[:, 1:] = per_head[:, :1]
    layer.load_state_dict({name: shared[name] for name in layer.state_dict()})
    wide = setting.dtype == "fp64"
    # Training mode, without dropout: on a GPU ours projects all bags of a batch at once only then.
    return layer.to(setting.device, torch.float64 if wide else torch.float32).train()


def make_inputs(setting: Setting, n: int, same_heads: bool = False) -> tuple[Tensor, Tensor]:
    """The input, which requires a gradient, and the gradient of the output."""
    generator = torch.Generator(setting.device).manual_seed(n)

    def normal(channels: int, dtype: torch.dtype) -> Tensor:
        x = torch.empty(setting.batch, n, channels, device=setting.device)
        return x.normal_(generator=generator).to(dtype)

    dtype = DTYPES[setting.dtype]
    if setting.level == "module":
        # Autocast keeps what lies between the layers in fp32.
        x = normal(setting.dim, torch.float32)
    else:
        x = normal(3 * setting.dim, dtype)
        if same_heads:
            per_head = x.unflatten(-1, (3, setting.heads, setting.dim_head))
            per_head[..., 1:, :] = per_head[..., :1, :]
    return x.requires_grad_(), normal(setting.dim, dtype)


def step(
    layer: nn.Module, inputs: tuple[Tensor, Tensor], setting: Setting, backward: bool
) -> list[Tensor]:
    """The output, or the output and the gradients of input and parameters."""
    x, grad = inputs
    half = setting.dtype == "bf16"
    with (
        nullcontext() if backward else torch.no_grad(),
        torch.autocast(setting.device, torch.bfloat16, enabled=half),
    ):
        out = layer(x)
    if not backward:
        return [out]
    return [out, *torch.autograd.grad(out, [x, *layer.parameters()], grad.to(out.dtype))]


def errors(name: str, setting: Setting, n: int | None = None) -> dict[str, float]:
    """Relative errors of output and input gradient against fp64, where a correct peer agrees.

    One bag, N = 4 M by default, and equal heads: nystrom-attention pads other lengths, and starts
    its pseudo-inverse from maxima over the batch and the heads.
    """
    setting = replace(setting, batch=1)
    wide = replace(setting, dtype="fp64")
    x, grad = make_inputs(setting, n or 4 * setting.landmarks, same_heads=True)
    exact = _exact(wide) if PEERS[name].exact else _reference(wide)
    exact = _with_shared_weights(exact, wide, same_heads=True)
    expected = step(exact, (x.detach().double().requires_grad_(), grad.double()), wide, True)
    found = step(make_layer(name, setting, same_heads=True), (x, grad), setting, True)

    def gradient(results: list[Tensor]) -> Tensor:
        # Summed over equal heads: rounding decides which of them holds the peer's maximum.
        if setting.level == "module":
            return results[1]
        return results[1].unflatten(-1, (3, setting.heads, setting.dim_head)).sum(3)

    def error(a: Tensor, b: Tensor) -> float:
        return ((a.double() - b).norm() / b.norm()).item()

    return {
        "output": error(found[0], expected[0]),
        "gradient": error(gradient(found), gradient(expected)),
    }


def prepare_step(name: str, setting: Setting, n: int, backward: bool) -> Callable[[], None]:
    """A function that runs one step, whose memory is measured; the rest is done before."""
    layer = make_layer(name, setting)
    # Loads libraries and starts threads; a compiled layer is compiled for one N.
    first = n if PEERS[name].compiled else setting.landmarks + 1
    step(layer, make_inputs(setting, first), setting, backward)
    inputs = make_inputs(setting, n)
    return lambda: step(layer, inputs, setting, backward)
