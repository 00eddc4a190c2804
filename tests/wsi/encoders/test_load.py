"""Encoders by name, of timm and of a user's file: what they are called, and their features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from builders.encoders import by_formula, of_transformers, small

from gimp_fast.errors import FaultError, GimpError
from gimp_fast.wsi import available_encoders, register_encoder
from gimp_fast.wsi.encoder import load_encoder
from gimp_fast.wsi.encoders.presets import PRESETS
from gimp_fast.wsi.encoders.recipe import Recipe
from gimp_fast.wsi.encoders.running import Encoder, fitted
from gimp_fast.wsi.options import EncoderOptions

pytest.importorskip("timm")
EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "plugins" / "own_vit.py"
TINY = "timm:test_vit"  # 0.4 million parameters, 160 pixels


def pixels(number: int = 2, side: int = 224) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (number, side, side, 3), np.uint8)


@pytest.fixture
def phikon(monkeypatch, tmp_path) -> Path:
    """Weights of a small Phikon in its authors' names."""
    monkeypatch.setitem(PRESETS, "phikon", small("phikon"))
    path = tmp_path / "phikon" / "pytorch_model.bin"
    path.parent.mkdir()
    torch.save(by_formula(of_transformers("vit", 16)), path)
    return path


def test_a_named_encoder_reads_its_authors_file(phikon):
    encoder = load_encoder(EncoderOptions(phikon.parents[1], encoder="phikon", offline=True))
    assert encoder.name.startswith("phikon-")
    assert encoder.weights == "phikon/pytorch_model.bin"
    assert encoder(pixels()).shape == (2, 48)
    assert encoder.facts["encoder_licence"] == "Owkin non-commercial"
    assert encoder.facts["preprocessing"] == PRESETS["phikon"].recipe.text
    assert len(encoder.facts["weights_digest"]) == 64
    again = load_encoder(EncoderOptions(phikon, encoder="phikon"))
    assert again.name == encoder.name
    assert np.array_equal(again(pixels()), encoder(pixels()))


def test_other_weights_or_another_preprocessing_have_another_name(phikon, monkeypatch):
    options = EncoderOptions(phikon, encoder="phikon")
    first = load_encoder(options).name
    monkeypatch.setitem(PRESETS, "phikon", small("phikon").__class__(
        **{**vars(small("phikon")), "recipe": Recipe(size=224, smoothing="bicubic")}))  # fmt: skip
    assert load_encoder(options).name != first
    state = by_formula(of_transformers("vit", 16))
    torch.save(state | {"layernorm.bias": state["layernorm.bias"] + 1}, phikon)
    monkeypatch.setitem(PRESETS, "phikon", small("phikon"))
    assert load_encoder(options).name != first


def test_a_file_of_another_encoder_is_refused(phikon):
    torch.save({"conv1.weight": torch.zeros(3)}, phikon)
    with pytest.raises(FaultError, match=r"pytorch_model\.bin: found 'embeddings"):
        load_encoder(EncoderOptions(phikon, encoder="phikon"))


def test_random_weights_of_a_named_encoder_say_so(phikon):
    encoder = load_encoder(EncoderOptions(random_weights=True, seed=3, encoder="phikon"))
    assert encoder.name == "RANDOM-WEIGHTS-phikon-seed3"
    assert "mean nothing" in encoder.weights


def test_any_model_of_timm(tmp_path):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    encoder = load_encoder(EncoderOptions(random_weights=True, encoder=TINY), 256)
    assert torch.equal(torch.get_rng_state(), before)
    assert (encoder.name, encoder.dim) == ("RANDOM-WEIGHTS-timm-test_vit-seed0", 64)
    assert encoder.recipe.size == 160
    torch.save(encoder.network.state_dict(), tmp_path / "w.pth")
    loaded = load_encoder(EncoderOptions(tmp_path / "w.pth", encoder=TINY), 256)
    assert loaded.name.startswith("timm-test_vit-")
    assert np.array_equal(loaded(pixels()), encoder(pixels()))
    bf16 = load_encoder(
        EncoderOptions(tmp_path / "w.pth", encoder=TINY, precision="bf16"), 256
    )(pixels())  # fmt: skip
    assert 0 < np.abs(bf16 - loaded(pixels())).max() < 0.1


def test_models_that_timm_does_not_have():
    with pytest.raises(GimpError, match=r"no model 'tst_vit'.*did you mean 'test_vit"):
        load_encoder(EncoderOptions(random_weights=True, encoder="timm:tst_vit"))
    with pytest.raises(GimpError, match="--offline: expected --weights FILE"):
        load_encoder(EncoderOptions(encoder=TINY, offline=True))


def test_names_of_published_encoders_are_taken():
    assert {"resnet50", *PRESETS} <= set(available_encoders())
    with pytest.raises(ValueError, match="'uni' is taken"):
        register_encoder("uni", lambda weights: None)
    with pytest.raises(GimpError, match="did you mean 'virchow2'"):
        load_encoder(EncoderOptions(encoder="vircow2"))


@pytest.mark.skipif(not EXAMPLE.is_file(), reason="the tests lie without the examples")
def test_the_example_of_an_own_encoder(tmp_path):
    options = EncoderOptions(encoder=f"{EXAMPLE}:make")
    network = load_encoder(options, 224).network
    torch.save(network.state_dict(), tmp_path / "mine.pth")
    options = EncoderOptions(tmp_path / "mine.pth", encoder="my_vit")
    encoder = load_encoder(options, 256)
    assert (encoder.dim, encoder.weights) == (192, "mine.pth")
    assert encoder(pixels(side=256)).shape == (2, 192)
    assert encoder.facts["preprocessing"].startswith("224 pixels (bilinear); mean 0.5 0.5 0.5")


@pytest.mark.parametrize("smoothing", ["bilinear", "bicubic"])
def test_patches_are_resized_as_by_pillow(smoothing):
    from PIL import Image

    filters = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    patch = np.repeat(np.repeat(pixels(1, 32)[0], 8, 0), 8, 1)
    expected = np.asarray(Image.fromarray(patch).resize((224, 224), filters[smoothing]))
    recipe = Recipe(size=224, smoothing=smoothing)
    found = fitted(torch.from_numpy(patch).permute(2, 0, 1)[None].float(), recipe)
    found = found[0].permute(1, 2, 0)
    assert np.abs(found.numpy() - expected).max() <= 1


def test_the_middle_of_a_patch():
    patches = torch.arange(256.0).expand(1, 3, 256, 256)
    middle = fitted(patches, Recipe(size=224, margin=32))
    assert torch.equal(middle, patches[:, :, 16:240, 16:240])
    already = patches[:, :, :224, :224]
    assert fitted(already, Recipe(size=224, margin=32)) is already
    assert fitted(patches, Recipe()) is patches


def test_the_recipe_is_applied_before_the_network():
    recipe = Recipe((0.5, 0.5, 0.5), (0.25, 0.25, 0.25), 16)
    seen = []

    class Look(torch.nn.Module):
        def forward(self, x):
            seen.append(x)
            return x.mean((2, 3))

    Encoder(Look(), "name", "weights", recipe=recipe)(np.full((1, 32, 32, 3), 255, np.uint8))
    assert seen[0].shape == (1, 3, 16, 16)
    assert torch.equal(seen[0], torch.full((1, 3, 16, 16), 2.0))
