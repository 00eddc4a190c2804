"""Models compute without reading sizes or masks back from the device, which would wait for it."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from builders.alignment import SETTINGS, aligned_model, one_process, windows_and_genes
from builders.models import patients_lacking, seeded_model
from torch.utils._python_dispatch import TorchDispatchMode

from gimp_fast import models
from gimp_fast.losses import triplet_loss, triplet_loss_of_pairs
from gimp_fast.models.inputs import PatientInputs, Presence
from gimp_fast.ops import nystrom_torch, overflow
from gimp_fast.ops.masks import Masked
from gimp_fast.targets.survival_losses import cox_loss, discrete_nll, outcome_pairs

aten = torch.ops.aten
READS = {
    aten.nonzero.default, aten._local_scalar_dense.default, aten.masked_select.default,
    aten.is_nonzero.default, aten.equal.default,
}  # fmt: skip
INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default}


class DeviceReads(TorchDispatchMode):
    """Counts operators whose result or shape needs values from the device on the CPU."""

    def __init__(self):
        super().__init__()
        self.found = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        by_mask = func in INDEXING and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        unsized = func is aten.repeat_interleave.Tensor and kwargs.get("output_size") is None
        if func in READS or by_mask or unsized:
            self.found[func.name()] += 1
        return func(*args, **kwargs)


@pytest.fixture(autouse=True)
def one_thread():
    """The counter sees the calling thread only."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch):
    """Tensors here stand for those of a GPU, which are not read to look for an overflow."""
    for module in (nystrom_torch, overflow):
        monkeypatch.setattr(module, "can_be_read", lambda x: False)


@pytest.mark.parametrize("name", models.available())
def test_a_training_step_reads_nothing_back(name):
    fields = models.model_class(name).config_class.model_fields
    settings = {key: value for key, value in SETTINGS.items() if key in fields}
    model = seeded_model(name, settings).train()
    both = models.model_class(name).reads[0] == "both"
    present = [True, False, True] if both else [True] * 3
    inputs = PatientInputs.of(**patients_lacking(present, present, SETTINGS["num_genes"]))
    labels = torch.tensor([0, 1, 1])
    with DeviceReads() as reads:
        model.loss(labels, inputs).loss.sum().backward()
    assert not reads.found


@pytest.mark.parametrize(
    ("counted", "lists"), [(True, {}), (False, {"aten::nonzero": 2})], ids=["counted", "a tensor"]
)
def test_gimps_pretraining_reads_nothing_back_if_masks_are_counted(counted, lists):
    """Else it lists patches to embed and patches to compare with, and counts those of a bag."""
    model = seeded_model("gimp", {k: v for k, v in SETTINGS.items() if k != "projection_dim"})
    windows, genes = windows_and_genes()
    rna = Presence.of([True, False, True, True])
    masked = torch.arange(36).reshape(4, 9) % 2 == 0
    masked = Masked.of(masked) if counted else masked
    with DeviceReads() as reads:
        reconstruction, cls_pat = model.train().pretrain_parts(windows[:, 0], masked, genes, rna)
        (reconstruction + cls_pat.sum()).backward()
    assert reads.found == lists


@pytest.mark.parametrize("mining", ["hard", "all"])
def test_mining_triplets_reads_nothing_back(mining):
    features = torch.randn(5, 3, requires_grad=True)
    with DeviceReads() as reads:
        triplet_loss(features, torch.tensor([0, 1, 0, 1, 2]), mining=mining).backward()
        pairs = outcome_pairs(*binned_outcomes())
        triplet_loss_of_pairs(features, *pairs, mining=mining).backward()
    assert not reads.found


def binned_outcomes() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor([0, 1, 0, 1, 2]), torch.tensor([True, True, True, False, False])


@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_losses_of_survival_read_nothing_back(ties):
    logits = torch.randn(5, 3, requires_grad=True)
    bins, event = binned_outcomes()
    with DeviceReads() as reads:
        discrete_nll(logits, bins, event).sum().backward()
        cox_loss(logits[:, 0], bins.float(), event, ties=ties).backward()
    assert not reads.found


@pytest.mark.parametrize("name", ["mgca", "biovil", "refers"])
def test_a_step_of_alignment_reads_nothing_back(name):
    model = aligned_model(name).train()
    batch = windows_and_genes(views=model.views)
    with DeviceReads() as reads:
        terms = model.alignment_terms(*batch, one_process)
        sum(term.mean() for term in terms.values()).backward()
    assert not reads.found


def test_the_counter_sees_reads():
    x = torch.arange(4.0)
    with DeviceReads() as reads:
        x[x > 1].sum().item()
        x[x > 1] = 0
        torch.arange(2).repeat_interleave(torch.tensor([1, 2]))
    assert reads.found.total() == 4
