"""Rows of the Nyström matrix, and products with it, against the dense matrix in fp64."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from builders.attention import random_projections, shape_ids, split
from builders.dtypes import dtype_id
from builders.errors import relative_error
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gimp_fast.ops import nystrom_attention_row
from gimp_fast.ops.nystrom_attention_row import CHUNK, nystrom_attention_left
from gimp_fast.reference.nystrom_attention import nystrom_attention_reference
from gimp_fast.reference.nystrom_attention_row import nystrom_matrix_reference

# (B, H, N, D, M): N below, at and above M; M dividing N and not; a chunk full, and one token more.
SHAPES = [
    (1, 1, 1, 8, 4),
    (2, 2, 7, 16, 8),
    (2, 2, 8, 16, 8),
    (2, 3, 9, 16, 8),
    (1, 2, 128, 13, 16),
    (1, 2, 257, 16, 32),
    (1, 1, CHUNK, 8, 16),
    (1, 2, CHUNK + 1, 8, 16),
    (1, 1, 2500, 8, 64),
]
SHAPE_IDS = shape_ids(SHAPES)
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-4, torch.bfloat16: 1e-4, torch.float16: 1e-4}


def sample_inputs(b, h, n, d, dtype=torch.float64, gain=2.0, seed=0):
    """Queries, keys (projections, as a qkv layer gives them: not contiguous) and weights."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(b, h, n, generator=generator, dtype=torch.float64)
    qk = random_projections(b, n, h, d, count=2, gain=gain, seed=seed)
    return *(x.detach() for x in split(qk, dtype)), weights


class LargestTensor(TorchDispatchMode):
    """Number of elements of the largest tensor that an operator returned."""

    numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves(result) if isinstance(x, torch.Tensor)]
        self.numel = max([self.numel, *(x.numel() for x in tensors)])
        return result


@pytest.mark.parametrize("dtype", TOLERANCE, ids=dtype_id)
@pytest.mark.parametrize("shape", SHAPES, ids=SHAPE_IDS)
def test_first_middle_and_last_row_match_the_dense_matrix(shape, dtype):
    *sizes, m = shape
    n = sizes[2]
    q, k, _ = sample_inputs(*sizes, dtype=dtype)
    dense = nystrom_matrix_reference(q.double(), k.double(), num_landmarks=m)
    for row in (0, n // 2, n - 1, -1, -n):
        found = nystrom_attention_row(q, k, row=row, num_landmarks=m)
        assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert relative_error(found, dense[:, :, row]) <= TOLERANCE[dtype], row


@pytest.mark.parametrize("dtype", TOLERANCE, ids=dtype_id)
@pytest.mark.parametrize("shape", SHAPES, ids=SHAPE_IDS)
def test_product_from_the_left_matches_the_dense_matrix(shape, dtype):
    *sizes, m = shape
    q, k, weights = sample_inputs(*sizes, dtype=dtype)
    dense = nystrom_matrix_reference(q.double(), k.double(), num_landmarks=m)
    before = weights.clone()
    found = nystrom_attention_left(q, k, weights, num_landmarks=m)
    assert relative_error(found, (weights[:, :, None] @ dense)[:, :, 0]) <= TOLERANCE[dtype]
    assert torch.equal(weights, before)


@pytest.mark.parametrize("shape", SHAPES, ids=SHAPE_IDS)
def test_dense_matrix_times_values_is_the_attention_reference(shape):
    *sizes, m = shape
    q, k, _ = sample_inputs(*sizes)
    v, _, _ = sample_inputs(*sizes, seed=1)
    dense = nystrom_matrix_reference(q, k, num_landmarks=m, scale=0.3, pinv_iterations=4)
    expected = nystrom_attention_reference(q, k, v, num_landmarks=m, scale=0.3, pinv_iterations=4)
    torch.testing.assert_close(dense @ v, expected)


@pytest.mark.parametrize("n", [12, 50], ids=["exact", "nystrom"])
def test_scale_and_iterations_are_applied(n):
    q, k, weights = sample_inputs(1, 2, n, 8)
    settings = {"num_landmarks": 12, "pinv_iterations": 3, "scale": 0.2}
    dense = nystrom_matrix_reference(q, k, **settings)
    row = nystrom_attention_row(q, k, row=4, **settings)
    torch.testing.assert_close(row, dense[:, :, 4])
    left = nystrom_attention_left(q, k, weights, **settings)
    torch.testing.assert_close(left, (weights[:, :, None] @ dense)[:, :, 0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=dtype_id)
def test_a_bag_is_bitwise_the_same_alone_in_a_batch_and_packed(dtype):
    lengths = (57, 57, 1, 16, 17, CHUNK + 300)
    bags = [sample_inputs(1, 2, n, 8, dtype=dtype, seed=i) for i, n in enumerate(lengths)]

    def both(q, k, weights, **kwargs):
        row = nystrom_attention_row(q, k, row=-1, num_landmarks=16, **kwargs)
        return row, nystrom_attention_left(q, k, weights, num_landmarks=16, **kwargs)

    alone = [both(*bag) for bag in bags]
    batch = both(*(torch.cat(x) for x in zip(*bags[:2], strict=True)))
    bounds = torch.tensor([0, *lengths]).cumsum(0).int()
    packed = both(*(torch.cat(x, dim=2) for x in zip(*bags, strict=True)), cu_seqlens=bounds)
    for which in range(2):
        assert torch.equal(batch[which], torch.cat([found[which] for found in alone[:2]]))
        for (start, stop), found in zip(pairwise(bounds.tolist()), alone, strict=True):
            assert torch.equal(packed[which][:, :, start:stop], found[which])


def test_a_nystrom_row_may_hold_negative_weights_and_keeps_them():
    q, k, _ = sample_inputs(1, 1, 100, 4)
    dense = nystrom_matrix_reference(q, k, num_landmarks=8)
    row = int(dense[0, 0].amin(-1).argmin())
    assert dense[0, 0, row].min() < -1e-3
    found = nystrom_attention_row(q, k, row=row, num_landmarks=8)
    torch.testing.assert_close(found, dense[:, :, row])


def test_nothing_larger_than_the_scores_of_one_chunk_is_formed():
    h, d, m = 2, 4, 16
    q, k, weights = sample_inputs(1, h, 3 * CHUNK + 5, d, dtype=torch.float32)
    with LargestTensor() as seen:
        nystrom_attention_left(q, k, weights, num_landmarks=m)
    assert seen.numel == h * m * CHUNK


def test_inputs_that_require_gradients_give_a_detached_result():
    q, k, weights = (x.requires_grad_() for x in sample_inputs(1, 2, 20, 8))
    assert not nystrom_attention_row(q, k, num_landmarks=8).requires_grad
    assert not nystrom_attention_left(q, k, weights, num_landmarks=8).requires_grad


def test_autocast_changes_nothing():
    q, k, _ = sample_inputs(1, 2, 200, 16, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = nystrom_attention_row(q, k, num_landmarks=32)
    assert torch.equal(under, nystrom_attention_row(q, k, num_landmarks=32))


def test_empty_bags_and_batches_give_empty_products():
    q, k, weights = sample_inputs(1, 2, 20, 8)
    bounds = torch.tensor([0, 0, 20, 20])
    found = nystrom_attention_left(q, k, weights, num_landmarks=8, cu_seqlens=bounds)
    assert torch.equal(found, nystrom_attention_left(q, k, weights, num_landmarks=8))
    assert nystrom_attention_row(q[:0], k[:0], num_landmarks=8).shape == (0, 2, 20)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda q, k: ((q, k[:, :, :5]), {}), r"one shape.*\(1, 2, 12, 8\), \(1, 2, 5, 8\)"),
        (lambda q, k: ((q[0], k[0]), {}), "one shape"),
        (lambda q, k: ((q, k.half()), {}), "one floating dtype.*float64, torch.float16"),
        (lambda q, k: ((q.long(), k.long()), {}), "floating dtype"),
        (lambda q, k: ((q, k.to("meta")), {}), "one device, got cpu, meta"),
        (lambda q, k: ((q, k), {"num_landmarks": 0}), "num_landmarks.*got 0"),
        (lambda q, k: ((q, k), {"pinv_iterations": -1}), "pinv_iterations.*got -1"),
        (lambda q, k: ((q, k), {"row": 12}), "row 12 is outside bag 0 of 12 tokens"),
        (lambda q, k: ((q, k), {"row": -13}), "row -13 is outside bag 0 of 12 tokens"),
        (
            lambda q, k: ((q, k), {"row": 4, "cu_seqlens": torch.tensor([0, 5, 9, 12])}),
            "row 4 is outside bag 1 of 4 tokens",
        ),
        (
            lambda q, k: ((q, k), {"cu_seqlens": torch.tensor([0, 12, 12])}),
            "row 0 is outside bag 1 of 0 tokens",
        ),
        (lambda q, k: ((q, k), {"cu_seqlens": torch.tensor([0, 7])}), "number of tokens 12"),
        (
            lambda q, k: ((q.expand(2, -1, -1, -1), k.expand(2, -1, -1, -1)),
                          {"cu_seqlens": torch.tensor([0, 12])}),
            r"packed bags need shape \(1, H, T, D\), got \(2, 2, 12, 8\)",
        ),
    ],
)  # fmt: skip
def test_bad_input_names_what_is_wrong(change, message):
    args, kwargs = change(*sample_inputs(1, 2, 12, 8)[:2])
    with pytest.raises(ValueError, match=message):
        nystrom_attention_row(*args, **kwargs)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (torch.ones(1, 2, 11), r"shape \(1, 2, 12\), got torch.float32 \(1, 2, 11\)"),
        (torch.ones(1, 2, 12, dtype=torch.long), "floating.*int64"),
        (torch.ones(1, 2, 12, device="meta"), "must be on cpu, got meta"),
    ],
)
def test_bad_weights_are_named(weights, message):
    q, k, _ = sample_inputs(1, 2, 12, 8)
    with pytest.raises(ValueError, match="nystrom_attention_left: weights.*" + message):
        nystrom_attention_left(q, k, weights)


@pytest.mark.parametrize("n", [7, 300], ids=["exact", "long"])
def test_scores_that_overflow_give_what_fp64_gives(n):
    q, k, weights = sample_inputs(1, 2, n, 16, dtype=torch.float32)
    q, k = q * 1e30, k * 1e30
    settings = {"num_landmarks": 8}
    found = nystrom_attention_row(q, k, row=2, **settings)
    assert (
        relative_error(found, nystrom_attention_row(q.double(), k.double(), row=2, **settings))
        <= 1e-4
    )
    found = nystrom_attention_left(q, k, weights.float(), **settings)
    expected = nystrom_attention_left(q.double(), k.double(), weights, **settings)
    assert relative_error(found, expected) <= 1e-4
