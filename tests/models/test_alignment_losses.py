"""InfoNCE, Sinkhorn codes and swapped prediction against their formulas, term by term."""

from __future__ import annotations

import math

import pytest
import torch
from torch.autograd import gradcheck

from gimp_fast.losses import info_nce_loss, sinkhorn_codes, swapped_prediction_loss


def pairs(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, dtype=torch.float64, generator=generator) for _ in range(2)]


def info_nce_by_hand(first, second, temperature, weight):
    def similarity(a, b):
        return (a @ b / (a.norm() * b.norm()) / temperature).item()

    total = 0.0
    for i in range(len(first)):
        own = math.exp(similarity(first[i], second[i]))
        seconds = sum(math.exp(similarity(first[i], b)) for b in second)
        firsts = sum(math.exp(similarity(a, second[i])) for a in first)
        total -= weight * math.log(own / seconds) + (1 - weight) * math.log(own / firsts)
    return total / len(first)


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("weight", [0.0, 0.5, 0.75])
@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_info_nce_equals_the_formula(count, weight, temperature):
    first, second = pairs(count, 4)
    found = info_nce_loss(first, second, temperature, weight)
    assert found.dim() == 0
    assert found.item() == pytest.approx(info_nce_by_hand(first, second, temperature, weight))


def test_info_nce_is_symmetric_unless_a_direction_weighs_more():
    first, second = pairs(5, 4)
    assert info_nce_loss(first, second, 0.1) == info_nce_loss(second, first, 0.1)
    torch.testing.assert_close(
        info_nce_loss(first, second, 0.1, 0.75), info_nce_loss(second, first, 0.1, 0.25)
    )
    assert info_nce_loss(first, second, 0.1, 0.75) != info_nce_loss(second, first, 0.1, 0.75)


def test_info_nce_of_tokens_is_that_of_each_patient():
    first, second = pairs(3, 5, 4)
    found = info_nce_loss(first, second, 0.1)
    assert found.shape == (3,)
    torch.testing.assert_close(
        found, torch.stack([info_nce_loss(a, b, 0.1) for a, b in zip(first, second, strict=True)])
    )


@pytest.mark.parametrize("shape", [(1, 4), (3, 1, 4)], ids=str)
def test_info_nce_of_one_pair_is_zero_and_has_no_gradient(shape):
    first, second = (x.requires_grad_() for x in pairs(*shape))
    loss = info_nce_loss(first, second, 0.07)
    loss.sum().backward()
    assert not loss.any()
    assert not first.grad.any()
    assert not second.grad.any()


def test_info_nce_of_perfect_and_of_indifferent_pairs():
    distinct = torch.eye(4, dtype=torch.float64)
    assert info_nce_loss(distinct, distinct, 0.01) < 1e-6
    same = torch.ones(4, 3, dtype=torch.float64)
    assert info_nce_loss(same, same, 0.1).item() == pytest.approx(math.log(4))


def test_info_nce_has_a_finite_gradient_at_zero_rows():
    first = torch.zeros(3, 4, requires_grad=True)
    info_nce_loss(first, torch.randn(3, 4), 0.1).backward()
    assert first.grad.isfinite().all()


def test_info_nce_stays_in_full_precision_under_autocast():
    first, second = (x.float() for x in pairs(8, 16))
    expected = info_nce_loss(first, second, 0.07)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = info_nce_loss(first, second, 0.07)
    assert torch.equal(found, expected)
    assert info_nce_loss(first.bfloat16(), second.bfloat16(), 0.07).dtype == torch.float32


@pytest.mark.parametrize("weight", [0.5, 0.75])
def test_gradients_of_info_nce(weight):
    first, second = (x.requires_grad_() for x in pairs(2, 3, 4))
    assert gradcheck(lambda a, b: info_nce_loss(a, b, 0.3, weight), (first, second))


def sinkhorn_by_hand(scores, epsilon, steps):
    """As in SwAV: of all entries, then of each prototype, then of each sample."""
    q = [[math.exp(s / epsilon) for s in row] for row in scores.tolist()]
    rows, columns = len(q), len(q[0])
    for _ in range(steps):
        for k in range(columns):
            total = sum(q[i][k] for i in range(rows))
            for i in range(rows):
                q[i][k] /= total * columns
        for i in range(rows):
            total = sum(q[i])
            q[i] = [x / (total * rows) for x in q[i]]
    return torch.tensor(q, dtype=torch.float64) * rows


@pytest.mark.parametrize(("rows", "columns"), [(6, 4), (4, 4), (2, 7), (1, 1), (1, 5), (5, 1)])
@pytest.mark.parametrize("steps", [1, 3])
def test_sinkhorn_equals_the_scaling_written_out(rows, columns, steps):
    scores = torch.rand(rows, columns, dtype=torch.float64) * 2 - 1
    codes = sinkhorn_codes(scores, epsilon=0.05, steps=steps)
    torch.testing.assert_close(codes, sinkhorn_by_hand(scores, 0.05, steps))
    torch.testing.assert_close(codes.sum(1), torch.ones(rows).double())


def test_many_steps_use_all_prototypes_alike():
    codes = sinkhorn_codes(pairs(12, 4)[0], epsilon=0.5, steps=200)
    torch.testing.assert_close(codes.sum(0), torch.full((4,), 3.0).double())
    torch.testing.assert_close(codes.sum(1), torch.ones(12).double())


def test_codes_of_large_scores_are_finite_and_carry_no_gradient():
    scores = (torch.randn(6, 4) * 1e4).requires_grad_()
    codes = sinkhorn_codes(scores)
    assert codes.isfinite().all()
    assert not codes.requires_grad


def test_swapped_prediction_equals_the_formula():
    first, second = pairs(6, 4)
    expected = 0.0
    for scores, other in ((first, second), (second, first)):
        q, logits = sinkhorn_by_hand(other, 0.5, 3), scores / 0.2
        for i in range(6):
            total = sum(math.exp(x) for x in logits[i].tolist())
            for k in range(4):
                expected -= q[i, k].item() * math.log(math.exp(logits[i, k].item()) / total) / 12
    options = {"temperature": 0.2, "epsilon": 0.5, "steps": 3}
    found = swapped_prediction_loss(first, second, **options)
    assert found.item() == pytest.approx(expected)
    torch.testing.assert_close(swapped_prediction_loss(second, first, **options), found)


def test_swapped_prediction_of_one_prototype_is_zero():
    assert not swapped_prediction_loss(*pairs(3, 1)).any()
    assert not swapped_prediction_loss(*pairs(1, 1)).any()


def test_the_gradient_of_swapped_prediction_takes_the_codes_as_given():
    first, second = (x.requires_grad_() for x in pairs(3, 4))
    swapped_prediction_loss(first, second, temperature=0.2).backward()
    codes = sinkhorn_codes(second)
    expected = ((first / 0.2).softmax(1) - codes) / 0.2 / 6
    torch.testing.assert_close(first.grad, expected)
