"""Attention of some queries: the operators and the layer, eager, compiled and transformed."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from builders.dtypes import dtype_id
from builders.errors import relative_error
from builders.packed import random_rows

from gimp_fast.ops import nystrom_torch
from gimp_fast.ops.nystrom_operators import nystrom_rows_bwd, nystrom_rows_fwd
from gimp_fast.ops.nystrom_rows import nystrom_rows
from gimp_fast.ops.packing import Bags, Rows

H, D, C, M = 2, 5, 12, 8
SETTINGS = (M, 6, D**-0.5)


def needed(lengths):
    """Every third token and the first ones of all bags, and the bags."""
    bags = Bags.of_lengths(lengths)
    wanted = torch.arange(bags.num_rows) % 3 == 0
    wanted[Rows.first(bags).index] = True
    counts = [int(wanted[start:stop].sum()) for start, stop in bags.spans]
    return Rows(wanted.nonzero()[:, 0], Bags.of_lengths(counts)), bags


def operands_of(lengths, dtype=torch.float64):
    """q of the rows, Q̃, k, v, rows and bags."""
    rows, bags = needed(lengths)
    q, k, v = random_rows(3, 1, bags.num_rows, H, D).to(dtype).transpose(2, 3).unbind()
    marks = random_rows(len(bags), H, M, D, seed=1).to(dtype)
    return [x.requires_grad_() for x in (q[:, :, rows.index], marks, k, v)], rows, bags


def composed(q, q_marks, k, v, rows, bags):
    """The equation, bag by bag, with these landmarks of the queries."""
    out = []
    for bag, ((a, b), (start, stop)) in enumerate(zip(rows.bags.spans, bags.spans, strict=True)):
        queries, keys, values = q[0, :, a:b] * SETTINGS[2], k[0, :, start:stop], v[0, :, start:stop]
        if stop - start <= M:
            out.append((queries @ keys.mT).softmax(-1) @ values)
            continue
        n = stop - start
        edges = [i * n // M for i in range(M + 1)]
        k_marks = torch.stack([keys[:, first:last].mean(1) for first, last in pairwise(edges)], 1)
        marks = q_marks[bag] * SETTINGS[2]
        scores = (marks @ k_marks.mT).softmax(-1)
        z = scores.mT / (scores.sum(-1).amax(-1) * scores.sum(-2).amax(-1))[:, None, None]
        eye = torch.eye(M, dtype=q.dtype)
        for _ in range(SETTINGS[1]):
            az = scores @ z
            z = 0.25 * z @ (13 * eye - az @ (15 * eye - az @ (7 * eye - az)))
        mixed = z @ ((marks @ keys.mT).softmax(-1) @ values)
        out.append((queries @ k_marks.mT).softmax(-1) @ mixed)
    return torch.cat(out, 1)[None]


@pytest.mark.parametrize("lengths", [(M + 1,), (60, 3, 1, M, 0, 17)], ids=str)
def test_forward_and_backward_are_those_of_the_equation(lengths):
    """Packed rows of packed bags, with gradients of the landmarks of q apart from those of q."""
    tensors, rows, bags = operands_of(lengths)
    q, _, k, v = tensors
    grad = random_rows(*q.shape, seed=2)
    expected = composed(*tensors, rows, bags)
    expected = [expected, *torch.autograd.grad(expected, tensors, grad, materialize_grads=True)]
    packed = (rows.bags.cu_seqlens, bags.cu_seqlens)
    out, *saved = nystrom_rows_fwd(*(x.detach() for x in tensors), *packed, *SETTINGS, "torch")
    tensors = [x.detach() for x in (q, k, v)]
    grads = nystrom_rows_bwd(grad, *tensors, *packed, *saved, *SETTINGS, "torch")
    grad_q, grad_k, grad_v, grad_marks = grads
    for a, b in zip([out, grad_q, grad_marks, grad_k, grad_v], expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("n", [M - 1, M, M + 1, 50])
def test_a_batch_is_its_bags(n):
    q, k, v = random_rows(3, 2, H, n, D).unbind()
    q, marks = q[:, :, ::3], random_rows(2, H, min(M, n), D, seed=1)
    grad = random_rows(*q.shape, seed=2)

    def both(*tensors):
        q, k, v, marks, grad = tensors
        out, *saved = nystrom_torch.nystrom_fwd(q, k, v, None, *SETTINGS, q_marks=marks)
        return out, *nystrom_torch.nystrom_bwd(
            grad, q, k, v, None, *saved, *SETTINGS, marks_given=True
        )

    batch = both(q, k, v, marks, grad)
    for bag in range(2):
        alone = both(*(x[bag : bag + 1] for x in (q, k, v, marks, grad)))
        assert all(torch.equal(a[bag : bag + 1], b) for a, b in zip(batch, alone, strict=True))


@pytest.mark.parametrize("lengths", [(M - 1,), (5, 0, 42)], ids=str)
def test_the_operators_are_registered_as_torch_expects(lengths):
    tensors, rows, bags = operands_of(lengths)
    arguments = (rows.bags.cu_seqlens, bags.cu_seqlens)
    settings = (*SETTINGS, "torch")
    torch.library.opcheck(nystrom_rows_fwd, (*tensors, *arguments, *settings))
    q, marks, k, v = (x.detach() for x in tensors)
    out, *saved = nystrom_rows_fwd(q, marks, k, v, *arguments, *settings)
    torch.library.opcheck(
        nystrom_rows_bwd, (out, q, k, v, *arguments, *saved, *settings),
        test_utils=("test_schema", "test_faketensor"),
    )  # fmt: skip


def layer_inputs(lengths, dtype=torch.float64):
    rows, bags = needed(lengths)
    x = random_rows(bags.num_rows, C).to(dtype)
    weight, conv = random_rows(3 * H * D, C, seed=1).to(dtype), random_rows(H, 1, 7, 1, seed=2)
    return [x, weight, conv.to(dtype)], rows, bags


def layer(x, weight, conv, rows, bags, backend="torch"):
    return nystrom_rows(x, weight, conv, rows, bags, heads=H, num_landmarks=M, backend=backend)


def with_gradients(function, tensors, *args, **kwargs):
    tensors = [x.detach().requires_grad_() for x in tensors]
    out = function(*tensors, *args, **kwargs)
    grad = random_rows(*out.shape, seed=3).to(out.dtype)
    return [out, *torch.autograd.grad(out, tensors, grad)]


@pytest.mark.parametrize("lengths", [(M,), (M + 1,), (40, 3, 90)], ids=str)
def test_eager_compiled_and_functional_calls_agree_with_the_reference(lengths):
    tensors, rows, bags = layer_inputs(lengths)
    expected = with_gradients(layer, tensors, rows, bags, backend="reference")
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.compiler.reset()
    for found in (
        with_gradients(layer, tensors, rows, bags),
        with_gradients(compiled, tensors, rows, bags),
    ):
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)

    def loss(*tensors):
        out = layer(*tensors, rows, bags)
        return (out * random_rows(*out.shape, seed=3)).sum()

    found = torch.func.grad(loss, argnums=(0, 1, 2))(*tensors)
    torch.testing.assert_close(list(found), expected[1:], rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=dtype_id)
def test_half_precision_stays_near_fp64(dtype):
    tensors, rows, bags = layer_inputs((70, 5), dtype)
    found = with_gradients(layer, tensors, rows, bags)
    exact = [x.double() for x in tensors]
    expected = with_gradients(layer, exact, rows, bags, backend="reference")
    whole = with_gradients(lambda *t: layer(*t, *all_rows(bags))[rows.index], tensors)
    for a, b, c in zip(found, expected, whole, strict=True):
        assert a.dtype == dtype
        assert relative_error(a, b) <= 2 * relative_error(c, b) + 1e-2


def all_rows(bags):
    return Rows(torch.arange(bags.num_rows), bags), bags


@pytest.mark.parametrize("n", [M + 1, 300], ids=["just-above", "long"])
def test_scores_that_overflow_give_what_fp64_gives(n):
    rows, bags = needed((n,))
    x, weight, conv = layer_inputs((n,), torch.float32)[0]
    tensors = (x * 1e20, weight, conv)
    found = layer(*tensors, rows, bags)
    expected = layer(*(t.double() for t in tensors), rows, bags, backend="reference")
    assert relative_error(found, expected) <= 1e-4


def test_a_second_derivative_is_refused():
    tensors, rows, bags = layer_inputs((20,))
    x = tensors[0].requires_grad_()
    out = layer(*tensors, rows, bags)
    (grad,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="twice"):
        grad.sum().backward()
