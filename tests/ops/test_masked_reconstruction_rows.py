"""Distances and signs of decoded rows: the fused operators beside torch, and what they refuse."""

from __future__ import annotations

import pytest
import torch
from builders.calls import Calls
from builders.dtypes import dtype_id

from gimp_fast import native
from gimp_fast.ops import available_backends, masked_reconstruction_loss
from gimp_fast.ops import masked_reconstruction_rows as module
from gimp_fast.ops.masked_reconstruction_rows import row_distances

NATIVE_STATUS = native.load().cpu
CUDA_STATUS = available_backends()["cuda"]
needs_native = pytest.mark.skipif(NATIVE_STATUS != native.AVAILABLE, reason=NATIVE_STATUS)
needs_cuda = [
    pytest.mark.gpu,
    pytest.mark.skipif(CUDA_STATUS != native.AVAILABLE, reason=CUDA_STATUS),
]
FUSED = [
    pytest.param("cpu", id="native", marks=needs_native),
    pytest.param("cuda", id="cuda", marks=needs_cuda),
]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
NAN, INF = float("nan"), float("inf")


def fused(*arguments):
    return torch.ops.gimp_fast.masked_reconstruction_rows(*arguments)


def sample_rows(rows=37, channels=17, dtypes=(torch.float32, torch.float32), device="cpu"):
    """Decoded, a target with NaN in every row that is not asked for, and the rows asked for.

    About every tenth pair is equal, where the sign is 0.
    """
    generator = torch.Generator().manual_seed(channels)
    decoded = torch.randn(rows, channels, generator=generator).to(dtypes[0])
    index = torch.randint(0, rows + 5, (rows,), generator=generator)
    target = torch.full((rows + 5, channels), NAN, dtype=dtypes[1])
    target[index] = torch.randn(rows, channels, generator=generator).to(dtypes[1])
    equal = torch.rand(decoded.shape, generator=generator) < 0.1
    decoded = torch.where(equal, target[index].to(dtypes[0]), decoded)
    return decoded.to(device), target.to(device), index.to(device)


def composed(decoded, target, index):
    """Sums of rows in fp64, signs and their sums, as torch's own operators give them."""
    wide = torch.promote_types(decoded.dtype, torch.float32)
    difference = decoded.to(wide, copy=True).sub_(target[index])
    signs = difference.sign()
    return difference.abs().double().sum(1), signs.to(decoded.dtype), signs.long().sum(0)


def assert_as_composed(decoded, target, index):
    sums, signs, sign_sums = composed(decoded, target, index)
    found, found_sign_sums = fused(decoded, target, index, True)  # decoded now holds signs
    assert found.dtype == torch.promote_types(decoded.dtype, torch.float32)
    rtol = 1e-14 if found.dtype == torch.float64 else 1e-6
    sums = sums.to(found.dtype)
    torch.testing.assert_close(found, sums, rtol=rtol, atol=0, equal_nan=True)
    assert torch.equal(decoded, signs)
    assert not decoded.signbit()[decoded == 0].any()
    assert torch.equal(found_sign_sums, sign_sums)


@pytest.mark.parametrize("target_dtype", DTYPES, ids=lambda x: f"target-{dtype_id(x)}")
@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
@pytest.mark.parametrize("channels", [1, 3, 17, 64, 1024], ids=lambda c: f"C{c}")
@pytest.mark.parametrize("device", FUSED)
def test_equals_torch_for_every_pair_of_dtypes(device, channels, dtype, target_dtype):
    assert_as_composed(*sample_rows(37, channels, (dtype, target_dtype), device))


@pytest.mark.parametrize("target_dtype", DTYPES, ids=lambda x: f"target-{dtype_id(x)}")
@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
@pytest.mark.parametrize("repeats", [1, 5], ids=["tail", "whole-vectors"])
@pytest.mark.parametrize("device", FUSED)
def test_special_values_are_as_in_torch(device, repeats, dtype, target_dtype):
    """Zeros of both signs, subnormals, differences that underflow, infinities and NaN."""
    tiny = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    largest = torch.finfo(dtype).max
    p = [0.0, -0.0, tiny, 0.0, largest, INF, -INF, INF, NAN, 1.0, 2.0**-24]
    t = [-0.0, 0.0, 0.0, tiny, 0.0, 1.0, 1.0, INF, 1.0, NAN, 0.0]
    # Pairs in rows of their own, so that no infinity hides another.
    decoded = torch.tensor(p, dtype=torch.float64).to(dtype)[:, None].repeat(1, 8 * repeats - 1)
    target = torch.tensor(t, dtype=torch.float64).to(target_dtype)[:, None].expand_as(decoded)
    index = torch.arange(len(p)).to(device)
    assert_as_composed(decoded.to(device), target.contiguous().to(device), index)


@needs_native
def test_a_difference_of_doubles_is_rounded_before_its_sign_is_taken():
    decoded = torch.ones(1, 9)
    target = torch.full((1, 9), 1 - 1e-15, dtype=torch.float64)
    target[0, 4] = 1e-60
    decoded[0, 4] = 0
    assert_as_composed(decoded, target, torch.zeros(1, dtype=torch.int64))
    assert decoded[0].tolist() == [1] * 4 + [0] + [1] * 4


@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (0, 0)], ids=str)
@pytest.mark.parametrize("device", FUSED)
def test_empty_rows_give_zeros(device, shape):
    index = torch.zeros(shape[0], dtype=torch.int64, device=device)
    decoded, target = torch.ones(shape, device=device), torch.ones(2, shape[1], device=device)
    sums, sign_sums = fused(decoded, target, index, True)
    assert sums.tolist() == [0.0] * shape[0]
    assert sign_sums.tolist() == [0] * shape[1]


@pytest.mark.parametrize("device", FUSED)
def test_an_empty_target_serves_no_rows(device):
    decoded, index = torch.ones(0, 5, device=device), torch.zeros(0, dtype=torch.int64)
    sums, _ = fused(decoded, torch.ones(0, 5, device=device), index.to(device), False)
    assert len(sums) == 0


@needs_native
@pytest.mark.parametrize("channels", [1, 3, 1024], ids=lambda c: f"C{c}")
def test_bitwise_the_same_for_every_number_of_threads(channels):
    # Enough rows for several chunks, so that the threads share the work.
    decoded, target, index = sample_rows(3 * 32768 // channels + 7, channels)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            signs = decoded.clone()
            results.append((*fused(signs, target, index, True), signs))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        for found, expected in zip(other, results[0], strict=True):
            assert torch.equal(found, expected)


@pytest.mark.parametrize("device", FUSED)
def test_a_row_does_not_depend_on_the_others(device):
    decoded, target, index = sample_rows(channels=100, device=device)
    alone = [fused(decoded[i : i + 1].clone(), target, index[i : i + 1], False)[0] for i in (0, 9)]
    together = fused(decoded, target, index, False)[0]
    assert torch.equal(torch.cat(alone), together[[0, 9]])


@pytest.mark.parametrize("sum_signs", [True, False])
@pytest.mark.parametrize("device", FUSED)
def test_opcheck(device, sum_signs):
    arguments = sample_rows(5, 7, (torch.bfloat16, torch.float32), device)
    torch.library.opcheck(
        torch.ops.gimp_fast.masked_reconstruction_rows.default, (*arguments, sum_signs)
    )


BAD = {
    "index too large": (dict(index=torch.tensor([0, 4])), r"index\[1\] is 4; expected 0 to 3"),
    "index negative": (dict(index=torch.tensor([-1, 0])), r"index\[0\] is -1; expected 0 to 3"),
    "no targets": (dict(target=torch.zeros(0, 3)), r"index\[0\] is 0"),
    "index dtype": (dict(index=torch.zeros(2, dtype=torch.int32)), "index must be int64"),
    "index shape": (dict(index=torch.zeros(2, 1, dtype=torch.int64)), r"index \(R,\)"),
    "rows": (dict(index=torch.zeros(3, dtype=torch.int64)), "shapes differ"),
    "channels": (dict(target=torch.zeros(4, 2)), "shapes differ"),
    "decoded shape": (dict(decoded=torch.zeros(2, 3, 1)), r"decoded \(R, C\)"),
    "decoded dtype": (dict(decoded=torch.zeros(2, 3, dtype=torch.int64)), "dtype must be"),
    "target dtype": (dict(target=torch.zeros(4, 3, dtype=torch.bool)), "dtype must be"),
    "decoded strides": (dict(decoded=torch.zeros(3, 2).t()), "must be contiguous"),
    "target strides": (dict(target=torch.zeros(3, 4).t()), "must be contiguous"),
    "index strides": (dict(index=torch.zeros(4, dtype=torch.int64)[::2]), "must be contiguous"),
}


@needs_native
@pytest.mark.parametrize("case", list(BAD))
def test_operator_checks_what_memory_safety_needs(case):
    change, message = BAD[case]
    arguments = dict(
        decoded=torch.full((2, 3), 5.0),
        target=torch.zeros(4, 3),
        index=torch.zeros(2, dtype=torch.int64),
    )
    arguments |= change
    before = arguments["decoded"].clone()
    with pytest.raises(RuntimeError, match=message):
        fused(*arguments.values(), True)
    assert torch.equal(arguments["decoded"], before)


def calls_of_a_step(device="cpu", contiguous=True):
    """How often a step over 3 chunks calls the fused operator."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(12, 4, generator=generator).to(device).requires_grad_()
    weight = torch.randn(6, 4, generator=generator).to(device).requires_grad_()
    target = torch.randn(12, 6, generator=generator).to(device)
    target = target if contiguous else target.t().contiguous().t()
    mask = torch.ones(12, dtype=torch.bool, device=device)
    with Calls() as calls:
        masked_reconstruction_loss(tokens, weight, None, target, mask, chunk_rows=5).backward()
    return calls.found["gimp_fast::masked_reconstruction_rows"]


@pytest.mark.parametrize("device", FUSED)
def test_a_training_step_calls_the_fused_operator(monkeypatch, device):
    monkeypatch.delenv("GIMP_FAST_BACKEND", raising=False)
    assert calls_of_a_step(device) == 3
    assert calls_of_a_step(device, contiguous=False) == 0


@needs_native
@pytest.mark.parametrize(
    ("name", "calls"), [("native", 3), ("torch", 0), ("triton", 0), ("reference", 0)]
)
def test_the_environment_chooses(monkeypatch, name, calls):
    monkeypatch.setenv("GIMP_FAST_BACKEND", name)
    assert calls_of_a_step() == calls


def test_without_a_build_torch_computes(monkeypatch):
    monkeypatch.setattr(module, "_FUSED", None)
    assert calls_of_a_step() == 0


@pytest.mark.parametrize("wants", [(False, False), (True, False), (True, True)], ids=str)
def test_torch_gives_the_same_as_the_fused_operator(monkeypatch, wants):
    decoded, target, index = sample_rows(channels=100)
    here = row_distances(decoded.clone(), target, index, *wants)
    monkeypatch.setattr(module, "_FUSED", None)
    torchs = row_distances(decoded.clone(), target, index, *wants)
    torch.testing.assert_close(here[0], torchs[0], rtol=1e-6, atol=0)
    for asked, a, b in zip(wants, here[1:], torchs[1:], strict=True):
        assert not asked or torch.equal(a, b.to(a.dtype))
