"""Runs a network on patches: the part that all encoders share."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gimp_fast.errors import GimpError, counted
from gimp_fast.wsi.encoders.recipe import Recipe
from gimp_fast.wsi.options import PRECISIONS


@dataclass
class Encoder:
    """Patches in, features out, on one device."""

    network: nn.Module
    name: str  # of network and weights, recorded in the files; other weights have another name
    weights: str  # where the weights come from, in words
    device: str = "cpu"
    precision: str = "fp32"  # or for autocast bf16 or fp16
    dim: int = 1024  # channels of the features
    recipe: Recipe = field(default_factory=Recipe)
    licence: str = "not recorded"  # of the weights
    digest: str = ""  # of the weights; by default it is computed
    facts: dict[str, str] = field(init=False)  # further attributes of the feature files

    def __post_init__(self) -> None:
        self.facts = {
            "encoder_licence": self.licence,
            "preprocessing": self.recipe.text,
            "weights_digest": self.digest or weights_digest_of(self.network),
        }
        network = self.network.eval().requires_grad_(False)
        self.network = network.to(self.device, memory_format=torch.channels_last)
        # Pixels stay bytes until they are on the device, which then scales them.
        channels = torch.tensor((self.recipe.mean, self.recipe.std), device=self.device) * 255
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
            pixels = fitted(pixels.permute(0, 3, 1, 2).float(), self.recipe)
            pixels = (pixels - self._shift) / self._scale
            with torch.autocast(kind, dtype, enabled=dtype != torch.float32):
                return self.network(pixels).float().cpu().numpy()
        except torch.OutOfMemoryError as error:
            size = counted(len(patches), "patch", "patches")
            found = f"out of memory on {self.device} with batches of {size}"
            raise GimpError(f"{found}; use a smaller --batch-size") from error


def fitted(pixels: Tensor, recipe: Recipe) -> Tensor:
    """(B, 3, S, S) of the side that the network takes, from (B, 3, P, P) in 0 … 255.

    Whole numbers, as Pillow gives them, by which the authors resize.
    """
    if recipe.size is None:
        return pixels
    whole, margin = recipe.size + recipe.margin, recipe.margin // 2
    if pixels.shape[-1] == recipe.size:
        return pixels  # the middle already
    if pixels.shape[-1] != whole:
        pixels = F.interpolate(pixels, (whole, whole), mode=recipe.smoothing, antialias=True)
        pixels = pixels.round().clamp(0, 255)
    stop = margin + recipe.size
    return pixels[:, :, margin:stop, margin:stop]


def weights_digest_of(network: nn.Module) -> str:
    """SHA-256 of the weights, whatever file they come from."""
    digest = hashlib.sha256()
    for key, value in sorted(network.state_dict().items()):
        if not key.endswith("num_batches_tracked"):
            digest.update(key.encode())
            digest.update(value.detach().float().cpu().contiguous().numpy())
    return digest.hexdigest()


def short(digest: str, recipe: Recipe | None = None) -> str:
    """Eight digits of a digest, which names end with; with a recipe, of both."""
    if recipe is not None:
        digest = hashlib.sha256(f"{digest} {recipe.text}".encode()).hexdigest()
    return digest[:8]
