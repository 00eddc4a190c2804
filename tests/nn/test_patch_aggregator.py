"""PatchAggregator and PatchDecoder: packed equals dense, masking, tiny bags."""

from __future__ import annotations

import pytest
import torch

from gimp_fast.nn import PatchAggregator, PatchDecoder


def aggregator(**kwargs):
    torch.manual_seed(0)
    defaults = {"feature_dim": 12, "dim": 16, "heads": 4, "num_landmarks": 8}
    return PatchAggregator(**(defaults | kwargs)).double()


def bag(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 12, generator=generator, dtype=torch.float64)


def test_packed_bags_equal_each_bag_alone():
    module = aggregator()
    lengths = (1, 7, 8, 30, 2)
    bags = [bag(n, seed=n) for n in lengths]
    bounds = torch.tensor([0, *lengths]).cumsum(0).int()
    cls, tokens = module(torch.cat(bags), cu_seqlens=bounds)
    assert cls.shape == (5, 16)
    for i, (x, found) in enumerate(zip(bags, tokens.split(lengths), strict=True)):
        cls_alone, tokens_alone = module(x[None])
        torch.testing.assert_close(cls[i : i + 1], cls_alone, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(found[None], tokens_alone, rtol=1e-10, atol=1e-10)


def test_masked_patches_are_invisible():
    module = aggregator()
    x = bag(40)[None]
    masked = torch.zeros(1, 40, dtype=torch.bool)
    masked[0, 5:15] = True
    changed = x.clone()
    changed[0, 5:15] += 100
    for a, b in zip(module(x, masked=masked), module(changed, masked=masked), strict=True):
        assert torch.equal(a, b)
    assert not torch.allclose(module(x)[0], module(changed)[0])


def test_all_parameters_get_gradients():
    module = aggregator()
    masked = torch.arange(40)[None] % 2 == 0
    cls, tokens = module(bag(40)[None], masked=masked)
    (cls.square().sum() + tokens.sin().sum()).backward()
    assert all(p.grad is not None and p.grad.any() for p in module.parameters())


@pytest.mark.parametrize("hidden", [0, 24], ids=["linear", "hidden"])
def test_decoder_maps_rows(hidden):
    decoder = PatchDecoder(16, 12, hidden=hidden)
    assert decoder(torch.randn(5, 16)).shape == (5, 12)
    assert decoder(torch.randn(0, 16)).shape == (0, 12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m(bag(4)), r"\(B, N, 12\), got \(4, 12\)"),
        (lambda m: m(bag(4)[None], cu_seqlens=torch.tensor([0, 4])), r"packed \(T, 12\)"),
        (lambda m: m(bag(4)[None, :, :5]), r"got \(1, 4, 5\)"),
        (lambda m: m(bag(4)[None], masked=torch.ones(1, 5) > 0), r"\(1, 4\), got \(1, 5\)"),
        (lambda m: m(bag(4), cu_seqlens=torch.tensor([0, 3])), r"tokens 4, got \[0, 3\]"),
    ],
)
def test_bad_input_names_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call(aggregator())
