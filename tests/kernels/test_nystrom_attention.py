"""The Triton kernels against the fp64 reference: compiled on a GPU, interpreted without one."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from gimp_fast.nn import NystromAttention
from gimp_fast.ops import nystrom_attention
from gimp_fast.ops.nystrom_operators import nystrom_attention_bwd, nystrom_attention_fwd
from gimp_fast.reference.nystrom_attention import (
    landmarks_reference,
    nystrom_attention_reference,
    pinv_reference,
)

pytest.importorskip("triton")
pytestmark = pytest.mark.triton

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NAMES = ("out", "dq", "dk", "dv")
# Triton's interpreter computes bf16 wrongly: there it is proven by compiling, and on a GPU.
DTYPES = [torch.float32, torch.float16, *([torch.bfloat16] if DEVICE == "cuda" else [])]

# (B, H, N, D, M): N = 1; below, at and just above M; M dividing N and not; D odd; N of more than
# one chunk; M larger than a tile and odd.
SHAPES = [
    (1, 1, 1, 16, 16),
    (2, 2, 7, 13, 16),
    (1, 2, 16, 16, 16),
    (2, 1, 17, 16, 16),
    (1, 2, 63, 32, 16),
    (1, 1, 257, 64, 32),
    (1, 1, 1000, 16, 16),
    (1, 1, 256, 96, 40),
    (1, 1, 130, 128, 16),
    (1, 1, 300, 16, 77),
]
SHAPE_IDS = [f"B{b}-H{h}-N{n}-D{d}-M{m}" for b, h, n, d, m in SHAPES]


def inputs(b, h, n, d, gain=1.5, seed=0):
    """fp64 projections of one (B, N, 3, H, D) tensor, and the weight of a scalar loss."""
    generator = torch.Generator().manual_seed(seed)
    qkv = torch.randn(b, n, 3, h, d, generator=generator, dtype=torch.float64) * gain
    weight = torch.randn(b, n, h, d, generator=generator, dtype=torch.float64)
    return qkv.to(DEVICE), weight.transpose(1, 2).to(DEVICE)


def attend(qkv, weight, dtype, function=nystrom_attention, **kwargs):
    """Output and gradients; q, k and v are strided views of one tensor, as a module gives them."""
    qkv = qkv.to(dtype)
    q, k, v = (x.transpose(1, 2).requires_grad_() for x in qkv.unbind(2))
    out = function(q, k, v, **kwargs)
    return [out, *torch.autograd.grad(out, (q, k, v), weight.to(dtype))]


def errors(found, expected):
    return {
        name: ((a.double() - b.double()).norm() / b.double().norm().clamp(min=1e-6)).item()
        for name, a, b in zip(NAMES, found, expected, strict=True)
    }


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=SHAPE_IDS)
def test_output_and_gradients_match_the_fp64_reference(shape, dtype):
    *sizes, m = shape
    qkv, weight = inputs(*sizes)
    found = attend(qkv, weight, dtype, num_landmarks=m, backend="triton")
    expected = attend(qkv, weight, torch.float64, nystrom_attention_reference, num_landmarks=m)
    tolerance = {torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 4e-2}[dtype]
    for name, error in errors(found, expected).items():
        assert error <= tolerance, name


@pytest.mark.parametrize("iterations", [0, 1, 2, 3, 4, 8])
def test_any_number_of_iterations(iterations):
    qkv, weight = inputs(1, 1, 50, 16)
    kwargs = {"num_landmarks": 20, "pinv_iterations": iterations}
    found = attend(qkv, weight, torch.float32, backend="triton", **kwargs)
    expected = attend(qkv, weight, torch.float64, nystrom_attention_reference, **kwargs)
    for name, error in errors(found, expected).items():
        assert error <= 1e-5, name


def clustered(n, d, seed=0):
    """Tokens of six clusters, each contiguous: landmarks nearly repeat, A is ill-conditioned."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(6, 3, 1, d, generator=generator, dtype=torch.float64) * 3
    noise = torch.randn(1, n, 3, 1, d, generator=generator, dtype=torch.float64) * 0.01
    weight = torch.randn(1, 1, n, d, generator=generator, dtype=torch.float64)
    return (centres[torch.arange(n) * 6 // n][None] + noise).to(DEVICE), weight.to(DEVICE)


def plain_composition(q, k, v, num_landmarks):
    """What one writes in torch: products and softmax in the dtype of q, the inverse in fp32."""
    scale = q.shape[-1] ** -0.5
    q_marks, k_marks = landmarks_reference(q, num_landmarks), landmarks_reference(k, num_landmarks)
    a = (q_marks.float() * scale @ k_marks.float().mT).softmax(-1)
    values = ((q_marks * scale) @ k.mT).softmax(-1) @ v
    mixed = (pinv_reference(a, 6) @ values.float()).to(q.dtype)
    return ((q * scale) @ k_marks.mT).softmax(-1) @ mixed


@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
@pytest.mark.parametrize("kind", ["random", "clustered"])
def test_half_precision_error_is_at_most_twice_that_of_the_plain_composition(kind, dtype):
    qkv, weight = inputs(1, 1, 400, 16, gain=1.0) if kind == "random" else clustered(400, 16)
    qkv, weight = qkv.to(dtype).double(), weight.to(dtype).double()
    expected = attend(qkv, weight, torch.float64, nystrom_attention_reference, num_landmarks=48)
    allowed = errors(attend(qkv, weight, dtype, plain_composition, num_landmarks=48), expected)
    found = errors(attend(qkv, weight, dtype, num_landmarks=48, backend="triton"), expected)
    for name in NAMES:
        assert found[name] <= 2 * allowed[name], name


@pytest.mark.parametrize("kind", ["random", "clustered"])
def test_fp32_error_is_at_most_twice_that_of_the_plain_composition(kind):
    qkv, weight = inputs(1, 1, 400, 16, gain=1.0) if kind == "random" else clustered(400, 16)
    plain = nystrom_attention_reference
    expected = attend(qkv, weight, torch.float64, plain, num_landmarks=48)
    allowed = errors(attend(qkv, weight, torch.float32, plain, num_landmarks=48), expected)
    found = errors(attend(qkv, weight, torch.float32, num_landmarks=48, backend="triton"), expected)
    for name in NAMES:
        assert found[name] <= 2 * allowed[name], name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_a_bag_is_bitwise_the_same_alone_in_a_batch_and_packed(dtype):
    lengths = (57, 57, 0, 5, 1, 33, 600)
    bags = [inputs(1, 1, n, 16, gain=1 + 0.3 * i, seed=i) for i, n in enumerate(lengths)]
    kwargs = {"num_landmarks": 32, "backend": "triton"}
    alone = [attend(*bag, dtype, **kwargs) for bag in bags]
    batch = attend(*(torch.cat(x) for x in zip(*bags[:2], strict=True)), dtype, **kwargs)
    for b in range(2):
        for found, expected in zip(batch, alone[b], strict=True):
            assert torch.equal(found[b : b + 1], expected)
    bounds = torch.tensor([0, *lengths]).cumsum(0).int()
    qkv, weight = (torch.cat(x, d) for x, d in zip(zip(*bags, strict=True), (1, 2), strict=True))
    packed = attend(qkv, weight, dtype, cu_seqlens=bounds, **kwargs)
    for b, (start, stop) in enumerate(pairwise(bounds.tolist())):
        for found, expected in zip(packed, alone[b], strict=True):
            assert torch.equal(found[:, :, start:stop], expected)


@pytest.mark.parametrize("layout", ["contiguous", "head-minor", "expanded gradient"])
def test_any_strides(layout):
    qkv, weight = inputs(2, 2, 40, 16)
    q, k, v = (x.transpose(1, 2) for x in qkv.float().unbind(2))
    if layout == "contiguous":
        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    elif layout == "head-minor":
        q, k, v = (x.mT.contiguous().mT for x in (q, k, v))
    grad = torch.ones((), device=DEVICE).expand(q.shape) if "expanded" in layout else weight.float()
    q, k, v = (x.detach().requires_grad_() for x in (q, k, v))
    out = nystrom_attention(q, k, v, num_landmarks=16, backend="triton")
    found = torch.autograd.grad(out, (q, k, v), grad)
    doubles = [x.detach().double().requires_grad_() for x in (q, k, v)]
    exact = nystrom_attention_reference(*doubles, num_landmarks=16)
    expected = torch.autograd.grad(exact, doubles, grad.double())
    for error in errors([out, *found], [exact, *expected]).values():
        assert error <= 1e-5


@pytest.mark.parametrize("layout", ["batch", "packed"])
def test_the_operator_is_registered_as_torch_expects(layout):
    qkv, _ = inputs(1, 1, 40, 16)
    q, k, v = (x.transpose(1, 2).float().requires_grad_() for x in qkv.unbind(2))
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
    assert nystrom_attention(empty, empty, empty, backend="triton").shape == empty.shape
    bounds = torch.tensor([0, 0, 0])
    out = nystrom_attention(empty, empty, empty, cu_seqlens=bounds, backend="triton")
    assert out.shape == empty.shape
    none = torch.empty(0, 2, 5, 16, device=DEVICE)
    assert nystrom_attention(none, none, none, backend="triton").shape == none.shape


def test_fp64_is_refused_with_the_reason():
    x = torch.zeros(1, 1, 4, 16, dtype=torch.float64, device=DEVICE)
    with pytest.raises(RuntimeError, match=r"backend='triton' cannot run: .*float64"):
        nystrom_attention(x, x, x, backend="triton")


@pytest.mark.gpu
def test_a_gpu_uses_them_by_default():
    qkv, weight = inputs(1, 2, 700, 64)
    found = attend(qkv, weight, torch.bfloat16)
    for a, b in zip(found, attend(qkv, weight, torch.bfloat16, backend="triton"), strict=True):
        assert torch.equal(a, b)


@pytest.mark.gpu
@pytest.mark.parametrize("packed", [False, True], ids=["batch", "packed"])
def test_a_cuda_graph_replays_the_same_bits(packed):
    qkv, weight = inputs(1, 2, 1300, 64)
    bounds = torch.tensor([0, 100, 1300], dtype=torch.int32, device=DEVICE) if packed else None
    q, k, v = (x.transpose(1, 2).bfloat16().requires_grad_() for x in qkv.unbind(2))

    def step():
        out = nystrom_attention(q, k, v, cu_seqlens=bounds)
        return [out, *torch.autograd.grad(out, (q, k, v), weight.bfloat16())]

    expected = step()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = step()
    graph.replay()
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)


@pytest.mark.gpu
def test_long_bags_of_half_precision_match_the_reference():
    """Many chunks, a bag beside one of 300 times its length, the dtype of training."""
    lengths = (500, 1, 30_000, 256)
    bounds = torch.tensor([0, *lengths]).cumsum(0).int()
    qkv, weight = inputs(1, 2, sum(lengths), 64)
    expected = attend(qkv, weight, torch.float64, nystrom_attention_reference, cu_seqlens=bounds)
    found = attend(qkv, weight, torch.bfloat16, cu_seqlens=bounds)
    again = attend(qkv, weight, torch.bfloat16, cu_seqlens=bounds)
    for name, error in errors(found, expected).items():
        assert error <= 4e-2, name
    for a, b in zip(found, again, strict=True):
        assert torch.equal(a, b)


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
    for found, expected in zip(*results, strict=True):
        assert (found - expected).norm() <= 2e-2 * expected.norm()
