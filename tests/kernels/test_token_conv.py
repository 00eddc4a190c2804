"""The Triton kernels of the convolution: compiled on a GPU, interpreted without one."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from builders.dtypes import dtype_id
from builders.errors import assert_near, assert_no_worse
from builders.packed import cu_seqlens_of, random_rows

from gimp_fast.ops import token_conv_triton
from gimp_fast.ops.packing import Bags, Rows
from gimp_fast.ops.token_conv import token_conv, token_conv_fwd, token_conv_weight_grad
from gimp_fast.ops.token_conv_rows import (
    token_conv_rows,
    token_conv_rows_bwd,
    token_conv_rows_fwd,
)

pytest.importorskip("triton")
pytestmark = pytest.mark.triton

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# Triton's interpreter computes bf16 wrongly.
DTYPES = [torch.float32, torch.float16, *([torch.bfloat16] if DEVICE == "cuda" else [])]
TOLERANCE = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 1e-2}
# (B, H, N, D, K). One token; shorter than the filter; around a tile of 128 tokens; D odd, padded,
# and of two tiles; K = 1; two chunks; a filter whose gradient takes two and three programs.
SHAPES = [
    (1, 1, 1, 16, 33),
    (2, 2, 7, 13, 33),
    (1, 1, 34, 16, 33),
    (1, 2, 127, 16, 3),
    (1, 1, 128, 64, 33),
    (2, 1, 129, 64, 33),
    (1, 2, 20, 80, 5),
    (1, 2, 50, 1, 3),
    (1, 3, 65, 16, 1),
    (1, 1, 521, 16, 3),
    (1, 1, 40, 16, 35),
    (1, 1, 40, 16, 67),
]
SHAPE_IDS = [f"B{b}-H{h}-N{n}-D{d}-K{k}" for b, h, n, d, k in SHAPES]
# Bags without tokens, of one token, shorter than the filter, of two tiles, of two chunks.
LENGTHS = (37, 37, 0, 1, 130, 0, 520)


@pytest.fixture(autouse=True)
def _interpreted(monkeypatch):
    """Without a GPU the operators leave the kernels alone, unless they are told otherwise."""
    if DEVICE == "cpu":
        monkeypatch.setattr(token_conv_triton, "takes", lambda v: True)


def sample_inputs(b, h, n, d, k, dtype, seed=0):
    """v, one third of a (B, N, 3, H, D) tensor, as a qkv layer gives it; filter; what to add."""
    qkv = random_rows(b, n, 3, h, d, seed=seed).to(dtype)
    weight, add = random_rows(h, 1, k, 1, seed=9).to(dtype), random_rows(b, h, n, d, seed=seed + 1)
    inputs = (qkv[:, :, 2].transpose(1, 2), weight, add.to(dtype))
    return [x.to(DEVICE).requires_grad_() for x in inputs]


def with_gradients(function, inputs, grad=None):
    """Output, then the gradients of the inputs; that of the output is the same in every dtype."""
    out = function(*inputs)
    grad = random_rows(*out.shape, seed=2).bfloat16() if grad is None else grad
    return [out, *torch.autograd.grad(out, inputs, grad.to(out.device, out.dtype))]


def added(v, weight, add, **options):
    return token_conv(v, weight, add=add, **options)


def conv2d(v, weight, add):
    return add + F.conv2d(v, weight, padding=(weight.shape[2] // 2, 0), groups=weight.shape[0])


def doubles(inputs):
    return [x.detach().double().requires_grad_() for x in inputs]


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
@pytest.mark.parametrize("shape", SHAPES, ids=SHAPE_IDS)
def test_output_and_gradients_match_conv2d_in_fp64(shape, dtype):
    inputs = sample_inputs(*shape, dtype)
    found = with_gradients(added, inputs)
    assert [x.dtype for x in found] == [dtype] * 4
    assert found[0].transpose(1, 2).is_contiguous()
    assert_near(found, with_gradients(conv2d, doubles(inputs)), TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
@pytest.mark.parametrize("kernel", [1, 3, 33])
def test_error_is_at_most_twice_that_of_conv2d(kernel, dtype):
    inputs = sample_inputs(1, 2, 100, 16, kernel, dtype)
    found, peer = (with_gradients(f, inputs) for f in (added, conv2d))
    assert_no_worse(found, peer, with_gradients(conv2d, doubles(inputs)), 2)


def test_a_filter_in_fp32_over_values_in_half_precision():
    v, weight, add = sample_inputs(1, 2, 40, 16, 33, torch.float16)
    weight = random_rows(*weight.shape).float().to(DEVICE).requires_grad_()
    found = with_gradients(added, [v, weight, add])
    assert [x.dtype for x in found[:3]] == [torch.float16, torch.float16, torch.float32]
    expected = with_gradients(conv2d, doubles([v, weight, add]))
    assert_near(found, expected, TOLERANCE[torch.float16])
    assert_near(found[2:3], expected[2:3], TOLERANCE[torch.float32])


@pytest.mark.slow
@pytest.mark.parametrize("with_add", [True, False], ids=["add", "no-add"])
@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
def test_a_bag_is_bitwise_the_same_alone_in_a_batch_and_packed(dtype, with_add):
    bags = [sample_inputs(1, 1, n, 16, 9, dtype, seed=5 * i) for i, n in enumerate(LENGTHS)]
    grads = [random_rows(*bag[0].shape, seed=3 + i) for i, bag in enumerate(bags)]

    def bits(chosen, dim, **options):
        v, add = (torch.cat([bags[i][j] for i in chosen], dim) for j in (0, 2))
        grad = torch.cat([grads[i] for i in chosen], dim)
        inputs = [x.detach().requires_grad_() for x in (v, bags[0][1])]
        options |= {"add": add.detach()} if with_add else {}
        return with_gradients(lambda v, w: token_conv(v, w, **options), inputs, grad)

    alone = [bits([i], 0) for i in range(len(bags))]
    batch = bits([0, 1], 0)
    for i in range(2):
        assert torch.equal(batch[0][i : i + 1], alone[i][0])
        assert torch.equal(batch[1][i : i + 1], alone[i][1])
    packed = bits(range(len(bags)), 2, cu_seqlens=cu_seqlens_of(LENGTHS))
    for i, parts in enumerate(zip(*(x.split(LENGTHS, 2) for x in packed[:2]), strict=True)):
        assert all(map(torch.equal, parts, alone[i][:2]))
    two = bits([0, 1], 2, cu_seqlens=cu_seqlens_of(LENGTHS[:2]))
    beside_empty = bits([2, 6, 5], 2, cu_seqlens=cu_seqlens_of((0, 520, 0)))
    assert torch.equal(two[2], batch[2])
    assert torch.equal(beside_empty[2], alone[6][2])


def test_the_gradient_of_the_filter_of_packed_bags_is_their_sum():
    bags = [sample_inputs(1, 2, n, 16, 5, torch.float32, seed=5 * i) for i, n in enumerate(LENGTHS)]
    v, add = (torch.cat([bag[j] for bag in bags], 2).detach().requires_grad_() for j in (0, 2))
    grads = [random_rows(*bag[0].shape, seed=3 + i) for i, bag in enumerate(bags)]
    packed = with_gradients(
        lambda *x: added(*x, cu_seqlens=cu_seqlens_of(LENGTHS)),
        [v, bags[0][1], add],
        torch.cat(grads, 2),
    )
    full = [
        with_gradients(conv2d, doubles([bag[0], bags[0][1], bag[2]]), grad)[2]
        for bag, grad in zip(bags, grads, strict=True)
        if grad.numel()
    ]
    assert_near([packed[2]], [sum(full)], TOLERANCE[torch.float32])


@pytest.mark.parametrize("layout", ["contiguous", "head-minor", "expanded gradient"])
def test_any_strides(layout):
    inputs = sample_inputs(2, 2, 40, 16, 5, torch.float32)
    grad = random_rows(*inputs[0].shape)
    if layout == "contiguous":
        inputs = [x.detach().contiguous().requires_grad_() for x in inputs]
    elif layout == "head-minor":
        inputs = [x.detach().mT.contiguous().mT.requires_grad_() for x in inputs]
    else:
        grad = torch.ones(()).expand(grad.shape)
    expected = with_gradients(conv2d, doubles(inputs), grad)
    assert_near(with_gradients(added, inputs, grad), expected, TOLERANCE[torch.float32])


def test_second_derivatives():
    inputs = sample_inputs(1, 2, 9, 4, 3, torch.float32)[:2]

    def curved(function, inputs):
        out = function(*inputs)
        grads = torch.autograd.grad(out.square().sum(), inputs, create_graph=True)
        return torch.autograd.grad(sum(x.square().sum() for x in grads), inputs)

    expected = curved(lambda v, w: conv2d(v, w, torch.zeros_like(v)), doubles(inputs))
    assert_near(curved(token_conv, inputs), expected, TOLERANCE[torch.float32])


def test_nothing_to_do():
    weight = torch.ones(2, 1, 3, 1, device=DEVICE, requires_grad=True)
    no_tokens = torch.empty(1, 2, 0, 16, device=DEVICE)
    no_bags, no_channels = no_tokens.new_empty(0, 2, 5, 16), no_tokens.new_empty(1, 2, 5, 0)
    for v in (no_tokens, no_bags, no_channels):
        out, grad = with_gradients(lambda w, v=v: token_conv(v, w), [weight])
        assert out.shape == v.shape
        assert torch.equal(grad, torch.zeros_like(weight))
    assert token_conv(no_tokens, weight, cu_seqlens=[0, 0, 0]).shape == no_tokens.shape


def test_a_bag_out_of_the_tensor_is_cut_where_bounds_are_not_read():
    """On a GPU a compiler passes bounds that were never read; kernels must not leave the tensor."""
    from gimp_fast.kernels import token_conv as kernels

    memory = torch.zeros(2, 200, 1, 16, device=DEVICE)
    v, behind = memory[:1].transpose(1, 2), memory[1:].transpose(1, 2)
    behind.fill_(float("nan"))
    weight = torch.ones(1, 1, 3, 1, device=DEVICE)
    bounds = torch.tensor([-50, 20, 300], dtype=torch.int32, device=DEVICE)
    out = kernels.token_conv_fwd(v, weight, None, bounds)
    grad = kernels.token_conv_weight_grad(v, v, bounds, 3)
    assert torch.equal(out[:, :, :20], torch.zeros_like(out[:, :, :20]))
    assert torch.equal(grad, torch.zeros_like(grad))


def rows_of(bags, kind):
    tokens = torch.arange(bags.num_rows)
    wanted = {
        "first": torch.isin(tokens, Rows.first(bags).index),
        "half": torch.rand(len(tokens), generator=torch.Generator().manual_seed(1)) < 0.5,
        "all": tokens >= 0,
        "none": tokens < 0,
    }[kind]
    counts = [int(wanted[start:stop].sum()) for start, stop in bags.spans]
    return Rows(wanted.nonzero()[:, 0].to(DEVICE), Bags.of_lengths(counts, DEVICE))


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
@pytest.mark.parametrize("kind", ["first", "half", "all", "none"])
def test_needed_rows_are_bitwise_those_of_the_whole_convolution(kind, dtype):
    bags = Bags.of_lengths((1, 7, 0, 140))
    rows = rows_of(bags, kind)
    bags = bags.to(torch.device(DEVICE))
    inputs = sample_inputs(1, 2, bags.num_rows, 16, 9, dtype)

    def some(v, weight, add):
        return token_conv_rows(v, weight, rows, bags=bags, add=add[:, :, rows.index])

    def whole(v, weight, add):
        return added(v, weight, add, cu_seqlens=bags)[:, :, rows.index]

    for found, expected in zip(
        *(with_gradients(function, inputs) for function in (some, whole)), strict=True
    ):
        assert torch.equal(found, expected)


@pytest.mark.slow
@pytest.mark.parametrize("bounds", [None, [0, 3, 3, 40]], ids=["batch", "packed"])
def test_the_operators_are_registered_as_torch_expects(bounds):
    v, weight, add = sample_inputs(1, 2, 40, 16, 5, torch.float32)
    bounds = None if bounds is None else torch.tensor(bounds, dtype=torch.int32, device=DEVICE)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    for arguments in ((v, weight, None, bounds), (v, weight, add, bounds, None, True)):
        torch.library.opcheck(token_conv_fwd, arguments, test_utils=checks)
    torch.library.opcheck(token_conv_weight_grad, (add, v, bounds, 5), test_utils=checks)


@pytest.mark.slow
def test_the_operators_of_needed_rows_are_registered_as_torch_expects():
    v, weight, _ = sample_inputs(1, 2, 40, 16, 5, torch.float32)
    index = torch.tensor([0, 4, 30], device=DEVICE)
    bounds = torch.tensor([0, 3, 40], dtype=torch.int32, device=DEVICE)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    arguments = (v, weight, None, index, bounds)
    torch.library.opcheck(token_conv_rows_fwd, arguments, test_utils=checks)
    grad, v, weight = (x.detach() for x in (v[:, :, index], v, weight))
    arguments = (grad, v, weight, index, bounds)
    torch.library.opcheck(token_conv_rows_bwd, arguments, test_utils=checks[::2])


def test_compiles_to_one_graph():
    inputs = sample_inputs(1, 2, 40, 16, 5, torch.float32)
    compiled = torch.compile(added, fullgraph=True, backend="aot_eager")
    for a, b in zip(*(with_gradients(f, inputs) for f in (compiled, added)), strict=True):
        assert torch.equal(a, b)


@pytest.fixture
def launches():
    """Launches of kernels; none of them runs."""
    from gimp_fast.kernels.launch import recording

    with recording() as made:
        yield made


def names(launches):
    return [made.name for made in launches]


@pytest.mark.parametrize("lengths", [(1,), (5000,), (40,) * 8, (70,) * 300], ids=lambda n: len(n))
def test_launches_do_not_grow_with_bags_or_tokens(lengths, launches):
    bags = Bags.of_lengths(lengths, DEVICE)
    v, weight, add = sample_inputs(1, 1, bags.num_rows, 16, 33, torch.float32)
    out = added(v, weight, add, cu_seqlens=bags)
    assert names(launches) == ["_token_conv_kernel"]
    out.sum().backward()
    assert names(launches)[1:] == [
        "_token_conv_kernel", "_token_conv_weight_grad_kernel", "_sum_parts_kernel",
    ]  # fmt: skip


@pytest.mark.parametrize("lengths", [(5000,), (70,) * 300], ids=["one", "300"])
def test_launches_of_needed_rows_do_not_grow_with_bags_or_rows(lengths, launches):
    bags = Bags.of_lengths(lengths)
    rows, bags = rows_of(bags, "half"), bags.to(torch.device(DEVICE))
    v, weight, _ = sample_inputs(1, 1, bags.num_rows, 16, 33, torch.float32)
    out = token_conv_rows(v, weight, rows, bags=bags)
    assert names(launches) == ["_places_kernel", "_token_conv_kernel"]
    out.sum().backward()
    assert names(launches)[2:] == [
        "_places_kernel", "_token_conv_kernel", "_token_conv_weight_grad_kernel",
        "_sum_parts_kernel",
    ]  # fmt: skip


@pytest.mark.gpu
def test_a_gpu_uses_them_by_default(launches):
    v, weight, add = sample_inputs(1, 2, 700, 64, 33, torch.bfloat16)
    added(v, weight, add)
    assert names(launches) == ["_token_conv_kernel"]


@pytest.mark.gpu
def test_long_bags_of_half_precision_match_conv2d():
    inputs = sample_inputs(2, 4, 30_000, 64, 33, torch.bfloat16)
    found, again = (with_gradients(added, inputs) for _ in range(2))
    assert_near(found, with_gradients(conv2d, doubles(inputs)), TOLERANCE[torch.bfloat16])
    assert all(map(torch.equal, found, again))
