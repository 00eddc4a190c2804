"""The module against nystrom-attention 0.0.14: equal where that is correct, and its faults."""

from __future__ import annotations

import pytest
import torch
from builders.packed import cu_seqlens_of, random_rows
from builders.peers import equal_heads, summed_over_heads

from gimp_fast.nn import NystromAttention

peer_package = pytest.importorskip("nystrom_attention")

DIM, HEADS, DIM_HEAD, M = 32, 4, 8, 16


def module_and_peer(dtype=torch.float64, same_heads=True, **kwargs):
    torch.manual_seed(0)
    peer = peer_package.NystromAttention(
        DIM, dim_head=DIM_HEAD, heads=HEADS, num_landmarks=M, **kwargs
    )
    peer.to_qkv.weight.data *= 3
    if same_heads:
        peer.to_qkv.weight.data = equal_heads(peer.to_qkv.weight.data, HEADS)
    ours = NystromAttention(DIM, dim_head=DIM_HEAD, heads=HEADS, num_landmarks=M, **kwargs)
    ours.load_state_dict(peer.state_dict())
    return ours.to(dtype).eval(), peer.to(dtype).eval()


def bag(n, dtype=torch.float64, seed=0, batch=1):
    return random_rows(batch, n, DIM, seed=seed, dtype=dtype)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)], ids=["fp64", "fp32"]
)
@pytest.mark.parametrize("n", [32, 48, 256, 1024])
@pytest.mark.parametrize("residual", [True, False], ids=["residual", "plain"])
def test_equals_the_peer_where_landmarks_divide_one_bag(n, residual, dtype, tolerance):
    """The peer runs in fp64, because on some processors torch's fp32 Conv2d has wrong gradients."""
    ours, peer = module_and_peer(residual=residual)
    ours.to(dtype)
    x_ours, x_peer = (bag(n, kind).requires_grad_() for kind in (dtype, torch.float64))
    out, expected = ours(x_ours), peer(x_peer)
    torch.testing.assert_close(out, expected, atol=tolerance, rtol=tolerance, check_dtype=False)
    assert out.dtype == dtype
    weight = bag(n, seed=5)
    (out * weight).sum().backward()
    (expected * weight).sum().backward()
    scale = x_peer.grad.abs().max()
    assert (x_ours.grad - x_peer.grad).abs().max() <= 10 * tolerance * scale
    for (name, a), (_, b) in zip(ours.named_parameters(), peer.named_parameters(), strict=True):
        found, expected = a.grad, b.grad
        if name == "to_qkv.weight":
            found, expected = (summed_over_heads(grad, HEADS) for grad in (found, expected))
        assert (found - expected).abs().max() <= 10 * tolerance * expected.abs().max(), name


def test_state_dict_keys_and_shapes_are_the_peers():
    ours, peer = module_and_peer()
    assert {k: v.shape for k, v in ours.state_dict().items()} == {
        k: v.shape for k, v in peer.state_dict().items()
    }


def test_no_padding_tokens_take_part_unlike_in_the_peer():
    """The peer pads N = 100 to 112; the reference pads nothing."""
    ours, peer = module_and_peer(residual=False)
    x = bag(100)
    reference = NystromAttention(
        DIM, DIM_HEAD, HEADS, M, residual=False, backend="reference"
    ).double()
    reference.load_state_dict(ours.state_dict())
    expected = reference(x)
    torch.testing.assert_close(ours(x), expected)
    assert (peer(x) - expected).abs().max() > 1e-3 * expected.abs().max()


def test_batch_mates_do_not_matter_unlike_in_the_peer():
    ours, peer = module_and_peer(same_heads=False)
    x = torch.cat([bag(64), bag(64, seed=1) * 4])
    assert torch.equal(ours(x)[:1], ours(x[:1]))
    assert not torch.allclose(peer(x)[:1], peer(x[:1]), rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_half_precision_runs_unlike_the_peer(dtype):
    ours, peer = module_and_peer(dtype)
    x = bag(64, dtype)
    exact = ours.double()(x.double())
    out = ours.to(dtype)(x)
    assert (out.double() - exact).norm() <= 2e-2 * exact.norm()
    with pytest.raises(RuntimeError):
        peer(x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fp32", "fp64"])
def test_bags_are_bitwise_the_same_alone_in_a_batch_and_packed(dtype):
    ours, _ = module_and_peer(dtype, same_heads=False)
    lengths = (1, 15, 16, 17, 257, 63)
    bags = [bag(n, dtype, seed=n) for n in lengths]
    packed = ours(torch.cat(bags, dim=1), cu_seqlens=cu_seqlens_of(lengths))
    for found, x in zip(packed.split(lengths, dim=1), bags, strict=True):
        assert torch.equal(found, ours(x))
    batch = torch.cat([bag(77, dtype, seed=i) for i in range(3)])
    assert torch.equal(ours(batch), torch.cat([ours(x) for x in batch.split(1)]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_gradients_are_bitwise_the_same_alone_in_a_batch_and_packed(dtype):
    ours, _ = module_and_peer(dtype, same_heads=False)

    def gradient(x, **kwargs):
        x = x.detach().requires_grad_()
        return torch.autograd.grad(ours(x, **kwargs).square().sum(), x)[0]

    bags = [bag(n, dtype, seed=i) for i, n in enumerate((77, 77, 3, 200))]
    single = [gradient(x) for x in bags]
    assert torch.equal(gradient(torch.cat(bags[:2])), torch.cat(single[:2]))
    packed = gradient(torch.cat(bags, dim=1), cu_seqlens=cu_seqlens_of([77, 77, 3, 200]))
    assert torch.equal(packed, torch.cat(single, dim=1))


def test_empty_bags_and_no_bags_at_all():
    ours, _ = module_and_peer()
    x = bag(20)
    packed = ours(x, cu_seqlens=torch.tensor([0, 0, 20, 20]))
    assert torch.equal(packed, ours(x))
    assert ours(x[:, :0], cu_seqlens=torch.tensor([0])).shape == (1, 0, DIM)
    assert ours(x[:0]).shape == (0, 20, DIM)


def test_one_token_attends_to_itself():
    ours, _ = module_and_peer(residual=False)
    x = bag(1)
    value = ours.to_qkv(x)[..., 2 * HEADS * DIM_HEAD :]
    torch.testing.assert_close(ours(x), ours.to_out(value))


@pytest.mark.parametrize("n", [2, M - 1, M, M + 1])
def test_around_the_number_of_landmarks_it_computes_the_reference(n):
    ours, _ = module_and_peer(same_heads=False)
    reference = NystromAttention(DIM, DIM_HEAD, HEADS, M, backend="reference").double()
    reference.load_state_dict(ours.state_dict())
    x = bag(n).requires_grad_()
    found, expected = (
        [out, *torch.autograd.grad(out.square().sum(), (x, module.to_qkv.weight))]
        for module in (ours, reference)
        for out in [module(x)]
    )
    for a, b in zip(found, expected, strict=True):
        assert (a - b).abs().max() <= 1e-9 * b.abs().max()


def test_masked_tokens_are_as_if_absent():
    ours, _ = module_and_peer(same_heads=False)
    x = bag(50, batch=2)
    mask = torch.ones(2, 50, dtype=torch.bool)
    mask[0, 40:] = False
    mask[1, ::7] = False
    out = ours(x, mask=mask)
    for b in range(2):
        assert torch.equal(out[b, mask[b]], ours(x[b : b + 1, mask[b]])[0])
        assert not out[b, ~mask[b]].any()


def test_a_bag_without_any_token_kept_is_zero_and_gradients_reach_kept_tokens_only():
    ours, _ = module_and_peer()
    x = bag(30, batch=2).requires_grad_()
    mask = torch.zeros(2, 30, dtype=torch.bool)
    mask[1, 5:25] = True
    out = ours(x, mask=mask)
    assert not out[0].any()
    out.square().sum().backward()
    assert not x.grad[~mask].any()
    assert x.grad[mask].abs().min(1).values.gt(0).all()


def test_autocast_gives_its_dtype():
    ours, _ = module_and_peer(torch.float32)
    x = bag(100, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = ours(x)
    assert out.dtype == torch.bfloat16
    exact = ours(x)
    assert (out - exact).norm() <= 2e-2 * exact.norm()


def test_compiles_to_one_graph():
    ours, _ = module_and_peer()
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
    x = bag(70, batch=2)
    torch.testing.assert_close(compiled(x), ours(x))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda module: module(torch.zeros(3, DIM)), r"\(B, N, 32\), got \(3, 32\)"),
        (lambda module: module(bag(4)[..., 1:]), r"\(B, N, 32\), got \(1, 4, 31\)"),
        (lambda module: module(bag(4).numpy()), r"\(B, N, 32\), got ndarray"),
        (
            lambda module: module(bag(4).float()),
            "torch.float64 like the weights, got torch.float32",
        ),
        (lambda module: module(bag(4).long()), "torch.float64 like the weights, got torch.int64"),
        (lambda module: module(bag(4), mask=torch.ones(1, 5, dtype=torch.bool)), r"\(1, 5\)"),
        (lambda module: module(bag(4), mask=torch.ones(1, 4)), "float32"),
        (lambda module: module(bag(4, batch=2), cu_seqlens=torch.tensor([0, 4])), "no mask"),
        (lambda module: module(bag(4), cu_seqlens=torch.tensor([0, 3])), "number of tokens 4"),
        (lambda module: NystromAttention(DIM, residual_conv_kernel=32), "odd, got 32"),
    ],
    ids=[
        "dims",
        "channels",
        "array",
        "dtype",
        "whole-numbers",
        "mask-length",
        "mask-dtype",
        "packed-batch",
        "bounds",
        "even-kernel",
    ],
)
def test_bad_input_names_what_is_wrong(call, message):
    ours, _ = module_and_peer()
    with pytest.raises(ValueError, match=message):
        call(ours)


@pytest.mark.parametrize("n", [5, M + 1, 700], ids=["exact", "just-above", "long"])
def test_finite_input_of_any_size_gives_finite_output(n):
    layer, _ = module_and_peer(torch.float32)
    x = bag(n, torch.float32) * 1e30
    mate = bag(40, torch.float32, seed=1)
    alone = layer(x)
    assert alone.isfinite().all()
    packed = layer(torch.cat([mate, x], 1), cu_seqlens=[0, 40, 40 + n])
    assert torch.equal(packed[:, 40:], alone)
    assert torch.equal(packed[:, :40], layer(mate))
