"""Encodes patches: a network on a device, with the name that the feature files record."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from gimp_fast.errors import DAMAGE_ERRORS, GimpError, counted, nearest, one_of
from gimp_fast.ops.backends import choose_device
from gimp_fast.plugins import Registry, function_at
from gimp_fast.wsi import resnet50
from gimp_fast.wsi.options import PRECISIONS, RESNET50, EncoderOptions

Maker = Callable[[Path | None], nn.Module]  # from a file of weights, if there is one


@dataclass(frozen=True)
class _Kind:
    """How to make an encoder's network, and the pixels that it takes."""

    make: Maker
    mean: tuple[float, float, float] = resnet50.MEAN
    std: tuple[float, float, float] = resnet50.STD


_ENCODERS: Registry[_Kind] = Registry("encoder", {})


def register_encoder(
    name: str,
    make: Maker,
    *,
    mean: tuple[float, float, float] = resnet50.MEAN,
    std: tuple[float, float, float] = resnet50.STD,
) -> None:
    """Add an encoder under a name, for ``gimp-fast extract --encoder NAME``::

        def make(weights):  # a pathlib.Path, or None
            network = timm.create_model("vit_small_patch16_224", num_classes=0, img_size=256)
            network.load_state_dict(torch.load(weights, weights_only=True))
            return network

        wsi.register_encoder("vit_small", make)

    Args:
        name: recorded in the feature files, with a digest of the weights.
        make: a network from the file that ``--weights`` names, or from None without it. The network
            takes (B, 3, P, P) float32 and returns (B, C); any C, the same for every patch.
        mean, std: of red, green and blue in 0 … 1, by which pixels are normalised: ImageNet's.

    Raises:
        ValueError: the name is taken.
        TypeError: ``make`` cannot be called.
    """
    if name == RESNET50:
        raise ValueError(f"encoder '{RESNET50}' is taken; choose another name")
    if not callable(make):
        raise TypeError(f"encoder {name!r}: found {make!r}; expected a function of the weights")
    _ENCODERS.add(name, _Kind(make, mean, std))


def available_encoders() -> tuple[str, ...]:
    """Names of the encoders that :func:`load_encoder` can load."""
    return (RESNET50, *_ENCODERS)


def load_encoder(options: EncoderOptions, patch_size: int = 256) -> Encoder:
    """An encoder, by default that of the paper, on a device.

    Args:
        options: which encoder, its weights and its device.
        patch_size: pixels of a side of the patches, with which an encoder of your own is tried.

    Raises:
        GimpError: there is no such encoder, there are no weights, they do not fit the network, or
            there is no such device.
    """
    device = _device_for(options)
    if options.encoder != RESNET50:
        return _load_own(options, device, patch_size)
    weights = options.weights
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


def _load_own(options: EncoderOptions, device: str, patch_size: int) -> Encoder:
    """An encoder that is registered, or that a function makes, after trying it on one patch."""
    asked, where = options.encoder, f"--encoder {options.encoder}"
    if ":" in asked:
        kind, name = _Kind(function_at(asked, "--encoder")), asked.rpartition(":")[2]
    elif asked in (names := available_encoders()):
        kind, name = _ENCODERS.get(asked), asked
    else:
        own = "; your own encoder needs --plugin, or is named as file.py:function"
        expected = one_of(asked, names) + ("" if nearest(asked, names) else own)
        raise GimpError(f"--encoder: found '{asked}'; expected {expected}")
    try:
        network = kind.make(options.weights)
        if not isinstance(network, nn.Module):
            raise TypeError(f"found a {type(network).__name__}; expected a torch.nn.Module")
        weights = options.weights.name if options.weights else "of its own code"
        encoder = Encoder(
            network, f"{name}-{digest_of(network)}", weights, device, options.precision,
            mean=kind.mean, std=kind.std,
        )  # fmt: skip
        features = encoder(np.zeros((2, patch_size, patch_size, 3), np.uint8))
    except (*DAMAGE_ERRORS, NameError, ImportError) as error:
        raise GimpError(f"{where}: fails on patches of {patch_size} pixels: {error}") from error
    if features.ndim != 2 or len(features) != 2 or not features.shape[1]:
        found = f"an output of shape {features.shape} for 2 patches"
        raise GimpError(f"{where}: found {found}; expected (2, channels)")
    encoder.dim = features.shape[1]
    return encoder


def _device_for(options: EncoderOptions) -> str:
    """The device; GimpError unless torch has it and computes in the precision on it."""
    device = choose_device(options.device)
    if device.type == "cpu" and options.precision == "fp16":
        raise GimpError("--precision fp16 needs a GPU; on a CPU use fp32 or bf16")
    return str(device)


@dataclass
class Encoder:
    """Patches in, features out, on one device."""

    network: nn.Module
    name: str  # of network and weights, recorded in the files; other weights have another name
    weights: str  # where the weights come from, in words
    device: str = "cpu"
    precision: str = "fp32"  # or for autocast bf16 or fp16
    dim: int = resnet50.FEATURE_DIM  # channels of the features
    mean: tuple[float, float, float] = resnet50.MEAN
    std: tuple[float, float, float] = resnet50.STD

    def __post_init__(self) -> None:
        network = self.network.eval().requires_grad_(False)
        self.network = network.to(self.device, memory_format=torch.channels_last)
        # Pixels stay bytes until they are on the device, which then scales them.
        channels = torch.tensor((self.mean, self.std), device=self.device) * 255
        self._shift, self._scale = channels.view(2, 3, 1, 1)

    @torch.inference_mode()
    def __call__(self, patches: np.ndarray) -> np.ndarray:
        """(B, C) float32 of a batch, (B, P, P, 3) uint8 RGB.

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
