"""Masked L1 against its fp64 specification: values, both gradients, all masks, ragged sizes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from builders.dtypes import dtype_id
from builders.masks import MASKS, make_mask

from gimp_fast import native
from gimp_fast.ops import available_backends, masked_l1_loss
from gimp_fast.reference.masked_l1 import masked_l1_reference

NATIVE_STATUS = native.load().cpu
CUDA_STATUS = available_backends()["cuda"]
needs_native = pytest.mark.skipif(NATIVE_STATUS != native.AVAILABLE, reason=NATIVE_STATUS)
RUNS = [
    pytest.param("reference", "cpu", id="reference"),
    pytest.param("torch", "cpu", id="torch"),
    pytest.param("native", "cpu", id="native", marks=needs_native),
    pytest.param(
        "cuda",
        "cuda",
        id="cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(CUDA_STATUS != native.AVAILABLE, reason=CUDA_STATUS),
        ],
    ),
]
FUSED = RUNS[2:]
# (leading shape with N, C): one patch, ragged, several bags, wide rows.
SHAPES = [(1,), (63,), (257,), (2, 63), (2, 3, 5)]
CHANNELS = [1, 3, 16, 1000, 1024]
# The loss is accumulated in fp32 or wider; the gradient is ±grad rounded once to the input's dtype.
TOLERANCE = {
    torch.float64: 1e-13,
    torch.float32: 1e-6,
    torch.bfloat16: 1e-6,
    torch.float16: 1e-6,
}


def sample_inputs(
    shape: tuple[int, ...] = (2, 63),
    channels: int = 16,
    dtype: torch.dtype = torch.float32,
    mask: str = "random",
    device: str = "cpu",
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Prediction, target and mask; about every tenth pair is equal, where the sign is 0."""
    generator = torch.Generator().manual_seed(channels)
    prediction = torch.randn((*shape, channels), generator=generator).to(dtype)
    target = torch.randn((*shape, channels), generator=generator).to(dtype)
    equal = torch.rand(prediction.shape, generator=generator) < 0.1
    target = torch.where(equal, prediction, target)
    return (
        prediction.to(device).requires_grad_(),
        target.to(device).requires_grad_(),
        make_mask(mask, shape, generator).to(device),
    )


def specification(prediction, target, mask, reduction):
    """Loss and both gradients in fp64."""
    p, t = (x.detach().double().cpu().requires_grad_() for x in (prediction, target))
    loss = masked_l1_reference(p, t, mask.cpu(), reduction)
    loss.backward()
    return loss.detach(), p.grad, t.grad


def assert_matches_specification(prediction, target, mask, reduction, backend):
    expected, expected_dp, expected_dt = specification(prediction, target, mask, reduction)
    loss = masked_l1_loss(prediction, target, mask, reduction=reduction, backend=backend)
    dp, dt = torch.autograd.grad(loss, (prediction, target))

    dtype = prediction.dtype
    assert loss.dtype == torch.promote_types(dtype, torch.float32)
    assert loss.shape == ()
    rtol = TOLERANCE[dtype]
    torch.testing.assert_close(loss.detach().double().cpu(), expected, rtol=rtol, atol=rtol)
    grad_rtol = max(rtol, torch.finfo(dtype).eps)
    for found, wanted in ((dp, expected_dp), (dt, expected_dt)):
        assert found.dtype == dtype
        # A mean over many elements can be below the smallest half: compare with that rounding.
        torch.testing.assert_close(
            found.double().cpu(), wanted.to(dtype).double(), rtol=grad_rtol, atol=1e-7
        )


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=dtype_id)
@pytest.mark.parametrize("channels", CHANNELS, ids=lambda c: f"C{c}")
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "N" + "x".join(map(str, s)))
@pytest.mark.parametrize(("backend", "device"), RUNS)
def test_matches_specification(backend, device, shape, channels, dtype):
    prediction, target, mask = sample_inputs(shape, channels, dtype, device=device)
    assert_matches_specification(prediction, target, mask, "mean", backend)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize(("backend", "device"), RUNS)
def test_masks_from_none_to_all(backend, device, mask, reduction):
    inputs = sample_inputs(channels=13, mask=mask, device=device)
    assert_matches_specification(*inputs, reduction, backend)


@pytest.mark.parametrize("shape", [(0,), (2, 0), (0, 3)], ids=str)
@pytest.mark.parametrize("channels", [0, 5])
@pytest.mark.parametrize(("backend", "device"), RUNS)
def test_empty_tensors_give_zero(backend, device, shape, channels):
    prediction, target, mask = sample_inputs(shape, channels, device=device)
    loss = masked_l1_loss(prediction, target, mask, backend=backend)
    assert loss.item() == 0
    dp, dt = torch.autograd.grad(loss, (prediction, target))
    assert dp.shape == dt.shape == prediction.shape


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=dtype_id)
@pytest.mark.parametrize(("backend", "device"), RUNS)
def test_strided_input(backend, device, dtype):
    base_p, base_t, base_mask = sample_inputs((2, 40), 24, dtype, device=device)
    views = [
        (base_p[:, 1:], base_t[:, 1:], base_mask[:, 1:]),  # without a CLS token
        (base_p[..., 3:], base_t[..., :-3], base_mask),  # odd offset, so rows are not aligned
        (base_p.transpose(0, 1), base_t.transpose(0, 1), base_mask.t()),
        (base_p, base_t, base_mask[:1].expand(2, -1)),
    ]
    for view in views:
        leaves = [x.detach() for x in view]
        for leaf in leaves[:2]:
            leaf.requires_grad_()
        assert_matches_specification(*leaves, "sum", backend)


@pytest.mark.parametrize(("backend", "device"), RUNS)
def test_uncounted_rows_are_never_looked_at(backend, device):
    prediction, target, mask = sample_inputs(channels=7, device=device)
    clean = masked_l1_loss(prediction, target, mask, backend=backend)
    with torch.no_grad():
        prediction[~mask] = float("nan")
        target[~mask] = float("inf")
    loss = masked_l1_loss(prediction, target, mask, backend=backend)
    assert loss.item() == clean.item()
    for gradient in torch.autograd.grad(loss, (prediction, target)):
        assert gradient.isfinite().all()
        assert (gradient[~mask] == 0).all()


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=dtype_id)
@pytest.mark.parametrize(("backend", "device"), RUNS)
def test_special_values_follow_l1_loss(backend, device, dtype):
    """Zeros of both signs, the smallest subnormals, the largest numbers, infinities and NaN."""
    tiny, largest = torch.finfo(dtype).smallest_normal, torch.finfo(dtype).max
    tiny = tiny * torch.finfo(dtype).eps
    inf, nan = float("inf"), float("nan")
    p = torch.tensor([0.0, -0.0, tiny, 0.0, largest, inf, -inf, nan, 1.0], dtype=dtype)
    t = torch.tensor([-0.0, 0.0, 0.0, tiny, 0.0, 1.0, 1.0, 1.0, nan], dtype=dtype)
    for i in range(len(p)):
        x = p[i].reshape(1, 1).to(device).requires_grad_()
        y = t[i].reshape(1, 1).to(device)
        mask = torch.ones(1, dtype=torch.bool, device=device)
        loss = masked_l1_loss(x, y, mask, reduction="sum", backend=backend)
        wide = torch.promote_types(dtype, torch.float32)
        expected = F.l1_loss(x.detach().to(wide), y.to(wide), reduction="sum")
        torch.testing.assert_close(loss.detach(), expected, rtol=0, atol=0, equal_nan=True)
        (gradient,) = torch.autograd.grad(loss, x)
        sign = torch.sign(x.detach().to(wide) - y.to(wide)).nan_to_num(0).to(dtype)
        torch.testing.assert_close(gradient, sign, rtol=0, atol=0)


@needs_native
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=dtype_id)
def test_every_half_is_read_exactly(dtype):
    """All finite 16-bit numbers, subnormals included: |x − x'| is 0 only if both are read alike."""
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    values = bits.view(dtype)
    values = values[values.isfinite()]
    mask = torch.ones(1, dtype=torch.bool)
    for value in values[::97]:
        row = torch.zeros(1, 4, dtype=dtype)
        row[0, 2] = value
        loss = masked_l1_loss(row, torch.zeros_like(row), mask, reduction="sum", backend="native")
        assert loss.item() == abs(value.item())


@pytest.mark.parametrize("needed", ["prediction", "target"])
@pytest.mark.parametrize(("backend", "device"), RUNS)
def test_one_gradient_alone(backend, device, needed):
    prediction, target, mask = sample_inputs(device=device)
    _, expected_dp, expected_dt = specification(prediction, target, mask, "sum")
    leaf, other, expected = {
        "prediction": (prediction, target, expected_dp),
        "target": (target, prediction, expected_dt),
    }[needed]
    other.requires_grad_(False)
    loss = masked_l1_loss(prediction, target, mask, reduction="sum", backend=backend)
    (found,) = torch.autograd.grad(loss, leaf)
    torch.testing.assert_close(found.double().cpu(), expected)


@pytest.mark.parametrize(("backend", "device"), FUSED)
def test_no_signs_are_kept_without_gradients(backend, device):
    prediction, target, mask = (x.detach() for x in sample_inputs(device=device))
    _, signs = torch.ops.gimp_fast.masked_l1_fwd(prediction, target, mask, False)
    assert signs.numel() == 0
    with pytest.raises(RuntimeError, match="signs do not belong"):
        torch.ops.gimp_fast.masked_l1_bwd(
            torch.ones((), device=device), signs, mask, 16, torch.float32
        )


@pytest.mark.parametrize("save_signs", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=dtype_id)
@pytest.mark.parametrize(("backend", "device"), FUSED)
def test_opcheck(backend, device, dtype, save_signs):
    prediction, target, mask = sample_inputs((2, 9), 7, dtype, device=device)
    if not save_signs:
        prediction, target = prediction.detach(), target.detach()
    torch.library.opcheck(
        torch.ops.gimp_fast.masked_l1_fwd.default, (prediction, target, mask, save_signs)
    )
    signs = torch.ops.gimp_fast.masked_l1_fwd(prediction, target, mask, True)[1]
    grad = torch.ones((), device=device)
    torch.library.opcheck(torch.ops.gimp_fast.masked_l1_bwd.default, (grad, signs, mask, 7, dtype))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize(("backend", "device"), FUSED)
def test_gradcheck(backend, device, reduction):
    prediction, target, mask = sample_inputs((2, 5), 6, torch.float64, device=device)
    with torch.no_grad():  # away from the kink, where a difference quotient means nothing
        target += 0.01 * torch.where(target >= prediction, 1.0, -1.0)

    def loss(p, t):
        return masked_l1_loss(p, t, mask, reduction=reduction, backend=backend)

    assert torch.autograd.gradcheck(loss, (prediction, target))


@pytest.mark.parametrize("backend", ["torch", pytest.param("native", marks=needs_native), "auto"])
def test_compiles_to_one_graph(backend):
    prediction, target, mask = sample_inputs((2, 9), 7)

    def loss(p, t, m):
        return masked_l1_loss(2 * p, t, m, backend=backend)

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    expected = torch.autograd.grad(loss(prediction, target, mask), (prediction, target))
    found = torch.autograd.grad(compiled(prediction, target, mask), (prediction, target))
    torch.testing.assert_close(found, expected)


@needs_native
@pytest.mark.parametrize("channels", [1, 3, 1024], ids=lambda c: f"C{c}")
def test_bitwise_the_same_for_every_number_of_threads(channels):
    # Enough rows for several chunks, so that the threads share the work.
    prediction, target, mask = sample_inputs((3 * 32768 // channels + 7,), channels)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            loss = masked_l1_loss(prediction, target, mask, backend="native")
            results.append((loss, *torch.autograd.grad(loss, (prediction, target))))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        for found, expected in zip(other, results[0], strict=True):
            assert torch.equal(found, expected)


@pytest.mark.parametrize(("backend", "device"), FUSED)
def test_bitwise_repeatable(backend, device):
    prediction, target, mask = sample_inputs((501,), 1000, device=device)
    losses = {masked_l1_loss(prediction, target, mask, backend=backend).item() for _ in range(5)}
    assert len(losses) == 1


@needs_native
def test_more_than_two_to_the_31_elements():
    """Row offsets are 64-bit: of 2³¹ + 2¹⁰ fp16 elements only the last row is counted."""
    rows, channels = 2**21 + 1, 2**10
    # Pages that are never touched are never committed: of 2 × 4 GiB a few rows exist.
    values = torch.empty(rows, channels, dtype=torch.float16)
    values[-1] = 3
    zeros = torch.empty(rows, channels, dtype=torch.float16)
    zeros[-1] = 1
    mask = torch.zeros(rows, dtype=torch.bool)
    mask[-1] = True
    loss = masked_l1_loss(values, zeros, mask, reduction="sum", backend="native")
    assert loss.item() == 2 * channels


def test_no_gradient_flows_where_no_row_is_counted():
    prediction, target, mask = sample_inputs(mask="none")
    loss = masked_l1_loss(prediction, target, mask)
    assert loss.item() == 0
    loss.backward()
    assert not prediction.grad.any()
    assert not target.grad.any()


BAD = {
    "no channels": (
        dict(prediction=torch.zeros(3)),
        r"prediction is \(3,\); expected \(\.\.\., N, C\)",
    ),
    "target shape": (dict(target=torch.zeros(4, 3)), r"target is \(4, 3\); .*\(4, 2\)"),
    "mask shape": (dict(mask=torch.ones(5, dtype=torch.bool)), r"mask is \(5,\); .*\(4,\)"),
    "mask dtype": (dict(mask=torch.ones(4)), "mask is torch.float32; expected torch.bool"),
    "integers": (
        dict(prediction=torch.zeros(4, 2, dtype=torch.int64)),
        "prediction is torch.int64",
    ),
    "target dtype": (
        dict(target=torch.zeros(4, 2, dtype=torch.float64)),
        "target is torch.float64",
    ),
    "device": (dict(target=torch.zeros(4, 2, device="meta")), "target is on meta"),
    "reduction": (dict(reduction="none"), "reduction is 'none'; expected one of"),
    "backend": (dict(backend="fast"), "backend='fast' is unknown"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_what_does_not_fit_is_named(case):
    change, message = BAD[case]
    arguments = dict(
        prediction=torch.zeros(4, 2),
        target=torch.zeros(4, 2),
        mask=torch.ones(4, dtype=torch.bool),
    )
    with pytest.raises(ValueError, match=message):
        masked_l1_loss(**(arguments | change))


@needs_native
def test_operator_checks_what_memory_safety_needs():
    p, t, mask = (x.detach() for x in sample_inputs((4,), 8))
    fwd = torch.ops.gimp_fast.masked_l1_fwd
    for arguments in [
        (p, t[:3], mask),
        (p, t, mask[:3]),
        (p, t, mask.float()),
        (p, t.double(), mask),
        (p[:, ::2], t[:, ::2], mask),
        (p.int(), t.int(), mask),
    ]:
        with pytest.raises(RuntimeError, match="masked_l1"):
            fwd(*arguments, True)
