"""The kernel of the masked reconstruction on the CPU, against torch's own operators."""

from __future__ import annotations

import pytest
import torch
from builders.device_code import RISING, DeviceProgram, name_of
from builders.dtypes import NAMES, dtype_id
from torch import Tensor

pytestmark = pytest.mark.slow

DTYPES = list(NAMES)
ALL_BLOCKS = 1 << 20
NAN, INF = float("nan"), float("inf")


def sample_rows(rows: int, channels: int, dtypes: tuple[torch.dtype, torch.dtype]):
    """Decoded rows, targets of which those not asked for hold NaN, and the ones asked for."""
    generator = torch.Generator().manual_seed(channels)
    decoded = torch.randn(rows, channels, generator=generator).to(dtypes[0])
    index = torch.randint(0, rows + 5, (rows,), generator=generator)
    target = torch.full((rows + 5, channels), NAN, dtype=dtypes[1])
    target[index] = torch.randn(rows, channels, generator=generator).to(dtypes[1])
    equal = torch.rand(decoded.shape, generator=generator) < 0.1
    return torch.where(equal, target[index].to(dtypes[0]), decoded), target, index


def words(decoded: Tensor, target: Tensor, shift: int, blocks: int) -> list[str | int]:
    dtypes = (name_of(x.dtype) for x in (decoded, target))
    return ["masked_reconstruction_rows", *dtypes, len(decoded), *target.shape, shift, blocks]


def assert_as_torch(rows: DeviceProgram, decoded, target, index, shift=0, blocks=ALL_BLOCKS):
    wide = torch.promote_types(decoded.dtype, torch.float32)
    difference = decoded.to(wide, copy=True).sub_(target[index])
    sums, signs = rows.results(
        *words(decoded, target, shift, blocks),
        inputs=(decoded, target, index),
        outputs=[(wide, len(decoded)), (decoded.dtype, decoded.numel())],
    )
    expected = difference.abs().double().sum(1).to(wide)
    tolerance = 1e-14 if wide == torch.float64 else 1e-6
    torch.testing.assert_close(sums, expected, rtol=tolerance, atol=0, equal_nan=True)
    assert torch.equal(signs, difference.sign().to(decoded.dtype).flatten())
    assert not signs.signbit()[signs == 0].any()


@pytest.mark.parametrize("target_dtype", DTYPES, ids=lambda x: f"target-{dtype_id(x)}")
@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
@pytest.mark.parametrize("channels", [1, 3, 20, 129], ids=lambda c: f"C{c}")
def test_distances_and_signs_for_every_pair_of_dtypes(rows, channels, dtype, target_dtype):
    assert_as_torch(rows, *sample_rows(37, channels, (dtype, target_dtype)))


@pytest.mark.parametrize("channels", [4, 64], ids=["C4", "C64"])
@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
def test_unaligned_rows(rows, dtype, channels):
    assert_as_torch(rows, *sample_rows(37, channels, (dtype, dtype)), shift=1)


@pytest.mark.parametrize("channels", [1, 3, 64], ids=lambda c: f"C{c}")
def test_blocks_that_go_round_more_than_once(rows, channels):
    decoded, target, index = sample_rows(1037, channels, (torch.bfloat16, torch.float32))
    assert_as_torch(rows, decoded, target, index, blocks=2)


@pytest.mark.parametrize("target_dtype", DTYPES, ids=lambda x: f"target-{dtype_id(x)}")
@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
def test_special_values_are_as_in_torch(rows, dtype, target_dtype):
    """Zeros of both signs, subnormals, infinities and NaN, each in a row of its own."""
    tiny = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    p = [0.0, -0.0, tiny, 0.0, torch.finfo(dtype).max, INF, -INF, INF, NAN, 1.0, 2.0**-24]
    t = [-0.0, 0.0, 0.0, tiny, 0.0, 1.0, 1.0, INF, 1.0, NAN, 0.0]
    decoded = torch.tensor(p, dtype=torch.float64).to(dtype)[:, None].repeat(1, 8)
    target = torch.tensor(t, dtype=torch.float64).to(target_dtype)[:, None].repeat(1, 8)
    assert_as_torch(rows, decoded, target, torch.arange(len(p)))


def test_rows_may_share_a_target(rows):
    decoded, target, _ = sample_rows(9, 12, (torch.float32, torch.float16))
    target = target.nan_to_num()
    assert_as_torch(rows, decoded, target, torch.tensor([3] * 5 + [0] * 4))


@pytest.mark.parametrize("bad", [-1, 14], ids=["negative", "too-large"])
def test_an_index_that_is_no_row_is_stopped(rows, bad):
    decoded, target, index = sample_rows(9, 12, (torch.float32, torch.float32))
    index[7] = bad
    done = rows.run(*words(decoded, target, 0, ALL_BLOCKS), RISING, inputs=(decoded, target, index))
    assert done.returncode == 1
    assert "assertion 'source >= 0 && source < targets' failed" in done.stderr.decode()
