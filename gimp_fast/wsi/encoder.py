"""Encodes patches: a network on a device, with the name that the feature files record."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import nn

from gimp_fast.errors import GimpError, one_line
from gimp_fast.wsi.options import PRECISIONS, EncoderOptions
from gimp_fast.wsi.resnet50 import (
    FEATURE_DIM,
    MEAN,
    NAME,
    STD,
    URL,
    TruncatedResNet50,
    download,
    load_into,
    random_network,
    read_state,
)


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
        network = random_network(options.seed)
        name = f"RANDOM-WEIGHTS-{NAME}-seed{options.seed}"
        source = f"random, seed {options.seed}: these features mean nothing"
    else:
        network = TruncatedResNet50()
        load_into(network, read_state(weights) if weights else download(), weights or URL)
        name, source = f"{NAME}-{digest_of(network)}", weights.name if weights else URL
    return Encoder(network, name, source, device, options.precision)


def _check_device(device: str, precision: str) -> None:
    """GimpError unless torch has the device and computes in this precision on it."""
    try:
        parsed = torch.device(device)
    except RuntimeError as error:
        raise GimpError(f"--device {device}: {one_line(error)}; expected cpu or cuda") from error
    if parsed.type == "cuda":
        if not torch.cuda.is_available():
            raise GimpError(f"--device {device}: torch {torch.__version__} sees no CUDA GPU here")
        if (parsed.index or 0) >= torch.cuda.device_count():
            raise GimpError(f"--device {device}: found {torch.cuda.device_count()} GPUs")
    if parsed.type == "cpu" and precision == "fp16":
        raise GimpError("--precision fp16 needs a GPU; on a CPU use fp32 or bf16")


class Encoder:
    """Patches in, features out, on one device.

    Attributes:
        name: of network and weights, recorded in the files; other weights have another name.
        dim: channels C of the features.
        weights: where the weights come from, in words.
        precision: ``fp32``, or for autocast ``bf16`` or ``fp16``.
    """

    dim = FEATURE_DIM

    def __init__(
        self,
        network: nn.Module,
        name: str,
        weights: str,
        device: str | torch.device = "cpu",
        precision: str = "fp32",
    ):
        self.name, self.weights, self.precision = name, weights, precision
        self.device = torch.device(device)
        self._dtype = getattr(torch, PRECISIONS[precision])
        network = network.eval().requires_grad_(False)
        self._network = network.to(self.device, memory_format=torch.channels_last)
        # Pixels stay bytes until they are on the device, which then scales them.
        scale = torch.tensor(STD, device=self.device) * 255
        self._scale = scale.view(3, 1, 1)
        self._shift = (torch.tensor(MEAN, device=self.device) * 255).view(3, 1, 1)

    @torch.inference_mode()
    def __call__(self, patches: np.ndarray) -> np.ndarray:
        """Features of a batch.

        Args:
            patches: (B, P, P, 3) uint8 RGB.

        Returns:
            (B, 1024) float32.

        Raises:
            GimpError: the GPU has too little memory for the batch.
        """
        try:
            return self._encode(patches)
        except torch.OutOfMemoryError as error:
            found = f"out of memory on {self.device} with batches of {len(patches)} patches"
            raise GimpError(f"{found}; use a smaller --batch-size") from error

    def _encode(self, patches: np.ndarray) -> np.ndarray:
        pixels = torch.from_numpy(patches)
        if self.device.type == "cuda":
            pixels = pixels.pin_memory().to(self.device, non_blocking=True)
        # A view: bytes of (B, P, P, 3) are the channels-last layout of (B, 3, P, P).
        pixels = (pixels.permute(0, 3, 1, 2).float() - self._shift) / self._scale
        reduced = self._dtype != torch.float32
        with torch.autocast(self.device.type, self._dtype, enabled=reduced):
            features = self._network(pixels)
        return features.float().cpu().numpy()


def digest_of(network: nn.Module) -> str:
    """Eight hexadecimal digits of the weights, whatever file they come from."""
    digest = hashlib.sha256()
    for key, value in sorted(network.state_dict().items()):
        if not key.endswith("num_batches_tracked"):
            digest.update(key.encode())
            digest.update(value.detach().float().cpu().contiguous().numpy())
    return digest.hexdigest()[:8]
