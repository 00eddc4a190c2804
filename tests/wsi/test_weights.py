"""Where weights come from, and what is said of those that do not fit."""

from __future__ import annotations

import pickle

import pytest
import torch
from safetensors.torch import save_file

from gimp_fast.errors import FaultError, GimpError
from gimp_fast.wsi import weights
from gimp_fast.wsi.encoder import TruncatedResNet50, digest_of, random_network
from gimp_fast.wsi.weights import load_encoder, load_into


@pytest.fixture(scope="module")
def state() -> dict:
    """As of a whole ResNet50: with a head, which is not needed."""
    return random_network(3).state_dict() | {"fc.weight": torch.zeros(1000, 2048)}


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_weights_of_a_file_are_used(tmp_path, state, name):
    path = tmp_path / name
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    encoder = load_encoder(path)
    digest = digest_of(random_network(3))
    assert (encoder.name, encoder.weights) == (f"resnet50_trunc-{digest}", name)
    assert encoder.dim == 1024
    assert digest_of(encoder._network) == digest


def test_other_weights_are_another_encoder(tmp_path, state):
    torch.save(state, tmp_path / "a.pth")
    torch.save(random_network(4).state_dict(), tmp_path / "b.pth")
    assert load_encoder(tmp_path / "a.pth").name != load_encoder(tmp_path / "b.pth").name


def test_random_weights_say_so():
    encoder = load_encoder(None, random_seed=7)
    assert encoder.name == "RANDOM-WEIGHTS-resnet50_trunc-seed7"
    assert "mean nothing" in encoder.weights


def test_older_files_lack_counters_of_training(state):
    older = {key: value for key, value in state.items() if "num_batches" not in key}
    network = TruncatedResNet50()
    load_into(network, older, "file")
    assert digest_of(network) == digest_of(random_network(3))


def test_missing_and_misshapen_tensors_are_named(state):
    lacking = {key: value for key, value in state.items() if not key.startswith("layer3.5")}
    with pytest.raises(FaultError, match=r"w\.pth: found 15 tensors missing \(first: layer3\.5"):
        load_into(TruncatedResNet50(), lacking, "w.pth")
    other = state | {"conv1.weight": torch.zeros(64, 1, 7, 7)}
    with pytest.raises(FaultError, match=r"1 of other shape \(first: conv1.weight of \(64, 1,"):
        load_into(TruncatedResNet50(), other, "w.pth")


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
        load_encoder(tmp_path / name)
    assert "ran" not in capfd.readouterr().out


def test_a_tensor_is_no_state_dict(tmp_path):
    torch.save(torch.zeros(3), tmp_path / "w.pth")
    with pytest.raises(FaultError, match="found a Tensor; expected a state dict"):
        load_encoder(tmp_path / "w.pth")
    with pytest.raises(FaultError, match="no such file"):
        load_encoder(tmp_path / "absent.pth")


def test_without_a_network_it_says_how_to_get_weights(monkeypatch):
    def unreachable(*_, **__):
        raise OSError("Name or service not known")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", unreachable)
    with pytest.raises(GimpError, match=r"not known(.|\n)*curl(.|\n)*--weights FILE.*--random-w"):
        load_encoder(None)


def test_the_server_s_weights_are_checked_and_not_unpickled(monkeypatch, state):
    asked = {}

    def serve(url, **options):
        asked.update(options, url=url)
        return state

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", serve)
    assert load_encoder(None).weights == weights.URL
    assert asked["check_hash"]
    assert asked["weights_only"]


@pytest.mark.parametrize(
    ("device", "precision", "said"),
    [
        ("cpu", "fp16", "--precision fp16 needs a GPU"),
        ("gpu", "fp32", "--device gpu: .*expected cpu or cuda"),
        ("cuda:99", "fp32", "--device cuda:99"),
    ],
)
def test_devices_that_are_not_there(device, precision, said):
    with pytest.raises(GimpError, match=said):
        load_encoder(None, random_seed=0, device=device, precision=precision)
