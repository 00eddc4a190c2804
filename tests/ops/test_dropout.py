"""The native dropout: which elements it drops, on any processor and any number of threads."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from builders.native import NATIVE, each_instruction_set, on_threads

from gimp_fast.ops.dropout import dropout

pytestmark = pytest.mark.skipif(NATIVE != "available", reason=NATIVE)

BLOCK = 128


def philox(key, counter):
    """Philox4x32-10 of one counter of four words, straight from the paper."""
    k, c, mask = list(key), list(counter), 0xFFFFFFFF
    for _ in range(10):
        first, second = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(second >> 32) ^ c[1] ^ k[0], second & mask, (first >> 32) ^ c[3] ^ k[1], first & mask]
        k = [(k[0] + 0x9E3779B9) & mask, (k[1] + 0xBB67AE85) & mask]
    return c


def numbers(seed, count):
    """The 16-bit number of each element."""
    found = []
    for block in range(-(-count // BLOCK)):
        words = np.array(
            [philox((seed & 0xFFFFFFFF, seed >> 32), (block, 0, lane, 0)) for lane in range(16)],
            dtype=np.uint32,
        ).T.ravel()
        found += [words & 0xFFFF, words >> 16]
    return np.concatenate(found)[:count].astype(np.int64)


def native_dropout(x, seed, dropped):
    return torch.ops.gimp_fast.dropout(x, seed, dropped)


def test_the_oracle_gives_the_published_answers():
    """The first two lines of Random123's kat_vectors for philox4x32-10."""
    assert philox((0, 0), (0, 0, 0, 0)) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    ones = 0xFFFFFFFF
    expected = [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]
    assert philox((ones, ones), (ones,) * 4) == expected


@pytest.mark.parametrize("count", [1, 15, 127, 128, 129, 1000])
@pytest.mark.parametrize("seed", [0, 12345, 2**63 - 1])
@pytest.mark.parametrize("dropped", [0, 1, 6554, 65535])
def test_drops_what_the_random_numbers_say(count, seed, dropped):
    x = torch.randn(count)
    scale = np.float32(65536) / np.float32(65536 - dropped)
    factors = np.where(numbers(seed, count) >= dropped, scale, np.float32(0))
    expected = x * torch.from_numpy(factors.astype(np.float32))
    assert torch.equal(native_dropout(x, seed, dropped), expected)


@each_instruction_set
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_instruction_sets_and_threads_do_not_matter(instruction_set, threads):
    x = torch.randn(70_001)
    with on_threads(threads):
        out = native_dropout(x, 7, 30000)
    kept = torch.from_numpy(numbers(7, 70_001) >= 30000)
    assert torch.equal(out != 0, kept)


@pytest.mark.parametrize("p", [0.003, 0.1, 0.5, 0.9])
def test_the_share_is_p_wherever_an_element_lies(p):
    torch.manual_seed(1)
    kept = dropout(torch.ones(BLOCK * 8000), p).view(-1, BLOCK) != 0
    sd = (p * (1 - p) / 8000) ** 0.5
    shares = kept.double().mean(0)
    assert abs(shares - (1 - p)).max() < 5 * sd
    assert abs(kept.double().mean() - (1 - p)) < 5 * sd / BLOCK**0.5
    for step in (1, 16, 64):  # the next lane, the next word, the other half
        both = (kept[:, :-step] & kept[:, step:]).double().mean()
        assert abs(both - (1 - p) ** 2) < 5 * sd / 8


def test_two_calls_drop_other_elements():
    torch.manual_seed(0)
    first, second = (dropout(torch.ones(1000), 0.5) for _ in range(2))
    assert 400 < (first != second).sum() < 600


def test_a_nan_stays():
    torch.manual_seed(0)
    assert dropout(torch.full((50,), float("nan")), 0.5).isnan().all()


@pytest.mark.parametrize(
    ("x", "dropped", "message"),
    [
        (torch.zeros(3, dtype=torch.float64), 5, "contiguous float32"),
        (torch.zeros(3, 4).t(), 5, "contiguous float32"),
        (torch.zeros(3), -1, "expected 0 to 65535"),
        (torch.zeros(3), 65536, "expected 0 to 65535"),
    ],
    ids=["dtype", "layout", "below", "above"],
)
def test_what_does_not_fit_is_refused(x, dropped, message):
    with pytest.raises(RuntimeError, match=message):
        native_dropout(x, 1, dropped)
