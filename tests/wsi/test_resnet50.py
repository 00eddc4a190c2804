"""The truncated ResNet50: against torchvision and timm, and by numbers that torchvision gave."""

from __future__ import annotations

import pytest
import torch
from builders.resnet50 import formula_network, formula_state
from torch import nn

from gimp_fast.errors import FaultError, GimpError
from gimp_fast.wsi.encoders.running import weights_digest_of
from gimp_fast.wsi.resnet50 import TruncatedResNet50, load_into, random_network


@pytest.fixture(scope="module")
def network() -> TruncatedResNet50:
    return formula_network()


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
    try:
        if package == "timm":
            from gimp_fast.wsi.encoders.timm_import import import_timm

            return import_timm("this test").create_model("resnet50.tv_in1k", pretrained=False)
        import torchvision

        return torchvision.models.resnet50(weights=None)
    except (ImportError, GimpError) as error:
        pytest.skip(f"{package} does not import here: {error}")


@pytest.mark.parametrize("package", ["torchvision", "timm"])
def test_features_are_those_of_the_peer_bit_for_bit(package):
    peer = _peer(package).eval()
    peer.load_state_dict(formula_state(peer))
    network = TruncatedResNet50().eval()
    load_into(network, peer.state_dict(), package)
    act = getattr(peer, "relu", None) or peer.act1
    stages = (peer.conv1, peer.bn1, act, peer.maxpool, peer.layer1, peer.layer2, peer.layer3)
    x = torch.randn(2, 3, 96, 80, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = nn.Sequential(*stages)(x).mean((2, 3))
        assert torch.equal(network(x), expected)


def test_random_weights_come_from_the_seed_and_leave_the_random_state():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, again, other = random_network(0), random_network(0), random_network(1)
    assert torch.equal(torch.rand(3), expected)
    assert weights_digest_of(first) == weights_digest_of(again) != weights_digest_of(other)


@pytest.fixture(scope="module")
def state() -> dict:
    """As of a whole ResNet50: with a head, which is not needed."""
    return random_network(3).state_dict() | {"fc.weight": torch.zeros(1000, 2048)}


def test_older_files_lack_counters_of_training(state):
    older = {key: value for key, value in state.items() if "num_batches" not in key}
    network = TruncatedResNet50()
    load_into(network, older, "file")
    assert weights_digest_of(network) == weights_digest_of(random_network(3))


def test_missing_and_misshapen_tensors_are_named(state):
    lacking = {key: value for key, value in state.items() if not key.startswith("layer3.5")}
    with pytest.raises(FaultError, match=r"w\.pth: found 15 tensors missing \(first: layer3\.5"):
        load_into(TruncatedResNet50(), lacking, "w.pth")
    misshapen = state | {"conv1.weight": torch.zeros(64, 1, 7, 7)}
    with pytest.raises(FaultError, match=r"size mismatch for conv1.weight: .*\[64, 1, 7, 7\]"):
        load_into(TruncatedResNet50(), misshapen, "w.pth")
    with pytest.raises(FaultError, match=r"w\.pth: found .*conv1.weight.*received <class 'str'>"):
        load_into(TruncatedResNet50(), state | {"conv1.weight": "x", 1: 2}, "w.pth")
