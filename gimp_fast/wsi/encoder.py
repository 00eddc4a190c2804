"""ResNet50 up to its third stage, with average pooling: a patch becomes 1024 numbers.

This is the encoder of CLAM, which GiMP follows (section 3.1): ImageNet weights, cut after layer3,
on patches of 256 pixels that are not resized. The network (He et al., CVPR 2016, stride in the 3x3
convolution) is written out here, with torchvision's and timm's names of parameters, so that their
weights load and neither package is needed.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor, nn

from gimp_fast.errors import GimpError

FEATURE_DIM = 1024
NAME = "resnet50_trunc"  # as CLAM calls it
# Of ImageNet, red green blue, for pixels in 0 … 1.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut; (B, C, H, W) -> (B, 4·width, H', W')."""

    def __init__(self, channels: int, width: int, stride: int = 1):
        super().__init__()
        wide = 4 * width
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, wide, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(wide)
        self.downsample = None
        if stride != 1 or channels != wide:
            shortcut = nn.Conv2d(channels, wide, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(wide))

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu(self.bn1(self.conv1(x)))
        out = torch.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return torch.relu(out + (x if self.downsample is None else self.downsample(x)))


class TruncatedResNet50(nn.Module):
    """conv1 … layer3 of ResNet50 and the average over the patch.

    ``forward`` takes normalised pixels (B, 3, P, P) and gives (B, 1024).
    """

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _stage(64, 64, blocks=3, stride=1)
        self.layer2 = _stage(256, 128, blocks=4, stride=2)
        self.layer3 = _stage(512, 256, blocks=6, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))  # (B, 64, P/4, P/4)
        x = self.layer3(self.layer2(self.layer1(x)))  # (B, 1024, P/16, P/16)
        return x.mean((2, 3))


def _stage(channels: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    first = Bottleneck(channels, width, stride)
    return nn.Sequential(first, *(Bottleneck(4 * width, width) for _ in range(blocks - 1)))


def random_network(seed: int) -> TruncatedResNet50:
    """Seeded weights that mean nothing, for trials; the caller's random state stays as it is."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        network = TruncatedResNet50()
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network


class Encoder:
    """Patches in, features out, on one device.

    Attributes:
        name: of network and weights, as it is written into files; other weights, other name.
        dim: channels C of the features.
        weights: where the weights come from, in words.
        precision: ``fp32``, or that of autocast: ``bf16``, ``fp16``.
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
        self._dtype = PRECISIONS[precision]
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
            raise GimpError(f"{found}; expected a smaller --batch-size to fit") from error

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
    """Eight hexadecimal digits that stand for the weights: equal weights, whatever file."""
    digest = hashlib.sha256()
    for key, value in sorted(network.state_dict().items()):
        if not key.endswith("num_batches_tracked"):
            digest.update(key.encode())
            digest.update(value.detach().float().cpu().contiguous().numpy())
    return digest.hexdigest()[:8]
