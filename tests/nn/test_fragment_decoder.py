"""The decoder of gene fragments, and its error without padding."""

from __future__ import annotations

import torch

from gimp_fast.nn.fragment_decoder import FragmentDecoder, fragment_l1


def test_the_decoder_equals_its_formula():
    torch.manual_seed(0)
    decoder = FragmentDecoder(6, 4).double()
    first, _, norm, last = decoder.layers
    x = torch.randn(6, dtype=torch.float64)
    hidden = first.weight @ x + first.bias
    hidden = 0.5 * hidden * (1 + torch.erf(hidden / 2**0.5))
    hidden = (hidden - hidden.mean()) / (hidden.var(unbiased=False) + norm.eps).sqrt()
    torch.testing.assert_close(decoder(x), last.weight @ hidden + last.bias)
    assert torch.autograd.gradcheck(decoder, torch.randn(2, 3, 6).double().requires_grad_())


def test_the_error_counts_genes_and_not_padding():
    prediction = torch.tensor([[[1.0, 2.0], [3.0, 99.0]], [[0.0, 0.0], [0.0, 50.0]]])
    target = torch.tensor([[[0.0, 4.0], [3.5, 0.0]], [[1.0, 1.0], [1.0, 0.0]]])
    counted = torch.tensor([[[True, True], [True, False]]])
    expected = torch.tensor([(1 + 2 + 0.5) / 3, 1.0])
    torch.testing.assert_close(fragment_l1(prediction, target, counted), expected)
    of_each = torch.tensor([[[True, False], [False, False]], [[False, False], [True, False]]])
    torch.testing.assert_close(fragment_l1(prediction, target, of_each), torch.ones(2))


def test_half_precision_predictions_are_compared_in_the_targets():
    prediction, target = torch.randn(2, 3, 4).bfloat16(), torch.randn(2, 3, 4)
    error = fragment_l1(prediction, target, torch.ones(1, 3, 4, dtype=torch.bool))
    assert error.dtype == torch.float32
    torch.testing.assert_close(error, (prediction.float() - target).abs().mean((1, 2)))
