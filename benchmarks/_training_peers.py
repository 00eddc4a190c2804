"""GiMP's training steps, by this package and written plainly with nystrom-attention."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from _nystrom_peers import DTYPES, installed
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from gimp_fast.losses import triplet_loss
from gimp_fast.models import GiMP, GiMPConfig
from gimp_fast.ops.packing import Bags

MASK_RATIO = 0.5
STAGES = ("pretrain", "finetune")


@dataclass(frozen=True)
class Setting:
    """What both peers share; it can be sent to another process."""

    dtype: str = "fp32"
    device: str = "cpu"
    feature_dim: int = 1024
    dim: int = 512
    heads: int = 8
    landmarks: int = 256
    layers: int = 2
    dropout: float = 0.1
    checkpoint_layers: bool = False
    cap_gb: float | None = None

    def config(self) -> GiMPConfig:
        return GiMPConfig(
            num_outputs=2,
            feature_dim=self.feature_dim,
            num_genes=0,
            modalities="slide",
            dim=self.dim,
            heads=self.heads,
            num_landmarks=self.landmarks,
            num_layers=self.layers,
            dropout=self.dropout,
            checkpoint_layers=self.checkpoint_layers,
        )


class Ours(nn.Module):
    """This package: packed bags, masked rows decoded in chunks."""

    def __init__(self, setting: Setting):
        super().__init__()
        self.model = GiMP(setting.config())

    def pretrain(self, windows: Tensor, masked: Tensor, labels: Tensor) -> Tensor:
        reconstruction, cls_img = self.model.pretrain_parts(windows, masked)
        mean = reconstruction / (masked.sum() * windows.shape[-1])
        return mean + triplet_loss(cls_img, labels)

    def finetune(self, bags: list[Tensor], labels: Tensor) -> Tensor:
        patches = bags[0] if len(bags) == 1 else torch.cat(bags)
        logits = self.model(patches, Bags.of_lengths(map(len, bags), patches.device))
        return F.cross_entropy(logits.float(), labels)


class PlainAggregator(nn.Module):
    """CLS token and pre-LN Nyström layers, with the parameter names of ``PatchAggregator``."""

    def __init__(self, setting: Setting):
        super().__init__()
        layer = installed("nystrom_attention").NystromAttention
        self.embed = nn.Linear(setting.feature_dim, setting.dim)
        self.cls_token = nn.Parameter(torch.zeros(setting.dim))
        self.mask_token = nn.Parameter(torch.zeros(setting.dim))
        self.norms = nn.ModuleList(nn.LayerNorm(setting.dim) for _ in range(setting.layers))
        self.layers = nn.ModuleList(
            layer(
                setting.dim,
                setting.dim // setting.heads,
                setting.heads,
                setting.landmarks,
                6,
                residual_conv_kernel=33,
                dropout=setting.dropout,
            )
            for _ in range(setting.layers)
        )
        self.norm = nn.LayerNorm(setting.dim)

    def forward(
        self, patches: Tensor, masked: Tensor | None = None, present: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(B, N, C), True = replaced by the mask token, True = no padding."""
        x = self.embed(patches)
        if masked is not None:
            x = torch.where(masked[..., None], self.mask_token.to(x.dtype), x)
        cls = self.cls_token.to(x.dtype).expand(len(x), 1, -1)
        x = torch.cat([cls, x], dim=1)
        if present is not None:
            present = F.pad(present, (1, 0), value=True)
        for norm, layer in zip(self.norms, self.layers, strict=True):
            x = x + layer(norm(x), mask=present)
        x = self.norm(x)
        return x[:, 0], x[:, 1:]


class Plain(nn.Module):
    """nystrom-attention's layers; padded batches; every row decoded; a mask multiplied to it."""

    def __init__(self, setting: Setting):
        super().__init__()
        self.aggregator = PlainAggregator(setting)
        ours = Ours(setting).model
        self.decoder, self.head = ours.decoder, ours.head

    def pretrain(self, windows: Tensor, masked: Tensor, labels: Tensor) -> Tensor:
        cls, tokens = self.aggregator(windows, masked)
        error = (self.decoder(tokens) - windows).abs() * masked.unsqueeze(-1)
        count = masked.sum() * windows.shape[-1]
        return error.sum() / count + triplet_loss(cls, labels)

    def finetune(self, bags: list[Tensor], labels: Tensor) -> Tensor:
        present = None
        if len(bags) == 1:
            patches = bags[0][None]
        else:
            patches = pad_sequence(bags, batch_first=True)
            lengths = torch.tensor([len(bag) for bag in bags], device=patches.device)
            present = torch.arange(patches.shape[1], device=patches.device) < lengths[:, None]
        cls, _ = self.aggregator(patches, present=present)
        return F.cross_entropy(self.head(cls).float(), labels)


PEERS: dict[str, type[nn.Module]] = {"gimp_fast": Ours, "plain": Plain}


def make_model(name: str, setting: Setting, same_heads: bool = False) -> nn.Module:
    """The model of a peer, with the weights that both share."""
    torch.manual_seed(0)
    shared = GiMP(setting.config()).state_dict()
    if same_heads:
        for key, value in shared.items():
            if key.endswith("to_qkv.weight"):
                per_head = value.unflatten(0, (3, setting.heads, -1))
                per_head[:2] *= 2  # else attention is nearly uniform
                per_head[:, 1:] = per_head[:, :1].clone()
    model = PEERS[name](setting)
    inner = model.model if name == "gimp_fast" else model
    inner.load_state_dict({key: shared[key] for key in inner.state_dict()})
    return model.to(setting.device).train()


def make_inputs(setting: Setting, stage: str, lengths: list[int]) -> tuple:
    """A batch of windows of equal length, or bags; float32, as in training."""
    generator = torch.Generator(setting.device).manual_seed(sum(lengths))

    def normal(*shape: int) -> Tensor:
        return torch.empty(shape, device=setting.device).normal_(generator=generator)

    labels = torch.arange(len(lengths), device=setting.device) % 2
    if stage == "finetune":
        return [normal(n, setting.feature_dim) for n in lengths], labels
    windows = normal(len(lengths), lengths[0], setting.feature_dim)
    order = torch.rand(windows.shape[:2], generator=generator, device=setting.device).argsort(1)
    return windows, order < round(MASK_RATIO * lengths[0]), labels


def loss_of(model: nn.Module, setting: Setting, stage: str, inputs: tuple) -> Tensor:
    half = setting.dtype != "fp32"
    cast = torch.autocast(setting.device, DTYPES[setting.dtype]) if half else nullcontext()
    with cast:
        return getattr(model, stage)(*inputs)


def make_step(name: str, setting: Setting, stage: str, inputs: tuple) -> Callable[[], None]:
    """A function that runs forward, backward and AdamW; the optimizer's state exists already."""
    model = make_model(name, setting)
    used = [p for key, p in model.named_parameters() if "absent" not in key]
    optimizer = torch.optim.AdamW(used, lr=1e-4)

    def step(batch: tuple = inputs) -> None:
        loss_of(model, setting, stage, batch).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    # The first step loads libraries, starts threads and creates the optimizer's state.
    step(make_inputs(setting, stage, [setting.landmarks + 1] * 2))
    return step


def prepare_step(name: str, setting: Setting, stage: str, lengths: list[int]) -> Callable[[], None]:
    """A function that runs one step, whose memory is measured; the rest is done before."""
    return make_step(name, setting, stage, make_inputs(setting, stage, lengths))


def errors(setting: Setting, stage: str) -> dict[str, float]:
    """Relative differences of the plain peer's loss and gradient, where both must agree.

    That is: one bag, CLS token and patches together a multiple of M, equal heads, no dropout.
    Otherwise nystrom-attention pads, and shares maxima between heads and bags.
    """
    setting = Setting(**(vars(setting) | {"dropout": 0.0, "dtype": "fp32"}))
    inputs = make_inputs(setting, stage, [4 * setting.landmarks - 1])
    found = {}
    for name in PEERS:
        model = make_model(name, setting, same_heads=True).eval()
        inner = model.model if name == "gimp_fast" else model
        loss = loss_of(model, setting, stage, inputs)
        wanted = [inner.aggregator.embed.weight, inner.aggregator.cls_token]
        found[name] = [loss.detach()[None], *torch.autograd.grad(loss, wanted)]
    return {
        part: ((a - b).norm() / a.norm()).item()
        for part, a, b in zip(("loss", "embed", "cls"), *found.values(), strict=True)
    }


def flop(setting: Setting, stage: str, lengths: list[int]) -> int:
    """Flop of a step, by the formula in ``training.py``."""
    total = 0
    head_dim = setting.dim // setting.heads
    for n in lengths:
        tokens, m = n + 1, setting.landmarks
        one = 8 * tokens * m * head_dim + 2 * m * m * head_dim + 29 * m**3
        if tokens <= m:
            one = 4 * tokens * tokens * head_dim
        layer = setting.heads * one + 8 * tokens * setting.dim**2
        embedded = n
        if stage == "pretrain":
            embedded = n - round(MASK_RATIO * n)
            total += 6 * (n - embedded) * setting.dim * setting.feature_dim
        total += 3 * setting.layers * layer + 4 * embedded * setting.feature_dim * setting.dim
    return total
