"""Nyström attention against its fp64 reference: outputs, gradients, bags, bad input."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from builders.attention import (
    loss_weight,
    outputs_and_gradients,
    random_projections,
    shape_ids,
    split,
)
from builders.dtypes import dtype_id
from builders.errors import assert_near, attention_sizes, relative_error

from gimp_fast.ops import nystrom_torch
from gimp_fast.ops.nystrom_attention import nystrom_attention
from gimp_fast.ops.nystrom_operators import nystrom_attention_bwd, nystrom_attention_fwd
from gimp_fast.reference.nystrom_attention import (
    landmarks_reference,
    nystrom_attention_reference,
)

# (B, H, N, D, M): N below, at, just above and far above M; M dividing N and not; D odd; N = 1.
SHAPES = [
    (1, 1, 1, 8, 4),
    (2, 2, 7, 16, 8),
    (2, 2, 8, 16, 8),
    (2, 3, 9, 16, 8),
    (1, 2, 63, 16, 16),
    (2, 2, 128, 32, 16),
    (1, 2, 257, 13, 32),
    (1, 1, 1000, 64, 256),
]
SHAPE_IDS = shape_ids(SHAPES)
HALF_TOLERANCE = {torch.bfloat16: 2e-2, torch.float16: 3e-3}


def sample_inputs(b, h, n, d, dtype=torch.float64, gain=1.0, seed=0):
    """q, k and v, views of one projection: none is contiguous."""
    return split(random_projections(b, n, h, d, gain=gain, seed=seed), dtype)


@pytest.mark.parametrize("shape", SHAPES, ids=SHAPE_IDS)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 2e-4)], ids=["fp64", "fp32"]
)
def test_output_and_gradients_match_the_fp64_reference(shape, dtype, tolerance):
    *sizes, m = shape
    found = outputs_and_gradients(
        nystrom_attention, sample_inputs(*sizes, dtype=dtype), num_landmarks=m, backend="torch"
    )
    assert [x.dtype for x in found] == [dtype] * 4
    exact = sample_inputs(*sizes)
    expected = outputs_and_gradients(nystrom_attention_reference, exact, num_landmarks=m)
    assert_near(found, expected, tolerance, attention_sizes(expected, exact, loss_weight(exact)))


@pytest.mark.parametrize("dtype", HALF_TOLERANCE, ids=dtype_id)
@pytest.mark.parametrize("shape", SHAPES, ids=SHAPE_IDS)
def test_half_precision_stays_near_the_fp64_reference(shape, dtype):
    b, h, n, d, m = shape
    q, k, v = (x.to(dtype) for x in sample_inputs(b, h, n, d))
    out = nystrom_attention(q, k, v, num_landmarks=m)
    expected = nystrom_attention_reference(q.double(), k.double(), v.double(), num_landmarks=m)
    assert out.dtype == dtype
    assert relative_error(out, expected) <= HALF_TOLERANCE[dtype]


def test_gradcheck_in_fp64():
    q, k, v = sample_inputs(1, 2, 11, 4)
    assert torch.autograd.gradcheck(lambda *x: nystrom_attention(*x, num_landmarks=4), (q, k, v))


@pytest.mark.parametrize("n", [16, 17, 31, 32, 33, 100])
def test_landmarks_are_balanced_segment_means(n):
    x = torch.arange(n, dtype=torch.float64)[:, None]
    marks = landmarks_reference(x, 16)
    bounds = [i * n // 16 for i in range(17)]
    expected = [sum(range(a, b)) / (b - a) for a, b in pairwise(bounds)]
    assert {b - a for a, b in pairwise(bounds)} <= {n // 16, n // 16 + 1}
    assert marks[:, 0].tolist() == pytest.approx(expected, abs=1e-12)


def test_short_bags_get_exact_softmax_attention():
    q, k, v = sample_inputs(2, 2, 32, 16)
    expected = torch.softmax(q @ k.mT / 4, -1) @ v
    torch.testing.assert_close(nystrom_attention(q, k, v, num_landmarks=32), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=dtype_id)
def test_a_bag_is_bitwise_the_same_alone_in_a_batch_and_packed(dtype):
    """Output and gradients; the peer's change with the batch mates (global pinv maxima)."""

    def attend(q, k, v, **kwargs):
        return nystrom_attention(q, k, v, num_landmarks=16, **kwargs)

    bags = [
        sample_inputs(1, 2, n, 16, dtype=dtype, gain=1 + i, seed=i)
        for i, n in enumerate((57, 57, 1, 300))
    ]
    alone = [outputs_and_gradients(attend, bag) for bag in bags]

    weights = [loss_weight(bag) for bag in bags]

    batch = [torch.cat(x).detach().requires_grad_() for x in zip(*bags[:2], strict=True)]
    together = outputs_and_gradients(attend, batch, torch.cat(weights[:2]))
    for b in range(2):
        for found, expected in zip(together, alone[b], strict=True):
            assert torch.equal(found[b : b + 1], expected)

    packed = [torch.cat(x, dim=2).detach().requires_grad_() for x in zip(*bags, strict=True)]
    bounds = [0, 57, 114, 115, 415]
    together = outputs_and_gradients(
        attend, packed, torch.cat(weights, dim=2), cu_seqlens=torch.tensor(bounds).int()
    )
    for b, (start, stop) in enumerate(pairwise(bounds)):
        for found, expected in zip(together, alone[b], strict=True):
            assert torch.equal(found[:, :, start:stop], expected)


def test_empty_bags_among_packed_ones_are_nothing():
    q, k, v = (x.detach() for x in sample_inputs(1, 2, 20, 8))
    bounds = torch.tensor([0, 0, 20, 20])
    out = nystrom_attention(q, k, v, num_landmarks=8, cu_seqlens=bounds)
    assert torch.equal(out, nystrom_attention(q, k, v, num_landmarks=8))


def test_autocast_keeps_the_pseudo_inverse_in_fp32():
    q, k, v = (x.detach().bfloat16() for x in sample_inputs(1, 2, 200, 16, gain=2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = nystrom_attention(q, k, v, num_landmarks=32)
    assert torch.equal(under, nystrom_attention(q, k, v, num_landmarks=32))


BOUNDS = {"batch": None, "packed": [0, 5, 5, 57]}


def bounds_of(layout):
    return None if BOUNDS[layout] is None else torch.tensor(BOUNDS[layout], dtype=torch.int32)


@pytest.mark.parametrize("layout", BOUNDS)
@pytest.mark.parametrize("n", [12, 57])
def test_the_operator_is_registered_as_torch_expects(n, layout):
    q, k, v = sample_inputs(1, 2, 57 if layout == "packed" else n, 8)
    settings = (16, 6, 0.3, "torch")
    torch.library.opcheck(nystrom_attention_fwd, (q, k, v, bounds_of(layout), *settings))
    tensors = [x.detach() for x in (q, k, v)]
    out, *saved = nystrom_attention_fwd(*tensors, bounds_of(layout), *settings)
    torch.library.opcheck(
        nystrom_attention_bwd,
        (out, *tensors, bounds_of(layout), *saved, *settings),
        test_utils=("test_schema", "test_faketensor"),
    )


@pytest.mark.parametrize("layout", BOUNDS)
@pytest.mark.parametrize("n", [12, 57, 64])
def test_compiles_to_one_graph(n, layout):
    n = 57 if layout == "packed" else n

    def attend(q, k, v):
        return nystrom_attention(q, k, v, num_landmarks=16, cu_seqlens=bounds_of(layout))

    torch.compiler.reset()
    compiled = torch.compile(attend, fullgraph=True, backend="aot_eager")
    found, expected = (
        outputs_and_gradients(f, sample_inputs(1, 2, n, 8)) for f in (compiled, attend)
    )
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)


def test_activation_checkpointing_gives_the_same_bits():
    def attend(q, k, v):
        return nystrom_attention(q, k, v, num_landmarks=16)

    def checkpointed(q, k, v):
        return torch.utils.checkpoint.checkpoint(attend, q, k, v, use_reentrant=False)

    found, expected = (
        outputs_and_gradients(f, sample_inputs(2, 2, 70, 8)) for f in (checkpointed, attend)
    )
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)


def test_functional_transforms():
    q, k, v = (x.detach() for x in sample_inputs(6, 2, 40, 8))

    def loss(q, k, v):
        return nystrom_attention(q, k, v, num_landmarks=16).sin().sum()

    expected = torch.autograd.grad(loss(*(x.requires_grad_() for x in (q, k, v))), (q, k, v))
    found = torch.func.grad(loss, argnums=(0, 1, 2))(*(x.detach() for x in (q, k, v)))
    stacked = [x.detach().unflatten(0, (3, 2)) for x in (q, k, v)]
    mapped = torch.vmap(torch.func.grad(loss, argnums=(0, 1, 2)))(*stacked)
    for a, b, c in zip(found, mapped, expected, strict=True):
        assert torch.equal(a, c)
        assert torch.equal(b.flatten(0, 1), c)


def test_vmap_over_one_of_the_inputs():
    q, k, v = (x.detach() for x in sample_inputs(1, 2, 40, 8))
    values = torch.stack([v, 2 * v], dim=2)
    found = torch.vmap(
        lambda value: nystrom_attention(q, k, value, num_landmarks=16), in_dims=2, out_dims=1
    )(values)
    once = nystrom_attention(q, k, v, num_landmarks=16)
    torch.testing.assert_close(found, torch.stack([once, 2 * once], dim=1))


def test_what_is_not_differentiable_says_so():
    q, k, v = sample_inputs(1, 1, 40, 8)
    gradient = torch.autograd.grad(
        nystrom_attention(q, k, v, num_landmarks=16).sin().sum(), q, create_graph=True
    )[0]
    with pytest.raises(NotImplementedError, match="differentiable once"):
        gradient.sum().backward()
    bounds = torch.tensor([0, 40])
    with pytest.raises(NotImplementedError, match="no vmap over packed bags"):
        torch.vmap(lambda x: nystrom_attention(x, x, x, cu_seqlens=bounds))(torch.stack([q, q]))


def test_only_small_tensors_are_kept_for_the_backward_pass():
    """q, k, v, and tensors of the size of the landmarks: no scores, not even the output."""
    q, k, v = sample_inputs(1, 2, 3000, 16, dtype=torch.float32)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        nystrom_attention(q, k, v, num_landmarks=32)
    large = [x for x in kept if x.numel() >= 3000 * 2]
    assert sorted(x.data_ptr() for x in large) == sorted(x.data_ptr() for x in (q, k, v))


@pytest.mark.parametrize("scale", [-0.3, 0.0])
def test_any_scale(scale):
    found, expected = (
        outputs_and_gradients(
            lambda q, k, v, f=f: f(q, k, v, num_landmarks=8, scale=scale),
            sample_inputs(1, 1, 40, 8),
        )
        for f in (nystrom_attention, nystrom_attention_reference)
    )
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_scale_is_applied():
    q, k, v = sample_inputs(1, 1, 40, 8)
    scaled = nystrom_attention(q * 2, k, v, num_landmarks=8, scale=0.25)
    plain = nystrom_attention(q, k, v, num_landmarks=8, scale=0.5)
    torch.testing.assert_close(scaled, plain)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda q, k, v: ((q, k[:, :, :5], v), {}), r"share one shape.*\(1, 2, 5, 8\)"),
        (lambda q, k, v: ((q[0], k[0], v[0]), {}), "share one shape"),
        (lambda q, k, v: ((q, k.half(), v), {}), "share one floating dtype.*float16"),
        (lambda q, k, v: ((q.long(), k.long(), v.long()), {}), "floating dtype"),
        (lambda q, k, v: ((q, k, v), {"num_landmarks": 0}), "num_landmarks.*got 0"),
        (lambda q, k, v: ((q, k, v), {"pinv_iterations": -1}), "pinv_iterations.*got -1"),
        (
            lambda q, k, v: ((q, k, v), {"cu_seqlens": torch.tensor([0, 7])}),
            r"number of tokens 12, got \[0, 7\]",
        ),
        (lambda q, k, v: ((q, k, v), {"cu_seqlens": torch.tensor([0, 9, 4, 12])}), "must rise"),
        (lambda q, k, v: ((q, k, v), {"cu_seqlens": torch.tensor([0.0, 12.0])}), "int32"),
        (lambda q, k, v: ((q, k, v), {"backend": "fast"}), "unknown"),
    ],
)
def test_bad_input_names_what_is_wrong(change, message):
    args, kwargs = change(*(x.detach() for x in sample_inputs(1, 2, 12, 8)))
    with pytest.raises(ValueError, match=message):
        nystrom_attention(*args, **kwargs)


def test_packed_bags_need_a_batch_of_one():
    q, k, v = sample_inputs(2, 2, 12, 8)
    with pytest.raises(ValueError, match=r"\(1, H, T, D\)"):
        nystrom_attention(q, k, v, cu_seqlens=torch.tensor([0, 12]))


def test_a_named_backend_that_cannot_run_says_why():
    q, k, v = sample_inputs(1, 2, 12, 8)
    with pytest.raises(RuntimeError, match=r"backend=.cuda. cannot run: .*no cuda backend"):
        nystrom_attention(q, k, v, backend="cuda")


@pytest.mark.parametrize("size", [1e20, 1e30, 1e37])
@pytest.mark.parametrize("n", [7, 9, 300], ids=["exact", "just-above", "long"])
def test_scores_that_overflow_give_what_fp64_gives(n, size):
    """softmax keeps the largest score alone; fp32 cannot hold it, but can find it."""
    q, k, v = (x.detach() for x in sample_inputs(1, 2, n, 16, dtype=torch.float32))
    q, k = q * size, k * size
    found = nystrom_attention(q, k, v, num_landmarks=8, backend="torch")
    exact = (x.double() for x in (q, k, v))
    expected = nystrom_attention_reference(*exact, num_landmarks=8)
    assert relative_error(found, expected) <= 1e-5
    halves = (x.bfloat16() for x in (q, k, v))
    assert nystrom_attention(*halves, num_landmarks=8, backend="torch").isfinite().all()


def test_a_bag_whose_scores_overflow_leaves_its_mates_alone():
    q, k, v = (x.detach() for x in sample_inputs(1, 2, 60, 16, dtype=torch.float32))
    q[:, :, 20:40] *= 1e30
    k[:, :, 20:40] *= 1e30
    settings = {"num_landmarks": 8, "backend": "torch"}
    packed = nystrom_attention(q, k, v, cu_seqlens=[0, 20, 40, 60], **settings)
    for a, b in pairwise([0, 20, 40, 60]):
        alone = nystrom_attention(q[:, :, a:b], k[:, :, a:b], v[:, :, a:b], **settings)
        assert torch.equal(packed[:, :, a:b], alone)
    assert packed.isfinite().all()


def test_gradients_of_a_bag_whose_scores_overflow():
    """The values' are exact; a saturated softmax leaves only rounding to queries and keys."""
    q, k, v = (x.detach() for x in sample_inputs(1, 2, 300, 16, dtype=torch.float32))
    inputs = [x.requires_grad_() for x in (q * 2.0**70, k * 2.0**70, v)]
    found = outputs_and_gradients(nystrom_attention, inputs, num_landmarks=8, backend="torch")
    exact = [x.detach().double().requires_grad_() for x in inputs]
    expected = outputs_and_gradients(nystrom_attention_reference, exact, num_landmarks=8)
    assert all(x.isfinite().all() for x in found)
    assert relative_error(found[3], expected[3]) <= 1e-4


def test_nan_stays_nan():
    q, k, v = (x.detach() for x in sample_inputs(1, 2, 30, 16, dtype=torch.float32))
    v[0, 0, 3, 0] = float("nan")
    assert nystrom_attention(q, k, v, num_landmarks=8, backend="torch").isnan().any()


@pytest.mark.parametrize("kind", [list, tuple, np.array, torch.tensor], ids=lambda x: x.__name__)
def test_bounds_may_be_plain_numbers(kind):
    q, k, v = sample_inputs(1, 2, 30, 16, dtype=torch.float32)
    bounds = torch.tensor([0, 7, 30], dtype=torch.int32)
    expected = nystrom_attention(q, k, v, num_landmarks=8, cu_seqlens=bounds)
    found = nystrom_attention(q, k, v, num_landmarks=8, cu_seqlens=kind([0, 7, 30]))
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ([0, 7.5, 30], "expected whole numbers"),
        ("0 30", "expected whole numbers"),
        (30, "expected whole numbers"),
        ([0, 7, 29], "number of tokens 30"),
        ([0, 9, 7, 30], "must rise"),
    ],
    ids=["fraction", "text", "number", "short", "falls"],
)
def test_bounds_that_are_none_are_named(bounds, message):
    q, k, v = sample_inputs(1, 2, 30, 16, dtype=torch.float32)
    with pytest.raises(ValueError, match=message):
        nystrom_attention(q, k, v, cu_seqlens=bounds)


def test_work_is_shared_by_heads_and_not_by_tokens(monkeypatch):
    counts = []
    original = nystrom_torch.run_side_by_side

    def counted(tasks):
        counts.append(len(tasks))
        original(tasks)

    monkeypatch.setattr(nystrom_torch, "run_side_by_side", counted)
    monkeypatch.setattr(nystrom_torch, "is_fast", lambda x, multiply_adds: True)
    inputs = sample_inputs(1, 3, 300, 16, dtype=torch.float32)
    outputs_and_gradients(nystrom_attention, inputs, num_landmarks=8, backend="torch")
    assert counts == [3, 3]
