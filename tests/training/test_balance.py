"""The weight that makes two losses change an encoder equally."""

from __future__ import annotations

import json

import pytest
import torch
from builders.runs import QUICK, train_run
from torch import nn

from gimp_fast.errors import GimpError
from gimp_fast.training import load_config
from gimp_fast.training.balance import LARGEST, balancing_weight
from gimp_fast.training.distributed import ALONE, Share

SHARE = Share(ALONE, 4)


def losses(factor):
    torch.manual_seed(0)
    norm = nn.LayerNorm(6)
    hidden = norm(torch.randn(4, 6))
    return list(norm.parameters()), hidden.abs().mean(), factor * hidden.square().sum()


@pytest.mark.parametrize("factor", [1e-6, 1.0, 840.0])
def test_both_gradients_are_equally_long(factor):
    parameters, first, second = losses(factor)
    weight = balancing_weight(first, second, parameters, SHARE)
    assert not weight.requires_grad

    def length(loss):
        found = torch.autograd.grad(loss, parameters, retain_graph=True)
        return float(torch.cat([g.flatten() for g in found]).norm())

    if weight < LARGEST:
        assert length(weight * second) == pytest.approx(length(first), rel=1e-4)
    else:
        assert length(weight * second) < length(first)


def test_a_loss_without_gradient_stays_finite():
    """No triplet violates the margin: nothing is learned of them, whatever their weight."""
    parameters, first, second = losses(0.0)
    weight = balancing_weight(first, second, parameters, SHARE)
    assert weight == LARGEST
    (first + weight * second).backward()
    assert all(p.grad.isfinite().all() for p in parameters)


def test_a_parameter_that_one_loss_does_not_reach_is_left_out():
    parameters, first, second = losses(1.0)
    alone = nn.Parameter(torch.ones(3))
    expected = balancing_weight(first, second, parameters, SHARE)
    assert balancing_weight(first, second, [*parameters, alone], SHARE) == expected


def test_pretraining_with_balanced_losses_differs_and_runs(cohort_folder, tmp_path):
    rows = {}
    for balance in ("false", "true"):
        settings = ("pretrain.epochs=2", "pretrain.reconstruction=sum", "model.dim=16")
        out = tmp_path / balance
        settings += ("model.heads=2", f"pretrain.balance={balance}", "pretrain.normalize=true")
        train_run(out, cohort_folder, *QUICK, *settings)
        lines = [json.loads(line) for line in (out / "metrics.jsonl").open()]
        rows[balance] = [line["train"] for line in lines if line["stage"] == "pretrain"]
    first, later = rows["true"]
    assert first["loss"] > first["reconstruction"] + first["triplet"]  # eq. 3 is much larger
    assert later["triplet"] != rows["false"][1]["triplet"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [("compile=true", "compile=false"), ("pretrain.reconstruction_weight=0", "above 0")],
    ids=["compile", "weight"],
)
def test_what_cannot_be_balanced(setting, message):
    with pytest.raises(GimpError, match=message):
        load_config(overrides=["pretrain.balance=true", setting])
