"""Features of patches, the weights that an encoder loads, and faults of both."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from builders.resnet50 import formula_network
from safetensors.torch import save_file
from torch import nn

from gimp_fast.errors import FaultError, GimpError
from gimp_fast.wsi.encoder import Encoder, load_encoder
from gimp_fast.wsi.encoders.recipe import IMAGENET
from gimp_fast.wsi.encoders.running import weights_digest_of
from gimp_fast.wsi.options import EncoderOptions
from gimp_fast.wsi.resnet50 import URL, TruncatedResNet50, random_network


@pytest.fixture(scope="module")
def network() -> TruncatedResNet50:
    return formula_network()


def pixels(number: int = 3, side: int = 64) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (number, side, side, 3), np.uint8)


def test_pixels_are_normalised_as_for_imagenet(network):
    patches = pixels()
    x = torch.from_numpy(patches).permute(0, 3, 1, 2) / 255.0
    x = (x - torch.tensor(IMAGENET[0]).view(3, 1, 1)) / torch.tensor(IMAGENET[1]).view(3, 1, 1)
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


def test_too_little_memory_asks_for_a_smaller_batch():
    class Greedy(nn.Module):
        def forward(self, x):
            raise torch.OutOfMemoryError("no")

    with pytest.raises(GimpError, match="batches of 3 patches; use a smaller --batch-size"):
        Encoder(Greedy(), "name", "weights")(pixels())


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_gpu_gives_the_features_of_the_cpu(network, precision):
    exact = Encoder(network, "name", "weights")(pixels())
    on_gpu = Encoder(network, "name", "weights", device="cuda", precision=precision)(pixels())
    network.cpu()
    assert np.abs(on_gpu - exact).max() < 0.03 * np.abs(exact).max()


@pytest.fixture(scope="module")
def state() -> dict:
    """As of a whole ResNet50: with a head, which is not needed."""
    return random_network(3).state_dict() | {"fc.weight": torch.zeros(1000, 2048)}


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_weights_of_a_file_are_used(tmp_path, state, name):
    path = tmp_path / name
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    encoder = load_encoder(EncoderOptions(path))
    digest = weights_digest_of(random_network(3))[:8]
    assert (encoder.name, encoder.weights) == (f"resnet50_trunc-{digest}", name)
    assert encoder.dim == 1024
    assert encoder.facts["weights_digest"][:8] == digest


def test_other_weights_are_another_encoder(tmp_path, state):
    torch.save(state, tmp_path / "a.pth")
    torch.save(random_network(4).state_dict(), tmp_path / "b.pth")
    assert (
        load_encoder(EncoderOptions(tmp_path / "a.pth")).name
        != load_encoder(EncoderOptions(tmp_path / "b.pth")).name
    )


def test_random_weights_say_so():
    encoder = load_encoder(EncoderOptions(random_weights=True, seed=7))
    assert encoder.name == "RANDOM-WEIGHTS-resnet50_trunc-seed7"
    assert "mean nothing" in encoder.weights
    assert np.isfinite(encoder(pixels())).all()
    with pytest.raises(GimpError, match="either --weights or --random-weights"):
        EncoderOptions(weights="w.pth", random_weights=True)


class Evil:
    def __reduce__(self):
        return (print, ("code of a weights file ran",))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("w.pth", b"nothing"),
        ("w.pth", b""),
        ("w.safetensors", b"nothing"),
        ("w.safetensors", b""),
        ("w.pth", pickle.dumps(Evil())),
    ],
)
def test_files_that_are_no_weights(tmp_path, capfd, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FaultError, match=name):
        load_encoder(EncoderOptions(tmp_path / name))
    assert "ran" not in capfd.readouterr().out


def test_a_tensor_is_no_state_dict(tmp_path):
    torch.save(torch.zeros(3), tmp_path / "w.pth")
    with pytest.raises(FaultError, match="found a Tensor; expected a state dict"):
        load_encoder(EncoderOptions(tmp_path / "w.pth"))
    with pytest.raises(FaultError, match="no such file"):
        load_encoder(EncoderOptions(tmp_path / "absent.pth"))


def test_without_a_network_it_says_how_to_get_weights(monkeypatch):
    def unreachable(*_, **__):
        raise OSError("Name or service not known")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", unreachable)
    with pytest.raises(GimpError, match=r"not known(.|\n)*curl(.|\n)*--weights FILE.*--random-w"):
        load_encoder(EncoderOptions())


def test_offline_takes_what_torch_has_cached_and_asks_nobody(monkeypatch, tmp_path, state):
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", None)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(GimpError, match=r"--offline: found no .*pth; where(.|\n)*curl"):
        load_encoder(EncoderOptions(offline=True))
    (tmp_path / "checkpoints").mkdir()
    torch.save(state, tmp_path / "checkpoints" / URL.rpartition("/")[2])
    encoder = load_encoder(EncoderOptions(offline=True))
    assert (encoder.weights, encoder.licence) == (URL, "BSD-3-Clause")


def test_the_server_s_weights_are_checked_and_not_unpickled(monkeypatch, state):
    asked = {}

    def serve(url, **options):
        asked.update(options, url=url)
        return state

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", serve)
    assert load_encoder(EncoderOptions()).weights == URL
    assert asked["check_hash"]
    assert asked["weights_only"]


@pytest.mark.parametrize(
    ("device", "precision", "message"),
    [
        ("cpu", "fp16", "--precision fp16 needs a GPU"),
        ("gpu", "fp32", "device 'gpu' cannot be used: expected auto, cpu"),
        ("cuda:99", "fp32", "device 'cuda:99' cannot be used"),
    ],
)
def test_devices_that_are_not_there(device, precision, message):
    with pytest.raises(GimpError, match=message):
        load_encoder(EncoderOptions(random_weights=True, device=device, precision=precision))
