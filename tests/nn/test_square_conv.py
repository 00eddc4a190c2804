"""The convolution of packed squares beside torch's, with its gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from gimp_fast.nn.square_conv import add_square_conv

CHANNELS = 3


def by_torch(rows, weight, bias, spans):
    out = []
    for row in range(len(rows)):
        span = next((span for span in spans if span[0] <= row < span[1]), None)
        if span is None:
            out.append(rows[row])
            continue
        side = round((span[1] - span[0]) ** 0.5)
        grid = rows[slice(*span)].T.reshape(1, CHANNELS, side, side)
        padding = weight.shape[-1] // 2
        grid = grid + F.conv2d(grid, weight, bias, padding=padding, groups=CHANNELS)
        out.append(grid.flatten(2)[0, :, row - span[0]])
    return torch.stack(out)


def arguments(size, count, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    shapes = (count, CHANNELS), (CHANNELS, 1, size, size), (CHANNELS,)
    return [torch.randn(s, generator=generator, dtype=dtype).requires_grad_() for s in shapes]


@pytest.mark.parametrize("size", [1, 3, 7])
@pytest.mark.parametrize(
    "spans", [[(1, 5)], [(0, 1)], [(1, 10), (11, 36)], [(0, 4), (4, 8)], []], ids=str
)
def test_values_and_gradients_are_those_of_torch(size, spans):
    given = arguments(size, 38)
    found, expected = add_square_conv(*given, spans), by_torch(*given, spans)
    torch.testing.assert_close(found, expected)
    factors = torch.randn_like(found)
    expected = torch.autograd.grad((expected * factors).sum(), given, allow_unused=True)
    for one, other in zip(torch.autograd.grad(found, given, factors), expected, strict=True):
        torch.testing.assert_close(one, torch.zeros_like(one) if other is None else other)


def test_a_compiler_gets_torchs_own_operations():
    given, spans = arguments(3, 12), [(1, 5), (7, 11)]
    compiled = torch.compile(add_square_conv, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(*given, spans), by_torch(*given, spans))


def test_autocast_computes_in_its_dtype():
    given = arguments(3, 12, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found = add_square_conv(*given, [(1, 10)])
    torch.testing.assert_close(found, by_torch(*given, [(1, 10)]), rtol=0.05, atol=0.05)


def test_a_square_has_the_same_bits_alone():
    rows, weight, bias = (x.detach() for x in arguments(7, 60, torch.float32))
    together = add_square_conv(rows, weight, bias, [(1, 26), (27, 36), (37, 46)])
    for start, stop in ((1, 26), (27, 36), (37, 46)):
        alone = add_square_conv(rows[start:stop].clone(), weight, bias, [(0, stop - start)])
        assert torch.equal(together[start:stop], alone)
