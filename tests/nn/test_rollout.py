"""Attention rollout and CLS attention of the aggregator against dense matrices in fp64."""

from __future__ import annotations

import pytest
import torch
from builders.packed import cu_seqlens_of, random_rows

from gimp_fast.nn import PatchAggregator, attention_rollout, cls_attention
from gimp_fast.reference.nystrom_attention_row import nystrom_matrix_reference

HEADS, M = 4, 8


def aggregator(num_layers=2, gain=3.0, dtype=torch.float64):
    torch.manual_seed(0)
    module = PatchAggregator(
        feature_dim=12, dim=16, heads=HEADS, num_landmarks=M, num_layers=num_layers
    )
    for layer in module.layers:
        layer.to_qkv.weight.data *= gain
    return module.to(dtype).eval()


def bag(n, seed=0):
    return random_rows(n, 12, seed=seed)


def dense_matrices(module, patches):
    """A of every layer for one bag (N, C): (H, N + 1, N + 1) each."""
    hidden = torch.cat([module.cls_token[None], module.embed(patches)])[None]
    matrices = []
    for norm, layer in zip(module.norms, module.layers, strict=True):
        x = norm(hidden)
        q, k, _ = (
            part.unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for part in layer.to_qkv(x).chunk(3, dim=-1)
        )
        matrices.append(nystrom_matrix_reference(q, k, num_landmarks=M)[0])
        hidden = hidden + layer(x)
    return matrices


def dense_rollout(module, patches):
    eye = torch.eye(len(patches) + 1, dtype=torch.float64)
    product = eye
    for matrix in dense_matrices(module, patches):
        product = 0.5 * (matrix.mean(0) + eye) @ product
    return product[0, 1:]


@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("n", [1, 6, 7, 8, 15, 50, 101])
def test_rollout_is_the_cls_row_of_the_product_of_matrices(n, num_layers):
    module = aggregator(num_layers)
    found = attention_rollout(module, bag(n)[None])
    torch.testing.assert_close(found, dense_rollout(module, bag(n))[None], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("layer", [0, 1, -1, -2])
@pytest.mark.parametrize("n", [1, 7, 8, 50])
def test_cls_attention_is_the_first_row_of_that_layers_matrix(n, layer):
    module = aggregator()
    found = cls_attention(module, bag(n)[None], layer=layer)
    expected = dense_matrices(module, bag(n))[layer][None, :, 0, 1:]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_ragged_packed_bags_equal_each_bag_alone():
    module = aggregator()
    lengths = (1, 7, 0, 8, 30, 2, 101)
    bags = [bag(n, seed=n) for n in lengths]
    cu_seqlens = cu_seqlens_of(lengths)
    rollout = attention_rollout(module, torch.cat(bags), cu_seqlens=cu_seqlens)
    rows = cls_attention(module, torch.cat(bags), cu_seqlens=cu_seqlens)
    assert rollout.shape == (sum(lengths),)
    assert rows.shape == (HEADS, sum(lengths))
    for x, weights, heads in zip(
        bags, rollout.split(lengths), rows.split(lengths, dim=1), strict=True
    ):
        torch.testing.assert_close(weights, dense_rollout(module, x), rtol=1e-9, atol=1e-12)
        expected = cls_attention(module, x[None])[0]
        torch.testing.assert_close(heads, expected, rtol=1e-9, atol=1e-12)


def test_bags_of_a_batch_equal_each_bag_alone():
    module = aggregator()
    batch = torch.stack([bag(50, seed=i) * (1 + i) for i in range(3)])
    expected = torch.stack([dense_rollout(module, x) for x in batch])
    torch.testing.assert_close(attention_rollout(module, batch), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("n", [7, 200], ids=["exact", "nystrom"])
def test_a_planted_patch_is_found(n):
    """The key of the planted patch has the direction of the query of CLS; others are small."""
    module = aggregator()
    patches = 0.1 * bag(n)
    planted = n // 3
    patches[planted] = 10 * bag(1, seed=5)
    for norm, layer in zip(module.norms, module.layers, strict=True):
        weight = layer.to_qkv.weight.data.unflatten(0, (3, -1))
        cls, lure = norm(module.cls_token), norm(module.embed(patches[planted]))
        direction = torch.ones(16, dtype=torch.float64)
        weight[0] = 3 * torch.outer(direction, cls)
        weight[1] = 3 * torch.outer(direction, lure)
    assert attention_rollout(module, patches[None])[0].argmax() == planted
    assert (cls_attention(module, patches[None], layer=0)[0].argmax(-1) == planted).all()


def test_weights_with_that_of_cls_sum_to_about_one():
    module = aggregator(gain=1.0)
    product = torch.eye(51, dtype=torch.float64)
    for matrix in dense_matrices(module, bag(50)):
        product = 0.5 * (matrix.mean(0) + torch.eye(51)) @ product
    total = attention_rollout(module, bag(50)[None]).sum() + product[0, 0]
    assert total.item() == pytest.approx(1, abs=1e-2)


def test_the_aggregator_is_left_as_it_was():
    module = aggregator()
    before = module(bag(20)[None])[0]
    attention_rollout(module, bag(20)[None])
    cls_attention(module, bag(20)[None])
    assert not any(layer._forward_pre_hooks for layer in module.layers)
    assert torch.equal(module(bag(20)[None])[0], before)
    assert not attention_rollout(module, bag(20)[None]).requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_lower_precisions_give_fp32_near_fp64(dtype):
    patches = bag(60)[None].to(dtype)
    exact = attention_rollout(aggregator(gain=1.0), patches.double())
    found = attention_rollout(aggregator(gain=1.0, dtype=dtype), patches)
    assert found.dtype == torch.float32
    tolerance = {torch.float32: 1e-4, torch.bfloat16: 5e-2}[dtype]
    assert (found.double() - exact).norm() <= tolerance * exact.norm()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: attention_rollout(m, bag(4)), r"\(B, N, 12\), got \(4, 12\)"),
        (lambda m: attention_rollout(m, bag(4), cu_seqlens=torch.tensor([0, 3])), "tokens 4"),
        (lambda m: cls_attention(m, bag(4)[None], layer=2), "layer 2 is outside the 2 layers"),
        (lambda m: cls_attention(m, bag(4)[None], layer=-3), "layer -3 is outside the 2 layers"),
    ],
    ids=["dims", "bounds", "layer-too-large", "layer-too-small"],
)
def test_bad_input_names_what_is_wrong(call, message):
    module = aggregator()
    with pytest.raises(ValueError, match=message):
        call(module)
    assert not any(layer._forward_pre_hooks for layer in module.layers)
