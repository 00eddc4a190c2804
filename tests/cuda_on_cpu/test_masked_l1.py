"""The kernels of masked L1 on the CPU, against sums and signs of torch in fp64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from builders.device_code import RISING, DeviceProgram, name_of
from builders.dtypes import NAMES, dtype_id
from builders.masks import MASKS, make_mask
from torch import Tensor

pytestmark = pytest.mark.slow

DTYPES = list(NAMES)
# Fewer and more channels than a vector, a byte of signs and a warp hold; whole vectors and others.
SHAPES = [(1, 1), (63, 3), (37, 4), (5, 7), (70, 8), (9, 33), (19, 64), (3, 1000), (11, 1023)]
ALL_BLOCKS = 1 << 20


def sample_inputs(rows: int, channels: int, dtype: torch.dtype, mask: str = "random"):
    """Prediction, target and mask. About every tenth pair is equal; uncounted rows hold NaN."""
    generator = torch.Generator().manual_seed(channels)
    prediction, target = torch.randn(2, rows, channels, generator=generator).to(dtype)
    equal = torch.rand(prediction.shape, generator=generator) < 0.1
    counted = make_mask(mask, (rows,), generator)
    target = torch.where(equal, prediction, target)
    for x in (prediction, target):
        x[~counted] = float("nan")
    return prediction, target, counted


def packed(signs: Tensor) -> Tensor:
    """(N, C) of -1, 0 and 1 -> (N, ceil(C / 4)) bytes, as csrc/masked_l1_signs.h describes them."""
    groups = F.pad(signs, (0, -signs.shape[1] % 4)).unflatten(1, (-1, 4))  # (N, C / 4, 4)
    place = torch.tensor([1, 2, 4, 8])
    positive, negative = ((groups == sign).long() @ place for sign in (1, -1))
    return (positive + 16 * negative).to(torch.uint8)


def wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def forward(rows: DeviceProgram, prediction, target, mask, shift=0, blocks=ALL_BLOCKS, signs=True):
    """Sum, and signs as bytes, where every result is the same in every order of threads."""
    n, channels = prediction.shape
    dtype = prediction.dtype
    count = n * -(-channels // 4) if signs else 0
    return rows.results(
        *("masked_l1_fwd", name_of(dtype), n, channels, shift, blocks, int(signs)),
        inputs=(prediction, target, mask),
        outputs=[(wide(dtype), 1), (torch.uint8, count)],
    )


def backward(rows: DeviceProgram, grad, signs, mask, channels, dtype, shift=0, blocks=ALL_BLOCKS):
    (out,) = rows.results(
        *("masked_l1_bwd", name_of(dtype), len(mask), channels, shift, blocks),
        inputs=(torch.tensor([grad], dtype=wide(dtype)), signs, mask),
        outputs=[(dtype, len(mask) * channels)],
    )
    return out.view(len(mask), channels)


def assert_as_torch(rows: DeviceProgram, prediction, target, mask, shift=0, blocks=ALL_BLOCKS):
    dtype, channels = prediction.dtype, prediction.shape[1]
    difference = prediction.double() - target.double()
    signs = torch.where(mask[:, None], difference.sign(), 0)
    total, found = forward(rows, prediction, target, mask, shift, blocks)
    tolerance = 1e-14 if dtype == torch.float64 else 1e-6
    torch.testing.assert_close(
        total.double().squeeze(), difference[mask].abs().sum(), rtol=tolerance, atol=0
    )
    assert torch.equal(found, packed(signs).flatten())
    (alone,) = forward(rows, prediction, target, mask, shift, blocks, signs=False)[:1]
    assert torch.equal(alone, total)

    gradient = backward(rows, -0.3, found, mask, channels, dtype, shift, blocks)
    expected = signs.to(dtype) * torch.tensor(-0.3, dtype=wide(dtype)).to(dtype)
    assert torch.equal(gradient, expected)


@pytest.mark.parametrize("shift", [0, 1], ids=["aligned", "unaligned"])
@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"N{s[0]}-C{s[1]}")
def test_sum_signs_and_gradient(rows, shape, dtype, shift):
    assert_as_torch(rows, *sample_inputs(*shape, dtype), shift)


@pytest.mark.parametrize("channels", [5, 16], ids=["C5", "C16"])
@pytest.mark.parametrize("mask", MASKS)
def test_masks_from_none_to_all(rows, mask, channels):
    assert_as_torch(rows, *sample_inputs(41, channels, torch.float32, mask))


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
@pytest.mark.parametrize("channels", [3, 64], ids=["C3", "C64"])
def test_blocks_that_go_round_more_than_once(rows, channels, dtype):
    assert_as_torch(rows, *sample_inputs(515, channels, dtype), blocks=2)


def test_more_blocks_than_one_block_has_threads(rows):
    # 8 rows a block, so that the last stage adds up 300 partial sums with 256 threads.
    assert_as_torch(rows, *sample_inputs(2397, 128, torch.float32))


def test_the_largest_grid_is_that_of_the_last_stage(rows):
    prediction, target, mask = sample_inputs(8 * 1024 + 3, 128, torch.bfloat16)
    total, _ = rows.results(
        *("masked_l1_fwd", "bfloat16", *prediction.shape, 0, ALL_BLOCKS, 0),
        inputs=(prediction, target, mask),
        outputs=[(torch.float32, 1), (torch.uint8, 0)],
        orders=[RISING],
    )
    expected = (prediction.double() - target.double())[mask].abs().sum()
    torch.testing.assert_close(total.double().squeeze(), expected, rtol=1e-6, atol=0)


def test_without_rows_there_is_no_grid_so_the_operator_returns_before(rows):
    done = rows.run("masked_l1_fwd", "float32", 0, 5, 0, ALL_BLOCKS, 1, RISING)
    assert done.returncode == 1
    assert "a grid of 0 blocks" in done.stderr.decode()


@pytest.mark.parametrize("channels", [7, 16], ids=["C7", "C16"])
def test_infinities_and_nan_are_as_in_torch(rows, channels):
    inf, nan = float("inf"), float("nan")
    prediction = torch.tensor([inf, -inf, 1.0, nan, inf])[:, None].repeat(1, channels)
    target = torch.tensor([1.0, 1.0, inf, 1.0, inf])[:, None].repeat(1, channels)
    total, signs = forward(rows, prediction, target, torch.tensor([True, True, True, False, False]))
    assert total.item() == inf
    expected = torch.tensor([1, -1, -1, 0, 0])[:, None].repeat(1, channels)
    assert torch.equal(signs, packed(expected).flatten())
    for row in (3, 4):
        only = torch.arange(5) == row
        total, signs = forward(rows, prediction, target, only)
        assert total.isnan()
        assert not signs.any()
