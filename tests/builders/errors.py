"""Errors of floating-point results, measured so that no processor's way of rounding decides.

Libraries add up in different orders: a result is never compared bit for bit with that of another
library, and an error is never divided by a result that may be zero. It is divided by the size of
the terms that are added up: what cancels in exact arithmetic leaves their rounding errors behind.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def relative_error(found: Tensor, expected: Tensor, size: float | None = None) -> float:
    """‖found − expected‖ / size in fp64; the size is ‖expected‖ unless its terms are larger."""
    difference = (found.double() - expected.double()).norm().item()
    size = expected.double().norm().item() if size is None else size
    return difference / size if difference else 0.0


def attention_sizes(
    expected: Sequence[Tensor], inputs: Sequence[Tensor], grad: Tensor
) -> list[float]:
    """What to divide the errors of an attention's output and gradients by.

    The loss ⟨grad, out⟩ adds up terms of the size ‖grad‖ ‖out‖, so those of the gradient of x are
    of the size ‖grad‖ ‖out‖ / ‖x‖. The gradient itself can be zero: attention to one key does not
    depend on the query, and P (dP − δ) subtracts two equal numbers.

    Args:
        expected: exact output, then the gradient of each input.
        inputs: of the attention: queries, keys and values.
        grad: gradient of the output.
    """
    out, *gradients = (x.double().norm().item() for x in expected)
    terms = [grad.double().norm().item() * out / x.double().norm().item() for x in inputs]
    return [out, *(max(pair) for pair in zip(gradients, terms, strict=True))]


def assert_near(
    found: Sequence[Tensor],
    expected: Sequence[Tensor],
    tolerance: float,
    sizes: Sequence[float] | None = None,
) -> None:
    """Every result is within ``tolerance`` of the exact one, relative to its size."""
    errors = _relative_errors(found, expected, sizes)
    assert max(errors) <= tolerance, errors


def assert_no_worse(
    found: Sequence[Tensor],
    peer: Sequence[Tensor],
    expected: Sequence[Tensor],
    factor: float,
    sizes: Sequence[float] | None = None,
    stages: int = 1,
) -> None:
    """Every error is at most ``factor`` times that of a peer in the same dtype.

    A peer can come closer than its arithmetic promises, on one processor and not on the next. So
    its error counts as no less than one rounding of the terms in the dtype of the result, and one
    rounding of the result in fp32 for each stage.

    Args:
        stages: products that follow each other, each of which rounds what the next one reads.
    """
    errors, peers = (_relative_errors(x, expected, sizes) for x in (found, peer))
    norms = [x.double().norm().item() for x in expected]
    for x, error, of_peer, norm, size in zip(
        found, errors, peers, norms, norms if sizes is None else sizes, strict=True
    ):
        of_terms = torch.finfo(x.dtype).eps / 2
        of_stages = stages * torch.finfo(torch.float32).eps / 2 * (norm / size)
        assert error <= factor * max(of_peer, of_terms, of_stages), (errors, peers)


def _relative_errors(
    found: Sequence[Tensor], expected: Sequence[Tensor], sizes: Sequence[float] | None
) -> list[float]:
    sizes = [None] * len(expected) if sizes is None else sizes
    return [relative_error(*x) for x in zip(found, expected, sizes, strict=True)]
