"""Whether the losses of survival are right on a device: a few patients, worked out in full."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gimp_fast.targets.survival_losses import cox_loss, discrete_nll

_TIMES = (5.0, 2.0, 2.0, 7.0, 2.0, 5.0, 1.0)  # ties of events, and of an event and a censored one
_EVENTS = (True, True, True, False, False, True, True)
_BINS = (2, 1, 1, 2, 1, 2, 0)
_LOG_RISKS = (0.3, -1.2, 0.8, 0.1, -0.4, 1.5, 0.0)
_LOGITS = tuple(tuple(risk + 0.5 * k - 1 for k in range(3)) for risk in _LOG_RISKS)
_TOLERANCE = 1e-5  # of single precision, for sums of seven terms of about one
_STEP = 1e-5


def fault_of_survival_losses(device: torch.device) -> str | None:
    """What is wrong there with a loss or its gradient, in single precision; None if nothing is."""
    time, event = torch.tensor(_TIMES, device=device), torch.tensor(_EVENTS, device=device)
    bins = torch.tensor(_BINS, device=device)
    logits = [logit for row in _LOGITS for logit in row]
    checks: dict[str, tuple[Sequence[float], Callable[[Tensor], Tensor], Callable]] = {
        "Cox, Efron": (_LOG_RISKS, lambda x: cox_loss(x, time, event), _cox),
        "nll": (logits, lambda x: discrete_nll(x.view(-1, 3), bins, event).sum(), _nll),
    }
    for name, (values, loss, expected) in checks.items():
        inputs = torch.tensor(values, device=device, requires_grad=True)
        found = loss(inputs)
        found.backward()
        wanted = [expected(values), *_gradient(expected, values)]
        error = max(
            abs(a - b) for a, b in zip([found.item(), *inputs.grad.tolist()], wanted, strict=True)
        )
        if not error <= _TOLERANCE:  # NaN, too
            return f"{name}: the loss or its gradient is wrong by {error:.1g}"
    return None


def _cox(log_risks: Sequence[float]) -> float:
    """The formula of :func:`cox_loss` with Efron's ties, term by term."""
    total, patients = 0.0, range(len(log_risks))
    for time in set(_TIMES):
        tied = [i for i in patients if _TIMES[i] == time and _EVENTS[i]]
        others = [i for i in patients if _TIMES[i] >= time and i not in tied]
        at_risk, of_tied = (sum(math.exp(log_risks[i]) for i in rows) for rows in (others, tied))
        for place, patient in enumerate(tied):
            share = 1 - place / len(tied)
            total += math.log(at_risk + share * of_tied) - log_risks[patient]
    return total / sum(_EVENTS)


def _nll(logits: Sequence[float]) -> float:
    """The formula of :func:`discrete_nll`, interval by interval."""
    total = 0.0
    for patient, (last, event) in enumerate(zip(_BINS, _EVENTS, strict=True)):
        hazards = [1 / (1 + math.exp(-logit)) for logit in logits[3 * patient : 3 * patient + 3]]
        outlasted = hazards[:last] if event else hazards[: last + 1]
        total -= sum(math.log(1 - hazard) for hazard in outlasted)
        if event:
            total -= math.log(hazards[last])
    return total


def _gradient(function: Callable[[Sequence[float]], float], at: Sequence[float]) -> list[float]:
    """By differences in double precision, right to about 1e-10."""
    found = []
    for place in range(len(at)):
        up, down = list(at), list(at)
        up[place] += _STEP
        down[place] -= _STEP
        found.append((function(up) - function(down)) / (2 * _STEP))
    return found
