"""Losses of survival against their equations written out in fp64, and against torchsurv."""

from __future__ import annotations

import math

import pytest
import torch
from torch.autograd import gradcheck

from gimp_fast.targets.survival_losses import (
    cox_loss,
    discrete_nll,
    discrete_risk,
    discrete_survival,
)

TIES = ("efron", "breslow")
# Times, and who had the event.
OUTCOMES = {
    "no-ties": ([5, 1, 4, 2, 3], [1, 0, 1, 1, 0]),
    "ties": ([2, 1, 2, 3, 2, 1, 4], [1, 1, 1, 0, 1, 1, 1]),
    "ties-with-censored": ([2, 2, 1, 2, 3, 2, 1], [1, 0, 0, 1, 1, 0, 1]),
    "one-event": ([3, 1, 2, 4], [0, 0, 1, 0]),
    "one-event-last": ([3, 1, 2, 4], [0, 0, 0, 1]),
    "all-events": ([3, 1, 2, 4, 5], [1, 1, 1, 1, 1]),
    "all-at-one-time": ([2, 2, 2, 2], [1, 1, 1, 1]),
    "one-patient": ([2], [1]),
}
NO_EVENT = ([3, 1, 1, 2], [0, 0, 0, 0])


def outcome(case) -> tuple[torch.Tensor, torch.Tensor]:
    time, event = case
    return torch.tensor(time, dtype=torch.float64), torch.tensor(event, dtype=torch.bool)


def random_values(*shape: int, seed: int = 0, dtype=torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def cox_written_out(log_risk, time, event, ties) -> float:
    risk, time = [math.exp(x) for x in log_risk.tolist()], time.tolist()
    total = 0.0
    for t in {t for t, had in zip(time, event, strict=True) if had}:
        dead = [i for i in range(len(time)) if time[i] == t and event[i]]
        at_risk = sum(risk[i] for i in range(len(time)) if time[i] >= t)
        for place, i in enumerate(dead):
            gone = place / len(dead) * sum(risk[d] for d in dead) if ties == "efron" else 0.0
            total -= math.log(risk[i]) - math.log(at_risk - gone)
    return total / int(event.sum())


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("case", OUTCOMES.values(), ids=OUTCOMES.keys())
def test_cox_equals_the_equation_written_out(case, ties):
    time, event = outcome(case)
    log_risk = random_values(len(time))
    loss = cox_loss(log_risk, time, event, ties=ties)
    assert loss.item() == pytest.approx(cox_written_out(log_risk, time, event, ties), abs=1e-13)


@pytest.mark.filterwarnings("ignore:Ties in `time`")
@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("distinct", [7, 10_000], ids=["many-ties", "few-ties"])
def test_cox_equals_torchsurv(distinct, ties):
    cox = pytest.importorskip("torchsurv.loss.cox")
    generator = torch.Generator().manual_seed(3)
    log_risk = random_values(101, seed=4, dtype=torch.float32)
    time = torch.randint(1, distinct, (101,), generator=generator).float()
    event = torch.rand(101, generator=generator) < 0.6
    # Its mean is over distinct times where there are ties.
    total = cox.neg_partial_log_likelihood(log_risk, event, time, ties_method=ties, reduction="sum")
    expected = total.item() / event.sum().item()
    assert cox_loss(log_risk, time, event, ties=ties).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("case", [*OUTCOMES.values(), NO_EVENT], ids=[*OUTCOMES.keys(), "no-event"])
def test_gradient_of_cox(case, ties):
    time, event = outcome(case)
    log_risk = random_values(len(time)).requires_grad_()
    assert gradcheck(lambda x: cox_loss(x, time, event, ties=ties), log_risk)


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("patients", [4, 0], ids=["all-censored", "nobody"])
def test_cox_without_an_event_is_zero_with_zero_gradient(patients, ties):
    log_risk = torch.ones(patients, requires_grad=True)
    time, event = torch.ones(patients), torch.zeros(patients, dtype=torch.bool)
    loss = cox_loss(log_risk, time, event, ties=ties)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(log_risk.grad, torch.zeros(patients))


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("case", OUTCOMES.values(), ids=OUTCOMES.keys())
def test_cox_of_extreme_log_risks_is_right_in_fp32(case, ties):
    time, event = outcome(case)
    signs = torch.tensor([1.0, -1.0, 1.0, -1.0, -1.0, 1.0, -1.0])[: len(time)]
    log_risk = (80 * signs).requires_grad_()
    loss = cox_loss(log_risk, time, event, ties=ties)
    loss.backward()
    # The difference of sums of the equation written out loses all digits here, even in fp64. In
    # fp32 a log risk of 80 has a rounding error of 4e-6.
    assert loss.item() == pytest.approx(cox_by_positive_sums(log_risk, time, event, ties), abs=1e-5)
    exact = log_risk.detach().double().requires_grad_()
    cox_loss(exact, time, event, ties=ties).backward()
    assert torch.allclose(log_risk.grad.double(), exact.grad, rtol=0, atol=2e-5)


def cox_by_positive_sums(log_risk, time, event, ties) -> float:
    """The equation of the docstring, patient by patient in fp64, where exp(80) is no problem."""
    risk = log_risk.detach().double().exp()
    total = 0.0
    for i in event.nonzero().flatten().tolist():
        tied = (time == time[i]) & event
        others = (time >= time[i]) & ~tied
        share = int(tied[:i].sum()) / int(tied.sum()) if ties == "efron" else 0.0
        at_risk = risk[others].sum() + (1 - share) * risk[tied].sum()
        total += math.log(at_risk) - log_risk[i].item()
    return total / int(event.sum())


@pytest.mark.parametrize("ties", TIES)
def test_cox_does_not_depend_on_the_order_of_patients_or_a_constant(ties):
    time, event = outcome(OUTCOMES["ties-with-censored"])
    log_risk = random_values(len(time))
    loss = cox_loss(log_risk, time, event, ties=ties).item()
    order = torch.tensor([3, 0, 6, 2, 5, 1, 4])
    permuted = cox_loss(log_risk[order], time[order], event[order], ties=ties)
    assert permuted.item() == pytest.approx(loss, abs=1e-14)
    assert cox_loss(log_risk + 10, time, event, ties=ties).item() == pytest.approx(loss, abs=1e-13)


def test_half_precision_computes_cox_in_fp32():
    time, event = outcome(OUTCOMES["ties"])
    log_risk = random_values(len(time)).to(torch.bfloat16)
    loss = cox_loss(log_risk, time.int(), event)
    assert loss.dtype == torch.float32
    expected = cox_written_out(log_risk.double(), time, event, "efron")
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def nll_written_out(logits, bins, event, alpha) -> list[float]:
    losses = []
    for row, y, had in zip(logits.tolist(), bins.tolist(), event.tolist(), strict=True):
        hazards = [1 / (1 + math.exp(-x)) for x in row]
        before = math.prod(1 - h for h in hazards[:y])
        of_event = -math.log(before * hazards[y]) if had else 0.0
        of_censored = 0.0 if had else -math.log(before * (1 - hazards[y]))
        losses.append((1 - alpha) * (of_censored + of_event) + alpha * of_event)
    return losses


EVENTS = {
    "mixed": [1, 0, 1, 0, 1, 0],
    "one-event": [0, 0, 0, 1, 0, 0],
    "all-events": [1] * 6,
    "no-event": [0] * 6,
}


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("count", [1, 2, 5], ids="K{}".format)
@pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS.keys())
def test_nll_equals_the_equation_written_out(event, count, alpha):
    logits, event = 3 * random_values(6, count), torch.tensor(event, dtype=torch.bool)
    bins = torch.tensor([0, 4, 2, 1, 4, 0]).clamp(max=count - 1)
    losses = discrete_nll(logits, bins, event, alpha=alpha)
    expected = nll_written_out(logits, bins, event, alpha)
    assert losses.tolist() == pytest.approx(expected, abs=1e-13)


@pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS.keys())
def test_gradient_of_nll(event):
    logits, event = random_values(6, 3).requires_grad_(), torch.tensor(event, dtype=torch.bool)
    bins = torch.tensor([0, 2, 2, 1, 1, 0])
    assert gradcheck(lambda x: discrete_nll(x, bins, event, alpha=0.3), logits)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["fp32", "fp16"])
def test_nll_of_extreme_logits_is_exact(dtype):
    rows = torch.tensor([[1e4, -1e4, 1e4], [-1e4, 1e4, -1e4]], dtype=dtype)
    logits = rows.repeat_interleave(6, 0).requires_grad_()
    bins = torch.tensor([0, 1, 2] * 4)
    event = torch.tensor([1, 1, 1, 0, 0, 0] * 2, dtype=torch.bool)
    losses = discrete_nll(logits, bins, event)
    losses.sum().backward()
    assert losses.dtype == torch.float32
    of_first = [0.0, 2e4, 1e4, 1e4, 1e4, 2e4]
    of_second = [1e4, 0.0, 2e4, 0.0, 1e4, 1e4]
    assert losses.tolist() == of_first + of_second
    assert logits.grad[:6].tolist() == [
        [0, 0, 0], [1, -1, 0], [1, 0, 0], [1, 0, 0], [1, 0, 0], [1, 0, 1],
    ]  # fmt: skip


def test_nll_of_each_patient_is_of_that_patient_alone():
    logits, bins = random_values(5, 4), torch.tensor([0, 3, 1, 2, 3])
    event = torch.tensor([1, 0, 0, 1, 1], dtype=torch.bool)
    losses = discrete_nll(logits, bins, event)
    order = torch.tensor([4, 2, 0, 3, 1])
    assert torch.equal(discrete_nll(logits[order], bins[order], event[order]), losses[order])
    assert discrete_nll(logits[:0], bins[:0], event[:0]).shape == (0,)


def test_survival_is_the_product_of_what_remains_and_risk_its_negative_sum():
    logits = random_values(7, 4)
    expected = (1 - logits.sigmoid()).cumprod(1)
    assert torch.allclose(discrete_survival(logits), expected, rtol=0, atol=1e-15)
    assert torch.allclose(discrete_risk(logits), -expected.sum(1), rtol=0, atol=1e-15)
    assert discrete_survival(torch.tensor([[1e4, -1e4], [-1e4, 1e4]])).tolist() == [[0, 0], [1, 0]]


LOGITS, BINS, EVENT = torch.zeros(3, 2), torch.tensor([0, 1, 1]), torch.tensor([True, False, True])
TIME = torch.tensor([1.0, 2.0, 3.0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: discrete_nll(TIME, BINS, EVENT), r"logits: found shape \(3,\); expected \(B, K\)"),
        (lambda: discrete_nll(LOGITS.long(), BINS, EVENT), "int64; expected floating point"),
        (lambda: discrete_nll(LOGITS[:, :0], BINS, EVENT), "logits: found no bin"),
        (lambda: discrete_nll(LOGITS, BINS[:2], EVENT), r"bins: found shape \(2,\); expected \(3"),
        (lambda: discrete_nll(LOGITS, BINS.int(), EVENT), "bins: found torch.int32; expected"),
        (lambda: discrete_nll(LOGITS, BINS, EVENT[:, None]), r"event: found shape \(3, 1\)"),
        (lambda: discrete_nll(LOGITS, BINS, EVENT.long()), "event: .*; expected torch.bool"),
        (lambda: discrete_nll(LOGITS, BINS, EVENT, alpha=1.1), "alpha: found 1.1; expected a num"),
        (lambda: discrete_risk(TIME), r"logits: found shape \(3,\)"),
        (lambda: cox_loss(LOGITS, TIME, EVENT), r"log_risk: found shape \(3, 2\); expected \(B\)"),
        (lambda: cox_loss(BINS, TIME, EVENT), "log_risk: found torch.int64; expected floating"),
        (lambda: cox_loss(TIME, TIME[:2], EVENT), r"time: found shape \(2,\); expected \(3\)"),
        (lambda: cox_loss(TIME, TIME, EVENT.float()), "event: found torch.float32; expected"),
        (lambda: cox_loss(TIME, TIME, EVENT, ties="exact"), "ties: found 'exact'; expected 'efron"),
    ],
)  # fmt: skip
def test_bad_input_names_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("outside", [-1, 2])
def test_a_bin_that_is_not_there_is_an_error(outside):
    with pytest.raises(RuntimeError, match="out of bounds"):
        discrete_nll(LOGITS, torch.tensor([0, 1, outside]), EVENT)
