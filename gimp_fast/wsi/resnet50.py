"""ResNet50 up to its third stage, with average pooling: a patch becomes 1024 numbers.

This is the encoder of CLAM, which GiMP follows (section 3.1): ImageNet weights, cut after layer3,
on patches of 256 pixels that are not resized. The network (He et al., CVPR 2016, stride in the 3x3
convolution) is written out here with the parameter names of torchvision and timm, so that their
weights load without either package.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from gimp_fast.data.slides.pt import UNPICKLING_ERRORS
from gimp_fast.errors import FaultError, GimpError, one_line
from gimp_fast.wsi.encoders.weights import read_state

NAME = "resnet50_trunc"  # CLAM's name for it
FEATURE_DIM = 1024
LICENCE = "BSD-3-Clause"  # of torchvision's weights
# torchvision's first ImageNet weights, those of the paper's time. The name ends with the checksum.
URL = "https://download.pytorch.org/models/resnet50-0676ba61.pth"
_SECONDS = 30.0  # without an answer from the server


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
    """conv1 … layer3 of ResNet50 and the mean over the patch: (B, 3, P, P) -> (B, 1024)."""

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
    """A network of seeded random weights, for trials; the global random state is not changed."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        network = TruncatedResNet50()
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network


def load_into(network: TruncatedResNet50, state: Mapping[str, Tensor], where: object) -> None:
    """Fill the network; FaultError if a tensor is missing or misshapen. Others are ignored."""
    expected = "conv1, bn1, layer1, layer2 and layer3 of ResNet50, with torchvision's names"
    needed = {key: state[key] for key in network.state_dict() if key in state}
    try:
        missing = network.load_state_dict(needed, strict=False).missing_keys
    except RuntimeError as error:
        raise FaultError.of("weights", where, one_line(error), expected) from error
    # The counters of training are not needed; older files lack them.
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    if missing:
        found = f"{len(missing)} tensors missing (first: {missing[0]})"
        raise FaultError.of("weights", where, found, expected)


def download(offline: bool = False) -> Mapping[str, Tensor]:
    """torchvision's weights, from torch's cache or its server, checked against their checksum."""
    if offline:
        cached = Path(torch.hub.get_dir()) / "checkpoints" / URL.rpartition("/")[2]
        if not cached.is_file():
            raise GimpError(_bring(f"--offline: found no {cached}"))
        return read_state(cached, "torchvision's ResNet50")
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_SECONDS)
    try:
        return torch.hub.load_state_dict_from_url(
            URL, map_location="cpu", check_hash=True, weights_only=True
        )
    except UNPICKLING_ERRORS as error:
        raise GimpError(_bring(f"{URL} cannot be downloaded ({one_line(error)})")) from error
    finally:
        socket.setdefaulttimeout(before)


def _bring(found: str) -> str:
    return (
        f"{found}; where there is a network, get the weights with\n  curl -LO {URL}\nor timm's "
        "model.safetensors of resnet50.tv_in1k from Hugging Face, and pass the file with --weights "
        "FILE; --random-weights tries out everything else, with meaningless features"
    )
