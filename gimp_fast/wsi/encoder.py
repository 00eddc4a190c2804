"""Encodes patches: a network on a device, with the name that the feature files record."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from gimp_fast.errors import GimpError, counted
from gimp_fast.ops.backends import choose_device
from gimp_fast.wsi import resnet50
from gimp_fast.wsi.options import PRECISIONS, EncoderOptions


def load_encoder(options: EncoderOptions) -> Encoder:
    """The encoder of the paper, on a device.

    Raises:
        GimpError: there are no weights, they do not fit a ResNet50, or there is no such device.
    """
    device, weights = options.device, options.weights
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    _check_device(device, options.precision)
    if options.random_weights:
        network = resnet50.random_network(options.seed)
        name = f"RANDOM-WEIGHTS-{resnet50.NAME}-seed{options.seed}"
        source = f"random, seed {options.seed}: these features mean nothing"
    else:
        state = resnet50.read_state(weights) if weights else resnet50.download()
        network = resnet50.TruncatedResNet50()
        resnet50.load_into(network, state, weights or resnet50.URL)
        name = f"{resnet50.NAME}-{digest_of(network)}"
        source = weights.name if weights else resnet50.URL
    return Encoder(network, name, source, device, options.precision)


def _check_device(device: str, precision: str) -> None:
    """GimpError unless torch has the device and computes in this precision on it."""
    if choose_device(device).type == "cpu" and precision == "fp16":
        raise GimpError("--precision fp16 needs a GPU; on a CPU use fp32 or bf16")


@dataclass
class Encoder:
    """Patches in, features out, on one device."""

    network: nn.Module
    name: str  # of network and weights, recorded in the files; other weights have another name
    weights: str  # where the weights come from, in words
    device: str = "cpu"
    precision: str = "fp32"  # or for autocast bf16 or fp16
    dim: ClassVar[int] = resnet50.FEATURE_DIM  # channels of the features

    def __post_init__(self) -> None:
        network = self.network.eval().requires_grad_(False)
        self.network = network.to(self.device, memory_format=torch.channels_last)
        # Pixels stay bytes until they are on the device, which then scales them.
        channels = torch.tensor((resnet50.MEAN, resnet50.STD), device=self.device) * 255
        self._shift, self._scale = channels.view(2, 3, 1, 1)

    @torch.inference_mode()
    def __call__(self, patches: np.ndarray) -> np.ndarray:
        """(B, 1024) float32 of a batch, (B, P, P, 3) uint8 RGB.

        Raises:
            GimpError: the GPU has too little memory for the batch.
        """
        pixels, dtype = torch.from_numpy(patches), getattr(torch, PRECISIONS[self.precision])
        kind = torch.device(self.device).type
        try:
            if kind == "cuda":
                pixels = pixels.pin_memory().to(self.device, non_blocking=True)
            # A view: bytes of (B, P, P, 3) are the channels-last layout of (B, 3, P, P).
            pixels = (pixels.permute(0, 3, 1, 2).float() - self._shift) / self._scale
            with torch.autocast(kind, dtype, enabled=dtype != torch.float32):
                return self.network(pixels).float().cpu().numpy()
        except torch.OutOfMemoryError as error:
            size = counted(len(patches), "patch", "patches")
            found = f"out of memory on {self.device} with batches of {size}"
            raise GimpError(f"{found}; use a smaller --batch-size") from error


def digest_of(network: nn.Module) -> str:
    """Eight hexadecimal digits of the weights, whatever file they come from."""
    digest = hashlib.sha256()
    for key, value in sorted(network.state_dict().items()):
        if not key.endswith("num_batches_tracked"):
            digest.update(key.encode())
            digest.update(value.detach().float().cpu().contiguous().numpy())
    return digest.hexdigest()[:8]
