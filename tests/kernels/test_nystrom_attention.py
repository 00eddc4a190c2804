"""The Triton kernels against the fp64 reference: compiled on a GPU, interpreted without one."""

from __future__ import annotations

import pytest
import torch
from builders.attention import (
    STAGES,
    clustered_projections,
    loss_weight,
    outputs_and_gradients,
    plain_composition,
    random_projections,
    shape_ids,
    split,
)
from builders.dtypes import dtype_id
from builders.errors import assert_near, assert_no_worse, attention_sizes

from gimp_fast.nn import NystromAttention
from gimp_fast.ops import nystrom_attention
from gimp_fast.ops.nystrom_operators import nystrom_attention_bwd, nystrom_attention_fwd
from gimp_fast.reference.nystrom_attention import nystrom_attention_reference

pytest.importorskip("triton")
pytestmark = pytest.mark.triton

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# Triton's interpreter computes bf16 wrongly: there it is proven by compiling, and on a GPU.
DTYPES = [torch.float32, torch.float16, *([torch.bfloat16] if DEVICE == "cuda" else [])]
TOLERANCE = {torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 4e-2}

# (B, H, N, D, M), each edge once, for an interpreter that takes 10 ms a tile: N = 1; below, at and
# just above M; M dividing N and not; D odd, padded, and as large as it may be; N of two chunks, the
# second of less than a tile; M odd and larger than a tile of the products.
SHAPES = [
    (1, 1, 1, 16, 16),
    (2, 2, 7, 13, 16),
    (1, 2, 16, 16, 16),
    (2, 1, 17, 16, 16),
    (1, 2, 63, 32, 16),
    (1, 1, 65, 64, 32),
    (1, 1, 521, 16, 16),
    (1, 1, 80, 96, 40),
    (1, 1, 50, 128, 16),
    (1, 1, 111, 16, 37),
]
# `make quick` runs the smallest.
CASES = [
    pytest.param(shape, id=name, marks=[pytest.mark.slow] if i >= 3 else [])
    for i, (shape, name) in enumerate(zip(SHAPES, shape_ids(SHAPES), strict=True))
]


def attend(qkv, dtype, function=nystrom_attention, **options):
    """Output and gradients; q, k and v are strided views of one tensor, as a module gives them."""
    return outputs_and_gradients(function, split(qkv, dtype), **options)


def reference(qkv, **options):
    """The same in fp64, and what its errors are relative to."""
    expected = attend(qkv, torch.float64, nystrom_attention_reference, **options)
    inputs = split(qkv)
    return expected, attention_sizes(expected, inputs, loss_weight(inputs))


def random_inputs(b, h, n, d, gain=1.5, seed=0):
    return random_projections(b, n, h, d, gain=gain, seed=seed).to(DEVICE)


def assert_matches_the_reference(qkv, dtype, **options):
    found = attend(qkv, dtype, backend="triton", **options)
    expected, sizes = reference(qkv, **options)
    assert_near(found, expected, TOLERANCE[dtype], sizes)


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
@pytest.mark.parametrize("shape", CASES)
def test_output_and_gradients_match_the_fp64_reference(shape, dtype):
    *sizes, m = shape
    assert_matches_the_reference(random_inputs(*sizes), dtype, num_landmarks=m)


@pytest.mark.slow
@pytest.mark.parametrize("iterations", [0, 1, 2, 3, 4, 8])
def test_any_number_of_iterations(iterations):
    options = {"num_landmarks": 20, "pinv_iterations": iterations}
    assert_matches_the_reference(random_inputs(1, 1, 50, 16), torch.float32, **options)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
@pytest.mark.parametrize("kind", ["random", "clustered"])
def test_error_is_at_most_twice_that_of_the_plain_composition(kind, dtype):
    n, d, options = 250, 16, {"num_landmarks": 36}
    qkv = random_projections(1, n, 1, d)
    if kind == "clustered":
        qkv = clustered_projections(torch.arange(n) * 6 // n, 1, d, gain=3, noise=0.01)
    qkv = qkv.to(DEVICE, dtype).double()
    single = dtype == torch.float32
    peer = attend(
        qkv, dtype, nystrom_attention_reference if single else plain_composition, **options
    )
    found = attend(qkv, dtype, backend="triton", **options)
    expected, sizes = reference(qkv, **options)
    assert_no_worse(found, peer, expected, 2, sizes, STAGES)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=dtype_id)
def test_a_bag_is_bitwise_the_same_alone_in_a_batch_and_packed(dtype):
    lengths = (37, 37, 0, 5, 1, 20, 530)
    bags = [random_inputs(1, 1, n, 16, gain=1 + 0.3 * i, seed=i) for i, n in enumerate(lengths)]
    weights = [loss_weight(split(bag)) for bag in bags]

    def bits(bags, weights, dim, **options):
        inputs = [x.detach().requires_grad_() for x in split(torch.cat(bags, dim), dtype)]
        grad = torch.cat(weights, 2 * dim)
        options |= {"num_landmarks": 20, "pinv_iterations": 3, "backend": "triton"}
        return outputs_and_gradients(nystrom_attention, inputs, grad, **options)

    alone = [bits([bag], [weight], 0) for bag, weight in zip(bags, weights, strict=True)]
    for b, found in enumerate(
        zip(*(x.split(1) for x in bits(bags[:2], weights[:2], 0)), strict=True)
    ):
        assert all(map(torch.equal, found, alone[b]))
    bounds = torch.tensor([0, *lengths]).cumsum(0).int()
    packed = bits(bags, weights, 1, cu_seqlens=bounds)
    for b, found in enumerate(zip(*(x.split(lengths, 2) for x in packed), strict=True)):
        assert all(map(torch.equal, found, alone[b]))


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["contiguous", "head-minor", "expanded gradient"])
def test_any_strides(layout):
    inputs = split(random_inputs(2, 2, 40, 16).float())
    grad = loss_weight(inputs)
    if layout == "contiguous":
        inputs = [x.detach().contiguous().requires_grad_() for x in inputs]
    elif layout == "head-minor":
        inputs = [x.detach().mT.contiguous().mT.requires_grad_() for x in inputs]
    else:
        grad = torch.ones((), device=DEVICE).expand(grad.shape)
    options = {"num_landmarks": 16, "pinv_iterations": 3}
    found = outputs_and_gradients(nystrom_attention, inputs, grad, backend="triton", **options)
    doubles = [x.detach().double().requires_grad_() for x in inputs]
    expected = outputs_and_gradients(nystrom_attention_reference, doubles, grad, **options)
    assert_near(found, expected, 1e-5, attention_sizes(expected, doubles, grad))


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["batch", "packed"])
def test_the_operator_is_registered_as_torch_expects(layout):
    q, k, v = split(random_inputs(1, 1, 40, 16).float())
    bounds = torch.tensor([0, 5, 5, 40], dtype=torch.int32) if layout == "packed" else None
    settings = (16, 1, 0.25, "triton")
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(nystrom_attention_fwd, (q, k, v, bounds, *settings), test_utils=checks)
    tensors = [x.detach() for x in (q, k, v)]
    out, *saved = nystrom_attention_fwd(*tensors, bounds, *settings)
    torch.library.opcheck(
        nystrom_attention_bwd, (out, *tensors, bounds, *saved, *settings), test_utils=checks[::2]
    )


def test_nothing_to_do():
    empty = torch.empty(1, 2, 0, 16, device=DEVICE)
    no_bags = torch.empty(0, 2, 5, 16, device=DEVICE)
    for x, bounds in ((empty, None), (empty, torch.tensor([0, 0, 0])), (no_bags, None)):
        out = nystrom_attention(x, x, x, num_landmarks=16, cu_seqlens=bounds, backend="triton")
        assert out.shape == x.shape


def test_fp64_is_refused_with_the_reason():
    x = torch.zeros(1, 1, 4, 16, dtype=torch.float64, device=DEVICE)
    with pytest.raises(RuntimeError, match=r"backend='triton' cannot run: .*float64"):
        nystrom_attention(x, x, x, backend="triton")


@pytest.mark.gpu
def test_a_gpu_uses_them_by_default():
    qkv = random_inputs(1, 2, 700, 64)
    found, expected = (attend(qkv, torch.bfloat16, backend=name) for name in ("auto", "triton"))
    assert all(map(torch.equal, found, expected))


@pytest.mark.gpu
@pytest.mark.parametrize("packed", [False, True], ids=["batch", "packed"])
def test_a_cuda_graph_replays_the_same_bits(packed):
    inputs = split(random_inputs(1, 2, 1300, 64), torch.bfloat16)
    grad = loss_weight(inputs)
    bounds = torch.tensor([0, 100, 1300], dtype=torch.int32, device=DEVICE) if packed else None

    def step():
        return outputs_and_gradients(nystrom_attention, inputs, grad, cu_seqlens=bounds)

    expected = step()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = step()
    graph.replay()
    assert all(map(torch.equal, found, expected))


@pytest.mark.gpu
def test_long_bags_of_half_precision_match_the_reference():
    """Many chunks, a bag beside one of 300 times its length, the dtype of training."""
    lengths = (500, 1, 30_000, 256)
    bounds = torch.tensor([0, *lengths]).cumsum(0).int()
    qkv = random_inputs(1, 2, sum(lengths), 64)
    found, again = (attend(qkv, torch.bfloat16, cu_seqlens=bounds) for _ in range(2))
    expected, sizes = reference(qkv, cu_seqlens=bounds)
    assert_near(found, expected, TOLERANCE[torch.bfloat16], sizes)
    assert all(map(torch.equal, found, again))


@pytest.mark.gpu
def test_the_module_compiles_to_one_graph_under_autocast():
    torch.manual_seed(0)
    module = NystromAttention(64, dim_head=32, heads=2, num_landmarks=64).to(DEVICE)
    x = torch.randn(2, 700, 64, device=DEVICE, requires_grad=True)
    results = []
    for function in (module, torch.compile(module, fullgraph=True)):
        with torch.autocast("cuda", dtype=torch.bfloat16):
            out = function(x)
        results.append([out, *torch.autograd.grad(out.float().sin().sum(), x)])
    assert_near(*results, tolerance=2e-2)
