"""One needed token of each bag, without V: the layer and its operators."""

from __future__ import annotations

import pytest
import torch
from builders.attention import STAGES
from builders.errors import assert_near, assert_no_worse, attention_sizes, relative_error
from builders.native import NATIVE, each_instruction_set, on_threads
from builders.packed import random_rows

from gimp_fast.ops import nystrom_cls, nystrom_plan, nystrom_rows
from gimp_fast.ops.packing import Bags, Rows

pytestmark = pytest.mark.skipif(NATIVE != "available", reason=NATIVE)
# (lengths, H, C, D, M): one token; below, at and above M; one landmark; odd widths; several ranges.
SHAPES = [
    ((1,), 1, 3, 1, 1),
    ((7,), 2, 12, 5, 8),
    ((8,), 2, 12, 16, 8),
    ((9,), 3, 12, 16, 8),
    ((9,), 2, 7, 5, 1),
    ((97,), 2, 20, 13, 96),
    ((300,), 1, 30, 130, 33),
    ((1000,), 1, 40, 64, 256),
    ((3001,), 2, 24, 40, 77),
    ((1, 70, 16, 17, 5, 2100), 2, 24, 12, 16),
]


def inputs(lengths, h, c, d, *, kernel=33, gain=2.0, place=0.4):
    """x, W_qkv and the filter in fp64; a needed token within each bag; the bags."""
    bags = Bags.of_lengths(lengths)
    weight = random_rows(3 * h * d, c, seed=1) * gain * c**-0.5
    tensors = [random_rows(bags.num_rows, c), weight, random_rows(h, 1, kernel, 1, seed=2)]
    index = torch.tensor([start + int(place * (stop - start)) for start, stop in bags.spans])
    return tensors, Rows(index, Bags.of_equal(len(bags), 1)), bags


def run(tensors, rows, bags, h, m, backend="native", **options):
    """Output, and gradients of x, of the weight and of the filter."""
    tensors = [x.detach().clone().requires_grad_() for x in tensors]
    options = {"longest": max(bags.lengths)} | options
    out = nystrom_rows.nystrom_rows(
        *tensors, rows, bags, heads=h, num_landmarks=m, backend=backend, **options
    )
    grad = random_rows(*out.shape, seed=3).to(out.dtype)
    return [out, *torch.autograd.grad(out, tensors, grad)]


def single(tensors):
    return [x.float() for x in tensors]


def sizes_of(expected, tensors):
    return attention_sizes(expected, tensors, random_rows(*expected[0].shape, seed=3))


@pytest.fixture(autouse=True)
def calls(monkeypatch):
    """What was computed without V."""
    calls, compute = [], nystrom_cls.nystrom_cls

    def counted(*args):
        calls.append(args)
        return compute(*args)

    monkeypatch.setattr(nystrom_rows, "nystrom_cls", counted)
    return calls


@each_instruction_set
@pytest.mark.parametrize("place", [0.0, 0.4, 0.999], ids=["first", "middle", "last"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_output_and_gradients_are_those_of_the_whole_layer(instruction_set, shape, place, calls):
    lengths, h, c, d, m = shape
    tensors, *places = inputs(lengths, h, c, d, place=place)
    expected = run(tensors, *places, h, m, "reference")
    found = run(single(tensors), *places, h, m)
    assert calls
    assert_near(found, expected, 5e-6, sizes_of(expected, tensors))


@each_instruction_set
@pytest.mark.parametrize("iterations", [0, 1, 2, 3, 9])
def test_any_number_of_iterations(instruction_set, iterations):
    tensors, *places = inputs((70,), 2, 12, 8)
    expected = run(tensors, *places, 2, 20, "reference", pinv_iterations=iterations)
    found = run(single(tensors), *places, 2, 20, pinv_iterations=iterations)
    assert_near(found, expected, 1e-5, sizes_of(expected, tensors))


@each_instruction_set
@pytest.mark.parametrize(
    ("shape", "gain"),
    [
        (((3000,), 2, 48, 40, 77), 1.0),
        (((1500,), 2, 64, 64, 256), 6.0),
        (((128,), 2, 32, 32, 16), 2),
    ],
    ids=["random", "random-large", "random-small"],
)
def test_fp32_errors_are_at_most_twice_those_of_the_definition(instruction_set, shape, gain):
    lengths, h, c, d, m = shape
    tensors, *places = inputs(lengths, h, c, d, gain=gain)
    expected = run(tensors, *places, h, m, "reference")
    peer = run(single(tensors), *places, h, m, "reference")
    found = run(single(tensors), *places, h, m)
    assert_no_worse(found, peer, expected, 2, sizes_of(expected, tensors), STAGES)


@pytest.mark.parametrize("n", [5, 100], ids=["exact", "nystrom"])
def test_attention_without_a_convolution(n, calls):
    (x, weight, _), *places = inputs((n, 2 * n), 2, 12, 8)

    def outputs(x, weight, backend):
        x, weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
        options = {"heads": 2, "num_landmarks": 16, "backend": backend}
        out = nystrom_rows.nystrom_rows(x, weight, None, *places, **options)
        return [out, *torch.autograd.grad(out.sin().sum(), (x, weight))]

    expected = outputs(x, weight, "reference")
    found = outputs(x.float(), weight.float(), "native")
    assert calls
    for a, b in zip(found, expected, strict=True):
        assert relative_error(a, b) <= 1e-5


def test_a_gradient_of_any_strides():
    """That of a sum is one number in memory."""
    (x, *weights), *places = inputs((60, 20), 2, 12, 5)
    for several in (slice(0, 1), slice(0, 2)):
        bags = Bags.of_lengths([60, 20][several])
        rows = Rows(places[0].index[several], Bags.of_equal(len(bags), 1))
        grads = []
        for scale in (torch.ones(()), torch.ones(len(bags), 10)):
            leaf = x[: bags.num_rows].float().requires_grad_()
            out = nystrom_rows.nystrom_rows(
                leaf, *single(weights), rows, bags, heads=2, num_landmarks=8, backend="native"
            )
            grads += torch.autograd.grad(out, leaf, scale.expand_as(out))
        assert torch.equal(*grads)


@each_instruction_set
@pytest.mark.parametrize("h", [1, 3, 8])
@pytest.mark.parametrize(
    ("lengths", "m"), [((50,), 64), ((700,), 32), ((5000,), 40), ((60,) * 20, 16)], ids=str
)
def test_any_number_of_threads_gives_the_same_bits(instruction_set, lengths, m, h):
    tensors, *places = inputs(lengths, h, 24, 16)

    def on(threads):
        with on_threads(threads):
            found = run(single(tensors), *places, h, m)
        return found[:2], found[3]  # torch adds up the gradient of the weight

    (alone, alone_filter) = on(1)
    for threads in (2, 3, 7):
        found, of_filter = on(threads)
        assert all(map(torch.equal, found, alone))
        assert torch.equal(of_filter, alone_filter)


@each_instruction_set
@pytest.mark.parametrize(
    "counts", [(1, 1, 1, 1, 1, 1), (1, 0, 1, 0, 1, 1), (1, 3, 1, 0, 0, 2)], ids=str
)
def test_a_bag_is_bitwise_the_same_alone_and_packed(instruction_set, counts, calls):
    """Beside bags with other numbers of needed rows, too."""
    lengths = (1, 70, 16, 0, 5, 2100)
    (x, *weights), _, bags = inputs(lengths, 2, 24, 12)
    counts = [min(pair) for pair in zip(counts, lengths, strict=True)]
    wanted = Bags.of_lengths(counts)
    index = torch.tensor(
        [a + i for (a, _), n in zip(bags.spans, counts, strict=True) for i in range(n)]
    )
    grad = random_rows(len(index), 24, seed=3).float()

    def bits(x, rows, bags, grad, longest=None):
        x = x.float().requires_grad_()
        options = {"heads": 2, "num_landmarks": 16, "backend": "native", "longest": longest}
        out = nystrom_rows.nystrom_rows(x, *single(weights), rows, bags, **options)
        return out, torch.autograd.grad(out, x, grad)[0]

    packed = bits(x, Rows(index, wanted), bags, grad, max(lengths))
    assert len(calls) == 1
    for (start, stop), (first, last) in zip(bags.spans, wanted.spans, strict=True):
        if first == last:
            assert not packed[1][start:stop].any()
            continue
        one = Rows(index[first:last] - start, Bags.of_lengths([last - first]))
        alone = bits(x[start:stop], one, Bags.of_lengths([stop - start]), grad[first:last])
        assert torch.equal(alone[0], packed[0][first:last])
        assert torch.equal(alone[1], packed[1][start:stop])


@each_instruction_set
@pytest.mark.parametrize("size", [1e20, 1e30], ids=str)
@pytest.mark.parametrize("n", [6, 9, 300], ids=["exact", "just-above", "long"])
def test_scores_that_overflow_give_what_fp64_gives(instruction_set, n, size):
    (x, *weights), *places = inputs((40, n), 2, 12, 5)
    x[40:] *= size
    expected = run([x, *weights], *places, 2, 8, "reference")
    found = run(single([x, *weights]), *places, 2, 8)
    assert all(a.isfinite().all() for a in found)
    for bag in range(2):
        assert relative_error(found[0][bag], expected[0][bag]) <= 1e-4


@each_instruction_set
@pytest.mark.parametrize("n", [6, 50], ids=["exact", "nystrom"])
def test_nan_stays_nan_in_its_bag(instruction_set, n):
    (x, *weights), *places = inputs((n, n), 2, 12, 5)
    x[n - 1, 3] = float("nan")
    found = run(single([x, *weights]), *places, 2, 8)
    assert found[0][0].isnan().all()
    assert found[1][:n].isnan().all()
    assert found[0][1].isfinite().all()
    assert found[1][n:].isfinite().all()


def test_other_rows_and_dtypes_take_the_general_path(calls):
    tensors, rows, bags = inputs((60, 20), 2, 12, 5)
    two = Rows(torch.tensor([0, 3]), Bags.of_lengths([2, 0]))
    assert len(run(single(tensors), two, bags, 2, 8)[0]) == 2
    run([x.bfloat16() for x in tensors], rows, bags, 2, 8)
    run(single(tensors), rows, bags, 2, 8, "torch")
    assert not calls


def test_autocast_around_the_backward_pass_changes_nothing():
    tensors, *places = inputs((60, 20), 2, 12, 5)
    expected = run(single(tensors), *places, 2, 8)
    leaves = [x.requires_grad_() for x in single(tensors)]
    out = nystrom_rows.nystrom_rows(
        *leaves, *places, heads=2, num_landmarks=8, backend="native", longest=60
    )
    with torch.autocast("cpu", torch.bfloat16):
        grads = torch.autograd.grad(out, leaves, random_rows(*out.shape, seed=3).float())
    for a, b in zip((out, *grads), expected, strict=True):
        assert torch.equal(a, b)


def weights_arguments():
    q, k, marks = torch.zeros(1, 2, 2, 8), torch.zeros(1, 2, 30, 8), torch.zeros(2, 2, 16, 8)
    return dict(
        q=q, k=k, token_bounds=[0, 10, 30], q_marks=marks, k_marks=marks.clone(),
        mark_lse=torch.zeros(2, 2, 16), mixed=torch.zeros(2, 2, 16), factors=torch.ones(2, 2, 2),
        filter=None, positions=None, num_landmarks=16, iterations=6, scale=1.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": torch.zeros(1, 2, 3, 8)}, "bounds must rise from 0"),
        ({"q": torch.zeros(2, 2, 8)}, "q and k must be 4-D"),
        ({"q": torch.zeros(1, 2, 2, 8).half(), "k": torch.zeros(1, 2, 30, 8).half()}, "float32"),
        ({"k": torch.zeros(1, 2, 8, 30).mT}, "channels of k must be contiguous"),
        ({"token_bounds": []}, "the bags have no bounds"),
        ({"token_bounds": [0, 20, 29]}, "bounds must rise from 0"),
        ({"mixed": torch.zeros(2, 2, 15)}, "a of the landmarks has another shape"),
        ({"mark_lse": torch.zeros(2, 2, 15)}, "log of the sums has another shape"),
        ({"num_landmarks": 17}, "too few landmarks"),
        ({"filter": torch.zeros(2, 1, 3, 1)}, "needs the positions"),
        ({"positions": torch.tensor([0, 20])}, "positions must rise within their bag"),
    ],
    ids=lambda x: "-".join(x) if isinstance(x, dict) else None,
)
def test_what_does_not_fit_is_refused(change, message):
    arguments = weights_arguments() | change
    with pytest.raises(RuntimeError, match=message):
        torch.ops.gimp_fast.nystrom_weights_fwd(**arguments, out=torch.zeros(30, 2))


def test_outputs_and_gradients_of_another_shape_are_refused():
    arguments = weights_arguments()
    with pytest.raises(RuntimeError, match="out has another shape"):
        torch.ops.gimp_fast.nystrom_weights_fwd(**arguments, out=torch.zeros(2, 30))
    grads = {"grad": torch.zeros(30, 2), "grad_q": torch.zeros(1, 2, 2, 8)}
    grads |= {"grad_k": torch.zeros(1, 2, 30, 8), "grad_q_marks": torch.zeros(2, 2, 16, 8)}
    for name, bad in {
        "grad": torch.zeros(29, 2),
        "grad_q": torch.zeros(1, 2, 3, 8),
        "grad_k": torch.zeros(1, 2, 29, 8),
        "grad_q_marks": torch.zeros(2, 2, 15, 8),
    }.items():
        with pytest.raises(RuntimeError, match=f"{name} has another shape"):
            torch.ops.gimp_fast.nystrom_weights_bwd(**arguments, **(grads | {name: bad}))


@pytest.mark.parametrize(("rows", "channels"), [(9, 1), (40, 7), (1000, 32)])
def test_shares_of_the_landmarks_gradients_are_the_same_natively(rows, channels, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    before = torch.randn(rows, channels, generator=generator)
    grads = torch.randn(8, channels, generator=generator)
    found, expected = before.clone(), before.clone()
    nystrom_plan.add_shares(found, grads)
    monkeypatch.setattr(nystrom_plan, "_is_native", lambda x: False)
    nystrom_plan.add_shares(expected, grads)
    assert torch.equal(found, expected)
    assert not torch.equal(found, before)
