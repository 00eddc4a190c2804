"""Weights of the encoder: from a file, from torchvision's server, or random ones for trials."""

from __future__ import annotations

import socket
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from gimp_fast.data.slides.pt import UNPICKLING_ERRORS
from gimp_fast.errors import FaultError, GimpError, one_line
from gimp_fast.wsi.encoder import NAME, Encoder, TruncatedResNet50, digest_of, random_network

# torchvision's first ImageNet weights, those of the paper's time; its name ends with its checksum.
URL = "https://download.pytorch.org/models/resnet50-0676ba61.pth"
_SECONDS = 30.0
HOW = (
    f"get weights where there is a network, with\n  curl -LO {URL}\n"
    "or timm's model.safetensors of resnet50.tv_in1k from Hugging Face, and name the file with "
    "--weights FILE; --random-weights tries everything else out, with features that mean nothing"
)


def load_encoder(
    weights: Path | None,
    *,
    random_seed: int | None = None,
    device: str = "cpu",
    precision: str = "fp32",
) -> Encoder:
    """The encoder of the paper.

    Args:
        weights: ``.safetensors``, or ``.pth`` (never unpickled beyond tensors), with the keys of
            torchvision or timm; None for torchvision's server or what it left in torch's cache.
        random_seed: weights that mean nothing, from this seed; the name of the encoder says so.
        device, precision: see ``Encoder``.

    Raises:
        GimpError: there are no weights, they are not of a ResNet50, or there is no such device.
    """
    check_device(device, precision)
    if random_seed is not None:
        name = f"RANDOM-WEIGHTS-{NAME}-seed{random_seed}"
        words = f"random, seed {random_seed}: these features mean nothing"
        return Encoder(random_network(random_seed), name, words, device, precision)
    network = TruncatedResNet50()
    state, source = (download(), URL) if weights is None else (read_state(weights), weights.name)
    load_into(network, state, weights or URL)
    return Encoder(network, f"{NAME}-{digest_of(network)}", str(source), device, precision)


def check_device(device: str, precision: str) -> None:
    """GimpError unless torch has the device, and it computes in this precision."""
    try:
        parsed = torch.device(device)
    except RuntimeError as error:
        raise GimpError(f"--device {device}: {one_line(error)}; expected cpu or cuda") from error
    if parsed.type == "cuda":
        if not torch.cuda.is_available():
            raise GimpError(f"--device {device}: torch {torch.__version__} sees no CUDA GPU here")
        if (parsed.index or 0) >= torch.cuda.device_count():
            raise GimpError(f"--device {device}: there are {torch.cuda.device_count()} GPUs")
    if parsed.type == "cpu" and precision == "fp16":
        raise GimpError("--precision fp16 needs a GPU; on a CPU take fp32, or bf16")


def read_state(path: Path) -> Mapping[str, Tensor]:
    """Named tensors of a file; nothing in it is run.

    Raises:
        FaultError: there is no such file, or it cannot be read.
    """
    if not path.is_file():
        raise FaultError.of("missing-file", path, "no such file", "weights of a ResNet50")
    try:
        if path.suffix == ".safetensors":
            from safetensors import SafetensorError
            from safetensors.torch import load_file

            try:
                return load_file(path)
            except SafetensorError as error:
                raise ValueError(str(error)) from error
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of foreign pickles, which are refused anyway
            state = torch.load(path, map_location="cpu", weights_only=True)
    except UNPICKLING_ERRORS as error:
        expected = "a state dict, .safetensors or .pth"
        raise FaultError.of("unreadable-file", path, one_line(error), expected) from error
    if not isinstance(state, Mapping):
        raise FaultError.of("weights", path, f"a {type(state).__name__}", "a state dict")
    return state


def load_into(network: TruncatedResNet50, state: Mapping[str, Tensor], where: object) -> None:
    """Fill the network; the layers that it lacks (layer4, fc) are ignored.

    Raises:
        FaultError: a tensor is missing, or has another shape.
    """
    wanted, missing, other = network.state_dict(), [], []
    for key, value in wanted.items():
        given = state.get(key)
        if key.endswith("num_batches_tracked"):  # of training; older files lack it
            continue
        if not isinstance(given, Tensor):
            missing.append(key)
        elif given.shape != value.shape:
            other.append(f"{key} of {tuple(given.shape)}")
    if missing or other:
        found = f"{len(missing)} tensors missing" if missing else f"{len(other)} of other shape"
        found += f" (first: {(missing or other)[0]})"
        expected = "conv1, bn1, layer1, layer2 and layer3 of ResNet50, with torchvision's names"
        raise FaultError.of("weights", where, found, expected)
    network.load_state_dict({key: state[key] for key in wanted if key in state}, strict=False)


def download() -> Mapping[str, Tensor]:
    """torchvision's weights, from torch's cache or its server, checked against their checksum."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_SECONDS)
    try:
        return torch.hub.load_state_dict_from_url(
            URL, map_location="cpu", check_hash=True, weights_only=True
        )
    except UNPICKLING_ERRORS as error:
        raise GimpError(f"{URL} could not be had ({one_line(error)}); {HOW}") from error
    finally:
        socket.setdefaulttimeout(before)
