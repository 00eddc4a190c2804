"""The worked example that finds wrong losses of survival."""

from __future__ import annotations

import pytest
import torch

from gimp_fast.targets import survival_check

CPU = torch.device("cpu")


def test_the_losses_are_right_here():
    assert survival_check.fault_of_survival_losses(CPU) is None


@pytest.mark.gpu
def test_the_losses_are_right_on_the_gpu():
    assert survival_check.fault_of_survival_losses(torch.device("cuda")) is None


@pytest.mark.parametrize(("loss", "name"), [("cox_loss", "Cox"), ("discrete_nll", "nll")])
@pytest.mark.parametrize(
    "wrong",
    [
        lambda value: 1.0001 * value,
        lambda value: value * float("nan"),
        lambda value: value.detach() + 0.9 * (value - value.detach()),
    ],
    ids=["value", "nan", "gradient"],
)
def test_a_wrong_loss_is_named(loss, name, wrong, monkeypatch):
    right = getattr(survival_check, loss)
    monkeypatch.setattr(survival_check, loss, lambda *args: wrong(right(*args)))
    found = survival_check.fault_of_survival_losses(CPU)
    assert found.startswith(name)
    assert "is wrong by" in found
