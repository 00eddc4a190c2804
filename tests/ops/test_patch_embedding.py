"""Embedding with CLS and mask tokens against the composition of torch's operators."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from builders.errors import assert_near, relative_error

from gimp_fast.ops import patch_embedding
from gimp_fast.ops.packing import Bags
from gimp_fast.ops.patch_embedding import (
    embed_patches,
    place_cls,
    place_patches,
    take_rows_of_residual,
)

BAGS = {
    "one patch": (1,),
    "one bag": (9,),
    "ragged": (3, 1, 17, 8),
    "empty bags": (0, 5, 0, 0, 4, 0),
    "no patches": (0,),
    "no bags": (),
}


def sample_inputs(lengths, masks=True, dtype=torch.float64, widths=(6, 10)):
    """Arguments of ``embed_patches``, the tensors requiring a gradient first."""
    channels, d = widths
    generator = torch.Generator().manual_seed(sum(lengths))

    def normal(*size):
        return torch.randn(size, generator=generator, dtype=torch.float64).to(dtype)

    tensors = [normal(sum(lengths), channels), normal(d, channels), *(normal(d) for _ in range(3))]
    masked = torch.rand(sum(lengths), generator=generator) < 0.5 if masks else None
    return [x.requires_grad_() for x in tensors], Bags.of_lengths(lengths), masked


def composed(patches, weight, bias, cls_token, mask_token, bags, masked):
    tokens = F.linear(patches, weight, bias)
    if masked is not None:
        tokens = torch.where(masked[:, None], mask_token, tokens)
    parts = [x for a, b in bags.spans for x in (cls_token[None], tokens[a:b])]
    return torch.cat([tokens[:0], *parts])


@pytest.mark.parametrize("chunk", [1, 3, 2000])
@pytest.mark.parametrize("masks", [False, True], ids=["whole", "masked"])
@pytest.mark.parametrize("lengths", BAGS.values(), ids=BAGS)
def test_equals_the_composition(lengths, masks, chunk, monkeypatch):
    monkeypatch.setattr(patch_embedding, "CHUNK_CPU", chunk)
    tensors, bags, masked = sample_inputs(lengths, masks)
    found = embed_patches(*tensors, bags, masked)
    expected = composed(*tensors, bags, masked)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    grad = torch.randn_like(expected)
    wanted = torch.autograd.grad(expected, tensors, grad, materialize_grads=True)
    gradients = torch.autograd.grad(found, tensors, grad, materialize_grads=True)
    for a, b in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_gradcheck():
    tensors, bags, masked = sample_inputs((3, 1, 4))
    assert torch.autograd.gradcheck(lambda *x: embed_patches(*x, bags, masked), tensors)


@pytest.mark.parametrize("wanted", range(5))
def test_one_gradient_alone(wanted):
    tensors, bags, masked = sample_inputs((3, 6))
    expected = torch.autograd.grad(embed_patches(*tensors, bags, masked).sin().sum(), tensors)
    for i, x in enumerate(tensors):
        x.requires_grad_(i == wanted)
    out = embed_patches(*tensors, bags, masked)
    (found,) = torch.autograd.grad(out.sin().sum(), tensors[wanted])
    assert torch.equal(found, expected[wanted])


@pytest.mark.parametrize("masks", [False, True], ids=["whole", "masked"])
def test_a_bag_is_bitwise_the_same_alone_and_among_others(masks):
    lengths = (700, 33, 1200)
    tensors, bags, masked = sample_inputs(lengths, masks, torch.float32, (64, 128))
    together = embed_patches(*tensors, bags, masked)
    places = [(a + i, b + i + 1) for i, (a, b) in enumerate(bags.spans)]
    for (a, b), (first, last) in zip(bags.spans, places, strict=True):
        part = None if masked is None else masked[a:b]
        alone = embed_patches(tensors[0][a:b], *tensors[1:], Bags.of_lengths([b - a]), part)
        assert torch.equal(alone, together[first:last])


def test_masked_patches_are_not_read():
    tensors, bags, masked = sample_inputs((5, 9))
    clean = embed_patches(*tensors, bags, masked)
    with torch.no_grad():
        tensors[0][masked] = float("nan")
    found = embed_patches(*tensors, bags, masked)
    assert torch.equal(found, clean)
    found.sum().backward()
    assert all(x.grad.isfinite().all() for x in tensors[1:])


def test_autocast_gives_its_type_and_fp32_gradients():
    tensors, bags, masked = sample_inputs((50, 80), dtype=torch.float32)
    expected = composed(*tensors, bags, masked)
    with torch.autocast("cpu", torch.bfloat16):
        found = embed_patches(*tensors, bags, masked)
    assert found.dtype == torch.bfloat16
    assert relative_error(found, expected) <= 1e-2
    grad = torch.randn_like(expected)
    gradients = torch.autograd.grad(found, tensors[1:], grad.bfloat16())
    assert [x.dtype for x in gradients] == [torch.float32] * 4
    assert_near(gradients, torch.autograd.grad(expected, tensors[1:], grad), 2e-2)


def test_places():
    bags = Bags.of_lengths([0, 3, 0, 2])
    assert place_cls(bags).tolist() == [0, 1, 5, 6]
    assert place_patches(torch.arange(5), bags).tolist() == [2, 3, 4, 7, 8]
    assert place_cls(Bags.of_lengths([4])).tolist() == [0]


def test_a_count_of_the_masked_patches_changes_nothing():
    tensors, bags, masked = sample_inputs((3, 1, 17))
    found = embed_patches(*tensors, bags, masked, int(masked.sum()))
    assert torch.equal(found, embed_patches(*tensors, bags, masked))


def test_rows_around_a_residual_have_the_gradient_of_the_plain_ones():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(9, 4, generator=generator, dtype=torch.float64).requires_grad_()
    rows = torch.tensor([1, 4, 8])

    def loss(taken, kept):
        return (taken.sin() + F.layer_norm(kept, (4,))[rows].exp()).sum()

    found = torch.autograd.grad(loss(*take_rows_of_residual(x, rows)), x)
    expected = torch.autograd.grad(loss(x[rows], x), x)
    torch.testing.assert_close(found, expected)


def test_the_gradient_of_rows_around_a_residual_is_added_in_place():
    x, rows = torch.zeros(9, 4, requires_grad=True), torch.tensor([1, 4, 8])
    taken, kept = take_rows_of_residual(x, rows)
    of_kept = torch.full((9, 4), 2.0)
    (found,) = torch.autograd.grad((taken, kept), x, (torch.ones(3, 4), of_kept))
    assert found.data_ptr() == of_kept.data_ptr()
    assert found.sum(1).tolist() == [8, 12, 8, 8, 12, 8, 8, 8, 12]
