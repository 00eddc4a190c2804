"""The C++ backend under every instruction set: errors, threads, few rows, bad input."""

from __future__ import annotations

import pytest
import torch
from builders.attention import (
    STAGES,
    clustered_projections,
    loss_weight,
    outputs_and_gradients,
    random_projections,
    split,
)
from builders.dtypes import dtype_id
from builders.errors import assert_near, assert_no_worse, attention_sizes, relative_error
from builders.native import NATIVE, each_instruction_set, on_threads

from gimp_fast.ops import nystrom_native
from gimp_fast.ops.nystrom_attention import nystrom_attention
from gimp_fast.ops.nystrom_layer import nystrom_layer
from gimp_fast.ops.token_conv import token_conv
from gimp_fast.reference.nystrom_attention import landmarks_reference, nystrom_attention_reference

pytestmark = pytest.mark.skipif(NATIVE != "available", reason=NATIVE)
# (B, H, N, D, M): exact, just above, one landmark, odd widths, several panels, several ranges.
SHAPES = [
    (1, 1, 1, 1, 1),
    (1, 2, 9, 5, 1),
    (2, 2, 8, 16, 8),
    (2, 3, 9, 16, 8),
    (1, 2, 97, 13, 96),
    (1, 1, 300, 130, 33),
    (1, 1, 1000, 64, 256),
    (1, 1, 3001, 40, 77),
]


def attend(q, k, v, **options):
    return nystrom_attention(q, k, v, backend="native", **options)


def all_of(b, h, n, d, dtype, gain=1.0):
    return split(random_projections(b, n, h, d, gain=gain), dtype)


@each_instruction_set
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_output_and_gradients_are_near_fp64(instruction_set, shape):
    *sizes, m = shape
    exact = all_of(*sizes, torch.float64)
    expected = outputs_and_gradients(nystrom_attention_reference, exact, num_landmarks=m)
    found = outputs_and_gradients(attend, all_of(*sizes, torch.float32), num_landmarks=m)
    assert_near(found, expected, 5e-6, attention_sizes(expected, exact, loss_weight(exact)))


@each_instruction_set
@pytest.mark.parametrize("iterations", [0, 1, 2, 3, 9])
def test_any_number_of_iterations(instruction_set, iterations):
    options = {"num_landmarks": 20, "pinv_iterations": iterations}
    exact = all_of(1, 2, 70, 8, torch.float64, gain=2.0)
    expected = outputs_and_gradients(nystrom_attention_reference, exact, **options)
    found = outputs_and_gradients(attend, all_of(1, 2, 70, 8, torch.float32, gain=2.0), **options)
    assert_near(found, expected, 1e-5, attention_sizes(expected, exact, loss_weight(exact)))


def of_clusters(d, m, noise):
    ids = torch.randint(0, 20, (700,), generator=torch.Generator().manual_seed(3))
    return clustered_projections(ids, 2, d, gain=1.0, noise=noise), m


CASES = {
    "random": lambda: (random_projections(1, 3000, 2, 40), 77),
    "random-large": lambda: (random_projections(1, 1500, 2, 64, gain=3.0), 256),
    "random-small": lambda: (random_projections(1, 128, 2, 32, seed=1), 16),
    "clustered": lambda: of_clusters(32, 64, 0.1),
    "clustered-tightly": lambda: of_clusters(16, 32, 0.01),
}


@each_instruction_set
@pytest.mark.parametrize("case", CASES)
def test_fp32_errors_are_at_most_twice_those_of_the_definition(instruction_set, case):
    qkv, m = CASES[case]()
    exact = split(qkv)
    expected = outputs_and_gradients(nystrom_attention_reference, exact, num_landmarks=m)
    single = split(qkv, torch.float32)
    peer = outputs_and_gradients(nystrom_attention_reference, single, num_landmarks=m)
    found = outputs_and_gradients(attend, single, num_landmarks=m)
    sizes = attention_sizes(expected, exact, loss_weight(exact))
    assert_no_worse(found, peer, expected, 2, sizes, STAGES)


@each_instruction_set
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=dtype_id)
def test_half_precisions_are_rounded_once(instruction_set, dtype):
    qkv = random_projections(1, 300, 2, 24).to(dtype).double()
    expected = outputs_and_gradients(attend, split(qkv, torch.float32), num_landmarks=32)
    found = outputs_and_gradients(attend, split(qkv, dtype), num_landmarks=32)
    assert torch.equal(found[0], expected[0].to(dtype))
    eps = torch.finfo(dtype).eps
    for a, b in zip(found[1:], expected[1:], strict=True):  # q's gets the landmarks' share later
        torch.testing.assert_close(a, b.to(dtype), rtol=eps, atol=eps * b.abs().max().item())


@each_instruction_set
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=dtype_id)
def test_every_half_is_read_and_written_as_torch_does(instruction_set, dtype):
    """One key and value: attention returns the value, converted twice."""
    values = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(dtype)
    values = values[values.isfinite()].view(1, 1, 1, -1)
    out = attend(torch.zeros_like(values), torch.zeros_like(values), values)
    assert torch.equal(out.float(), values.float())


@each_instruction_set
@pytest.mark.parametrize("heads", [1, 3, 8])
@pytest.mark.parametrize(("n", "m"), [(50, 64), (700, 32), (5000, 40)], ids=str)
def test_any_number_of_threads_gives_the_same_bits(instruction_set, heads, n, m):
    qkv = random_projections(1, n, heads, 16).float()[0][None]
    weight = torch.randn(heads, 1, 33, 1)

    def run(threads):
        leaves = [qkv.clone().requires_grad_(), weight.clone().requires_grad_()]
        with on_threads(threads):
            out = nystrom_layer(*leaves, num_landmarks=m, backend="native")
            return [out, *torch.autograd.grad(out, leaves, torch.ones_like(out))]

    alone = run(1)
    for threads in (2, 3, 7):
        for a, b in zip(run(threads), alone, strict=True):
            assert torch.equal(a, b)


@each_instruction_set
@pytest.mark.parametrize("kernel", [1, 3, 33, 65])
@pytest.mark.parametrize(("n", "d"), [(1, 3), (20, 16), (200, 13), (400, 70)], ids=str)
def test_the_convolution_is_that_of_its_own_operator(instruction_set, kernel, n, d):
    qkv = random_projections(1, n, 2, d).float().requires_grad_()
    weight = torch.randn(2, 1, kernel, 1, requires_grad=True)
    grad = torch.randn(1, n, 2 * d)
    options = {"num_landmarks": 24, "backend": "native"}
    out = nystrom_layer(qkv, weight, **options)
    found = [out, *torch.autograd.grad(out, (qkv, weight), grad)]
    q, k, v = (x.transpose(1, 2) for x in qkv.unbind(2))
    apart = token_conv(v, weight, add=nystrom_attention(q, k, v, **options))
    apart = apart.transpose(1, 2).flatten(2)
    expected = [apart, *torch.autograd.grad(apart, (qkv, weight), grad)]
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5 * b.abs().max().item())


def whole(q, k, v, weight, m):
    """Output and gradients of all rows, in fp64."""
    exact = [x.detach().double().requires_grad_() for x in (q, k, v)]
    weight = weight.detach().double().requires_grad_()
    out = nystrom_attention_reference(*exact, num_landmarks=m)
    return token_conv(exact[2], weight, add=out), exact, weight


@each_instruction_set
@pytest.mark.parametrize("rows", [[0], [0, 1, 40, 41, 199], list(range(0, 200, 2))], ids=len)
@pytest.mark.parametrize("m", [16, 256], ids=["nystrom", "exact"])
def test_some_rows_are_those_of_the_whole(instruction_set, rows, m):
    """Output, and every gradient, of the landmarks of all queries too."""
    q, k, v = (x.detach() for x in all_of(1, 2, 200, 13, torch.float32))
    weight, index = torch.randn(2, 1, 33, 1), torch.tensor(rows)
    full, exact, exact_weight = whole(q, k, v, weight, m)
    grad = torch.randn(1, 2, len(rows), 13)
    expected = torch.autograd.grad(full[:, :, index], [*exact, exact_weight], grad.double())

    marks = landmarks_reference(q, min(m, 200)) if m < 200 else q.new_zeros(1, 2, m, 13)
    settings = ([(0, 200)], m, 6, 13**-0.5)
    given = {"q_spans": [(0, len(rows))], "conv_weight": weight, "positions": index}
    queries = q[:, :, index]
    out, *saved = nystrom_native.nystrom_fwd(queries, k, v, *settings, q_marks=marks, **given)
    found = nystrom_native.nystrom_bwd(
        grad, queries, k, v, settings[0], *saved, *settings[1:], marks_given=True, **given
    )
    assert relative_error(out, full[:, :, index]) <= 2e-6
    grad_q = torch.zeros_like(q)
    grad_q[:, :, index] = found[0]
    if m < 200:  # each token of a segment gets its share
        edges = torch.arange(m + 1) * 200 // m
        shares = found[3] / edges.diff()[:, None]
        grad_q += shares[:, :, torch.arange(m).repeat_interleave(edges.diff())]
    for a, b in zip((grad_q, *found[1:3], found[4]), expected, strict=True):
        assert relative_error(a, b) <= 5e-6


def test_bags_without_queries_and_without_tokens_have_no_gradient():
    q, k, v = (x.detach() for x in all_of(1, 2, 90, 8, torch.float32))
    spans, q_spans = [(0, 40), (40, 40), (40, 90)], [(0, 3), (3, 3), (3, 3)]
    marks = torch.zeros(3, 2, 16, 8)
    marks[0] = landmarks_reference(q[0, :, :40], 16)
    out, *saved = nystrom_native.nystrom_fwd(
        q[:, :, :3], k, v, spans, 16, 6, 0.3, q_marks=marks, q_spans=q_spans
    )
    grads = nystrom_native.nystrom_bwd(
        torch.ones_like(out), q[:, :, :3], k, v, spans, *saved, 16, 6, 0.3,
        q_spans=q_spans, marks_given=True,
    )  # fmt: skip
    assert out.isfinite().all()
    assert grads[1][:, :, :40].any()
    assert not grads[1][:, :, 40:].any()
    assert not grads[2][:, :, 40:].any()
    assert not grads[3][1:].any()


def test_a_bag_is_read_within_its_bounds():
    """Rows around a bag may hold anything."""
    q, k, v = (x.detach() for x in all_of(1, 2, 60, 8, torch.float32))
    expected = attend(q, k, v, num_landmarks=16)
    around = [torch.full((1, 2, 100, 12), float("nan")) for _ in range(3)]
    for x, y in zip(around, (q, k, v), strict=True):
        x[:, :, 20:80, :8] = y
    inside = [x[:, :, 20:80, :8] for x in around]
    assert torch.equal(attend(*inside, num_landmarks=16), expected)


def bad(change, message):
    q = torch.zeros(1, 2, 30, 8)
    marks, rest = torch.zeros(1, 2, 16, 8), (torch.zeros(1, 2, 16), torch.zeros(1, 2, 2))
    arguments = dict(
        q=q, k=q, v=q, token_bounds=[], query_bounds=[], q_marks=marks.clone(),
        k_marks=marks.clone(), mark_lse=rest[0], values=marks.clone(), mixed=marks.clone(),
        factors=rest[1], filter=None, positions=None, marks_given=False, num_landmarks=16,
        iterations=6, scale=1.0, out=torch.zeros(1, 2, 30, 8),
    )  # fmt: skip
    with pytest.raises(RuntimeError, match=message):
        torch.ops.gimp_fast.nystrom_native_fwd(**(arguments | change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": torch.zeros(2, 30, 8)}, "q and k must be 4-D"),
        ({"k": torch.zeros(1, 2, 30, 8).half()}, "k must be a 4-D CPU tensor like q"),
        ({"v": torch.zeros(1, 2, 31, 8)}, "v has another shape"),
        ({"k": torch.zeros(1, 2, 8, 30).mT}, "channels of k must be contiguous"),
        ({"out": torch.zeros(1, 2, 29, 8)}, "out has another shape"),
        ({"token_bounds": [0, 40]}, "bounds must rise from 0"),
        ({"token_bounds": [0, 20, 10, 30]}, "bounds must rise from 0"),
        ({"token_bounds": [0, 30], "query_bounds": [0, 9, 30]}, "bags of queries and of tokens"),
        ({"q_marks": torch.zeros(1, 2, 15, 8)}, "landmarks has another shape"),
        ({"num_landmarks": 17}, "too few landmarks"),
        ({"num_landmarks": 0}, "counts are wrong"),
        ({"iterations": -1}, "counts are wrong"),
        ({"filter": torch.zeros(2, 1, 4, 1)}, "K odd"),
        ({"filter": torch.zeros(3, 1, 3, 1)}, "the filter has another shape"),
        ({"positions": torch.zeros(29, dtype=torch.int64)}, "one int64 number for each query"),
        ({"positions": torch.zeros(30, dtype=torch.int64)}, "positions must rise"),
        ({"positions": torch.arange(30) + 1}, "positions must rise within their bag"),
    ],
    ids=lambda x: "-".join(x) if isinstance(x, dict) else None,
)
def test_what_does_not_fit_is_refused(change, message):
    bad(change, message)


def test_fp64_is_left_to_torch():
    x = torch.zeros(1, 1, 9, 4, dtype=torch.float64)
    with pytest.raises(RuntimeError, match="backend='native' cannot run: it takes"):
        attend(x, x, x)
    assert nystrom_attention(x, x, x).dtype == torch.float64


def test_an_unknown_instruction_set_is_refused():
    from gimp_fast import _C

    with pytest.raises(ValueError, match="no instruction set 'sse9'"):
        _C.use_instruction_set("sse9")
