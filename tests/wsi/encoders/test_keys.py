"""Tensors of published files find their place: numbers that the original networks gave."""

from __future__ import annotations

import pytest
import torch
from builders.encoders import DIM, by_formula, image, of_older_timm, of_transformers, small

from gimp_fast.errors import FaultError

pytest.importorskip("timm")

from gimp_fast.wsi.encoders.conch import BiasFreePooler
from gimp_fast.wsi.encoders.keys import load_state
from gimp_fast.wsi.encoders.networks import build

SWIN = {"embed_dim": 24, "depths": (2, 2, 1, 1), "num_heads": (1, 2, 4, 8)}
# In fp64, from these weights: by ViTModel, Dinov2Model and Dinov2WithRegistersModel of
# transformers 5.24, and by SwinTransformer of timm 0.5.4 with CTransPath's stem.
CASES = {
    "phikon": (
        of_transformers("vit", 16), {"embed_dim": DIM, "depth": 2}, 1.0,
        [-0.208838, 0.343598, -0.198512, 0.324599, -0.388815, 0.352984], -0.2847589242321861,
    ),
    "phikon-v2": (
        of_transformers("dinov2", 16), {"embed_dim": DIM, "depth": 2}, 1.0,
        [-0.017547, 0.352841, -0.341396, 0.046496, -0.302912, -0.277188], 1.846768650060774,
    ),
    "hibou-b": (
        of_transformers("swiglu", 14, registers=4, hidden=256),
        {"embed_dim": DIM, "depth": 2, "mlp_ratio": 256 / DIM}, 1.0,
        [-0.228013, 0.40001, -0.397059, 0.044233, -0.222682, -0.288774], 1.6671883263319258,
    ),
    "ctranspath": (
        of_older_timm(build(small("ctranspath", **SWIN), "test")), SWIN, 0.2,
        [-0.969387, 0.043588, 0.149909, 0.366541, -0.393939, -0.127133], -2.792083358567365,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_features_are_those_of_the_original(name):
    shapes, arguments, tables, first, total = CASES[name]
    preset = small(name, **arguments)
    network = build(preset, "test").eval()
    load_state(network, by_formula(shapes, tables), preset.names, "file")
    with torch.inference_mode():
        features = network.double()(image().double())[0]
    assert features[:6].tolist() == pytest.approx(first, abs=2e-5)
    assert features.sum().item() == pytest.approx(total, abs=1e-4)


def conch_state(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """As CONCH publishes it: the image tower among the others."""
    shapes = {f"visual.{key}": tuple(v.shape) for key, v in network.state_dict().items()}
    others = ("text.token_embedding.weight", "visual.proj_contrast", "logit_scale",
              "visual.attn_pool_caption.query", "text_decoder.resblocks.0.ln_1.bias")  # fmt: skip
    return by_formula(shapes) | by_formula(dict.fromkeys(others, (4, 4)))


def test_the_image_tower_of_conch_is_taken_from_the_whole_model():
    network = build(small("conch", img_size=224, embed_dim=DIM, depth=1), "test")
    state = conch_state(network)
    load_state(network, state, "conch", "file")
    for key, value in network.state_dict().items():
        assert torch.equal(value, state[f"visual.{key}"])


@pytest.mark.parametrize("name", ["conch", "conch-v1.5"])
def test_position_embeddings_of_another_grid_are_fitted(name):
    arguments = {"embed_dim": 64, "depth": 1, "num_heads": 4, "img_size": 448}
    network = build(small(name, **arguments), "test").eval()
    shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    state = by_formula(shapes | {"trunk.pos_embed": (1, 1 + 14**2, 64)})
    load_state(network, state, name, "file")
    place = network.trunk.pos_embed
    assert place.shape == (1, 1 + 28**2, 64)
    assert torch.equal(place[:, 0], state["trunk.pos_embed"][:, 0])
    with torch.inference_mode():
        assert network(image(448)).shape == (1, {"conch": 512, "conch-v1.5": 768}[name])


def test_the_pooler_of_conch_15_is_attention_of_one_query():
    torch.manual_seed(0)
    pooler = BiasFreePooler(16, 24).double().eval()
    torch.nn.init.normal_(pooler.query)
    tokens = torch.randn(3, 7, 24, dtype=torch.float64)
    key, value = pooler.to_kv(pooler.ln_k(tokens)).chunk(2, -1)
    query = pooler.to_q(pooler.ln_q(pooler.query))[0]
    parts = []
    for head in range(8):
        own = slice(2 * head, 2 * head + 2)
        weights = (key[..., own] @ query[own] / 2**0.5).softmax(-1)  # (3, 7)
        parts.append((weights[..., None] * value[..., own]).sum(1))
    expected = pooler.to_out(torch.cat(parts, -1))
    torch.testing.assert_close(pooler(tokens), expected)


def phikon() -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    return build(small("phikon"), "test"), by_formula(of_transformers("vit", 16))


@pytest.mark.parametrize("wrap", ["model", "state_dict"])
def test_wrappers_and_prefixes_of_training_are_removed(wrap):
    network, state = phikon()
    load_state(network, {wrap: {f"module.{key}": v for key, v in state.items()}, "epoch": 3},
               "transformers", "file")  # fmt: skip
    assert torch.equal(network.norm.bias, state["layernorm.bias"])


def test_files_of_another_network_are_refused_by_name():
    network, state = phikon()
    lacking = {key: v for key, v in state.items() if not key.startswith("layernorm")}
    with pytest.raises(FaultError, match=r"2 tensors missing \(norm\.weight, norm\.bias\)"):
        load_state(network, lacking, "transformers", "file")
    with pytest.raises(FaultError, match="1 tensor that the network does not have"):
        load_state(network, state | {"embeddings.register_tokens": torch.zeros(1, 4, DIM)},
                   "transformers", "file")  # fmt: skip
    with pytest.raises(FaultError, match=r"'norm\.bias' of shape \(3,\) \(expected \(48,\)\)"):
        load_state(network, state | {"layernorm.bias": torch.zeros(3)}, "transformers", "file")
    with pytest.raises(FaultError, match=r"'embeddings\.position_embeddings' is missing"):
        load_state(network, {"a": torch.zeros(1)}, "transformers", "file")
    with pytest.raises(FaultError, match="no tensor under 'epoch'"):
        load_state(network, {"epoch": 3}, "transformers", "file")
    with pytest.raises(FaultError, match="nothing"):
        load_state(network, {}, "timm", "file")
