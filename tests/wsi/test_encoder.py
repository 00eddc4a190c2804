"""The cut ResNet50: against torchvision's and timm's, and by numbers that torchvision's gave."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gimp_fast.errors import GimpError
from gimp_fast.wsi.encoder import (
    MEAN,
    STD,
    Encoder,
    TruncatedResNet50,
    digest_of,
    random_network,
)


def formula(name: str, shape: tuple[int, ...]) -> Tensor:
    """A weight that can be written down again, of a size at which the network stays tame."""
    i = torch.arange(math.prod(shape), dtype=torch.float64)
    if name.endswith("running_var"):
        value = 1 + 0.5 * torch.sin(i)
    elif name.endswith(("running_mean", "bias")):
        value = 0.1 * torch.sin(1.7 * i)
    elif "bn" in name or "downsample.1" in name:
        value = 0.4 + 0.2 * torch.sin(0.9 * i)
    else:
        scale = 1.4 * math.sqrt(2 * shape[1] / len(i))
        value = torch.sin(i * i * 0.37 + len(name)) * scale
    return value.float().reshape(shape)


@pytest.fixture(scope="module")
def network() -> TruncatedResNet50:
    network = TruncatedResNet50().eval()
    state = network.state_dict()
    network.load_state_dict(
        {key: formula(key, tuple(v.shape)) if v.ndim else v for key, v in state.items()}
    )
    return network


def test_numbers_that_torchvision_gave_in_fp64(network):
    x = torch.sin(torch.arange(3 * 70 * 64, dtype=torch.float64) * 0.013).reshape(1, 3, 70, 64)
    with torch.inference_mode():
        features = network.double()(x)[0]
    network.float()
    expected = [0.003254648774170607, 0.5126514617155152, 0.0, 0.4493574828129738,
                0.001970117442220058, 0.0]  # fmt: skip
    assert features[[0, 1, 100, 511, 1000, 1023]].tolist() == pytest.approx(expected, abs=1e-9)
    assert features.sum().item() == pytest.approx(144.31312277027484)


def test_parameters_are_those_of_resnet50_without_layer4_and_head(network):
    assert sum(parameter.numel() for parameter in network.parameters()) == 8_543_296
    assert len(network.state_dict()) == 43 * 6  # convolutions, each with a BatchNorm of five
    assert "layer3.5.bn3.running_var" in network.state_dict()


def _peer(package: str) -> nn.Module:
    # torchvision's CUDA build fails with RuntimeError beside a CPU-only torch.
    try:
        if package == "timm":
            import timm

            return timm.create_model("resnet50.tv_in1k", pretrained=False)
        import torchvision

        return torchvision.models.resnet50(weights=None)
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"{package} does not import here: {error}")


@pytest.mark.parametrize("package", ["torchvision", "timm"])
def test_features_are_those_of_the_peer_bit_for_bit(package):
    from gimp_fast.wsi.weights import load_into

    peer = _peer(package).eval()
    state = peer.state_dict()
    peer.load_state_dict({k: formula(k, tuple(v.shape)) if v.ndim else v for k, v in state.items()})
    network = TruncatedResNet50().eval()
    load_into(network, peer.state_dict(), package)
    act = getattr(peer, "relu", None) or peer.act1
    stages = (peer.conv1, peer.bn1, act, peer.maxpool, peer.layer1, peer.layer2, peer.layer3)
    x = torch.randn(2, 3, 96, 80, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = nn.Sequential(*stages)(x).mean((2, 3))
        assert torch.equal(network(x), expected)


def pixels(number: int = 3, side: int = 64) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (number, side, side, 3), np.uint8)


def test_pixels_are_normalised_as_for_imagenet(network):
    patches = pixels()
    x = torch.from_numpy(patches).permute(0, 3, 1, 2) / 255.0
    x = (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    with torch.inference_mode():
        expected = network(x).numpy()
    features = Encoder(network, "name", "weights")(patches)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-6)


def test_bf16_is_near_fp32(network):
    exact = Encoder(network, "name", "weights")(pixels())
    close = Encoder(network, "name", "weights", precision="bf16")(pixels())
    assert close.dtype == np.float32
    assert 0 < np.abs(close - exact).max() < 0.03 * np.abs(exact).max()


def test_a_patch_does_not_depend_on_its_batch(network):
    encoder = Encoder(network, "name", "weights")
    together = encoder(pixels(5))
    for n in range(5):
        alone = encoder(pixels(5)[n : n + 1])[0]
        np.testing.assert_allclose(alone, together[n], rtol=1e-4, atol=1e-6)


def test_random_weights_come_from_the_seed_and_leave_the_random_state():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, again, other = random_network(0), random_network(0), random_network(1)
    assert torch.equal(torch.rand(3), expected)
    assert digest_of(first) == digest_of(again) != digest_of(other)
    assert np.isfinite(Encoder(first, "name", "weights")(pixels())).all()


def test_too_little_memory_asks_for_a_smaller_batch():
    class Greedy(nn.Module):
        def forward(self, x):
            raise torch.OutOfMemoryError("no")

    with pytest.raises(GimpError, match="batches of 3 patches; expected a smaller --batch-size"):
        Encoder(Greedy(), "name", "weights")(pixels())


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_gpu_gives_the_features_of_the_cpu(network, precision):
    exact = Encoder(network, "name", "weights")(pixels())
    on_gpu = Encoder(network, "name", "weights", device="cuda", precision=precision)(pixels())
    network.cpu()
    assert np.abs(on_gpu - exact).max() < 0.03 * np.abs(exact).max()
