"""Where weights are looked for, and what is said if there are none."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from gimp_fast.errors import FaultError, GimpError
from gimp_fast.wsi.encoders.presets import PRESETS
from gimp_fast.wsi.encoders.weights import find_weights, read_state

UNI, CTRANSPATH = PRESETS["uni"], PRESETS["ctranspath"]


@pytest.mark.parametrize(
    "place",
    ["uni/model.safetensors", "uni/pytorch_model.bin", "model.safetensors", "uni.pth", "uni.bin"],
)
def test_a_folder_of_weights(tmp_path, place):
    file = tmp_path / place
    file.parent.mkdir(exist_ok=True)
    file.touch()
    (tmp_path / "virchow.pth").touch()
    assert find_weights("uni", UNI, tmp_path, offline=True) == (file, place)


def test_a_file_is_taken_whatever_its_name(tmp_path):
    (tmp_path / "mine.bin").touch()
    found = find_weights("uni", UNI, tmp_path / "mine.bin", offline=True)
    assert found == (tmp_path / "mine.bin", "mine.bin")
    with pytest.raises(FaultError, match="no such file; expected weights of UNI"):
        find_weights("uni", UNI, tmp_path / "absent", offline=True)


def test_an_empty_folder_says_what_to_bring(tmp_path):
    with pytest.raises(GimpError) as error:
        find_weights("uni", UNI, tmp_path, offline=False)
    for text in (
        "model.safetensors or pytorch_model.bin from https://huggingface.co/MahmoodLab/UNI",
        "licence: CC-BY-NC-ND-4.0", "FOLDER/uni/model.safetensors or FOLDER/uni.safetensors",
        "--weights FOLDER",
    ):  # fmt: skip
        assert text in str(error.value)


def test_offline_never_asks_the_network(monkeypatch, tmp_path):
    hub = pytest.importorskip("huggingface_hub")
    asked = []

    def download(repository, file, local_files_only):
        asked.append((repository, file, local_files_only))
        raise hub.errors.LocalEntryNotFoundError("not in the cache")

    monkeypatch.setattr(hub, "hf_hub_download", download)
    with pytest.raises(GimpError, match=r"--encoder uni: found no weights .*\(--offline\); where"):
        find_weights("uni", UNI, None, offline=True)
    assert asked == [("MahmoodLab/UNI", file, True) for file in UNI.files]


def test_without_a_network_the_hub_is_asked_once(monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    asked = []

    def download(repository, file, local_files_only):
        asked.append(file)
        raise hub.errors.LocalEntryNotFoundError("no network")

    monkeypatch.setattr(hub, "hf_hub_download", download)
    with pytest.raises(GimpError, match=r"in its cache \(.*no network\); where there is a network"):
        find_weights("uni", UNI, None, offline=False)
    assert asked == ["model.safetensors"]


def test_a_refusal_of_the_hub_is_told(monkeypatch):
    hub = pytest.importorskip("huggingface_hub")

    def refuse(*_, **__):
        raise PermissionError("401: the terms are not accepted")

    monkeypatch.setattr(hub, "hf_hub_download", refuse)
    with pytest.raises(GimpError, match=r"refused: .*401: the terms"):
        find_weights("uni", UNI, None, offline=False)


def test_the_hub_s_file_is_used(monkeypatch, tmp_path):
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub, "hf_hub_download", lambda *_, **__: str(tmp_path / "x"))
    path, source = find_weights("uni", UNI, None, offline=False)
    assert path == tmp_path / "x"
    assert source == "https://huggingface.co/MahmoodLab/UNI, model.safetensors"


def test_weights_that_are_not_on_the_hub(monkeypatch):
    with pytest.raises(GimpError, match=r"found no weights without --weights; .*Xiyue-Wang/Trans"):
        find_weights("ctranspath", CTRANSPATH, None, offline=False)


@pytest.mark.parametrize("name", ["w.pth", "w.bin", "w.safetensors"])
def test_tensors_are_read_without_code(tmp_path, name):
    state = {"a": torch.arange(3.0)}
    path = tmp_path / name
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    assert torch.equal(read_state(path)["a"], state["a"])
