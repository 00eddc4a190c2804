"""The triplet loss against eq. 4 written out triplet by triplet."""

from __future__ import annotations

import pytest
import torch

from gimp_fast.losses import triplet_loss


def written_out(x, labels, margin, mining):
    n = len(x)
    terms = {}
    for anchor in range(n):
        for positive in range(n):
            for negative in range(n):
                if positive == anchor or labels[positive] != labels[anchor]:
                    continue
                if labels[negative] == labels[anchor]:
                    continue
                near = ((x[anchor] - x[positive]) ** 2).sum()
                far = ((x[anchor] - x[negative]) ** 2).sum()
                term = max((near + margin - far).item(), 0.0)
                terms.setdefault(anchor, []).append(term)
    if mining == "hard":
        hardest = [max(values) for values in terms.values()]
        return sum(hardest) / max(len(hardest), 1)
    violating = [t for values in terms.values() for t in values if t > 0]
    return sum(violating) / max(len(violating), 1)


LABELS = {
    "two-classes": [0, 0, 1, 1, 0],
    "three-classes": [0, 2, 1, 1, 0, 2, 2],
    "one-alone": [0, 0, 1],
    "single-class": [1, 1, 1],
    "all-alone": [0, 1, 2],
    "one-sample": [0],
}


@pytest.mark.parametrize("mining", ["hard", "all"])
@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS.keys())
def test_equals_the_equation_written_out(labels, mining):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(len(labels), 3, generator=generator, dtype=torch.float64)
    loss = triplet_loss(x, torch.tensor(labels), margin=0.8, mining=mining)
    assert loss.item() == pytest.approx(written_out(x, labels, 0.8, mining), abs=1e-12)


@pytest.mark.parametrize("normalize", [False, True], ids=["raw", "unit"])
@pytest.mark.parametrize("mining", ["hard", "all"])
def test_gradcheck(mining, normalize):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(6, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 1, 0, 1, 2, 2])
    assert torch.autograd.gradcheck(
        lambda x: triplet_loss(x, labels, mining=mining, normalize=normalize), x
    )


@pytest.mark.parametrize("mining", ["hard", "all"])
def test_no_triplet_gives_zero_loss_and_zero_gradient(mining):
    x = torch.randn(4, 3, requires_grad=True)
    triplet_loss(x, torch.zeros(4, dtype=torch.long), mining=mining).backward()
    assert torch.equal(x.grad, torch.zeros(4, 3))


@pytest.mark.parametrize("mining", ["hard", "all"])
def test_equal_rows_have_a_finite_gradient(mining):
    x = torch.ones(4, 3, requires_grad=True)
    loss = triplet_loss(x, torch.tensor([0, 0, 1, 1]), margin=0.8, mining=mining)
    loss.backward()
    assert loss.item() == pytest.approx(0.8)
    assert x.grad.isfinite().all()


def test_half_precision_accumulates_in_fp32():
    x = torch.randn(6, 512).to(torch.float16) * 20
    labels = torch.tensor([0, 1, 0, 1, 0, 1])
    loss = triplet_loss(x, labels)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(triplet_loss(x.double(), labels).item(), rel=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: triplet_loss(torch.ones(4), torch.ones(4)), r"\(B, C\)"),
        (lambda: triplet_loss(torch.ones(4, 2), torch.ones(3)), r"\(3,\)"),
        (lambda: triplet_loss(torch.ones(4, 2), torch.ones(4), mining="soft"), "'soft'"),
    ],
)
def test_bad_input_names_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()
