"""Steps that are recorded and replayed are those that would have run, bit for bit."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from gimp_fast.models.inputs import Presence
from gimp_fast.ops.masks import Masked
from gimp_fast.runs.checkpoint import load_checkpoint
from gimp_fast.training import graphs, load_config, train
from gimp_fast.training.graphs import RecordedSteps, why_not_recorded
from gimp_fast.training.sampling import WindowBatch


class StandIn:
    """Stands for a CUDA graph: what is recorded runs again on the same tensors."""

    def __init__(self, parameters):
        self.parameters, self.calls = list(parameters), []

    def warm_up(self, function):
        self.calls.append("eager")
        return function()

    def record(self, function):
        self.calls.append("record")
        before = torch.get_rng_state()  # recording computes nothing, and draws nothing
        results = function()
        torch.set_rng_state(before)
        gradients = [p.grad for p in self.parameters]

        def replay():
            self.calls.append("replay")
            for name, value in function().items():
                results[name].copy_(value)
            for parameter, gradient in zip(self.parameters, gradients, strict=True):
                gradient.copy_(parameter.grad)
                parameter.grad = gradient

        return results, replay


def batch_of(size, step, masked=2):
    """Windows of 4 patches with random features, of which ``masked`` are masked in each."""
    generator = torch.Generator().manual_seed(step)
    mask = torch.zeros(size, 4, dtype=torch.bool)
    mask[:, :masked] = True
    patches = torch.randn(size, 4, 6, generator=generator)
    names, labels = tuple(f"{step}-{n}" for n in range(size)), torch.arange(size)
    return WindowBatch(names, labels, None, Presence.of([True] * size), patches, Masked.of(mask))


def run(batches, recorder):
    """Results of each step and the final weights; the recorder is made of the parameters."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 6))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)

    def compute(batch, share):
        optimizer.zero_grad(set_to_none=True)
        errors = (model(batch.patches) - batch.patches).square() * batch.masked.mask[..., None]
        loss = errors.sum() / batch.masked.total / share.total
        loss.backward()
        return {"loss": loss.detach()}

    steps, calls = compute, None
    if recorder is not None:
        made = recorder(model.parameters())
        steps, calls = RecordedSteps(compute, list(model.parameters()), made), made.calls
    losses = []
    for batch in batches:
        losses.append(steps(batch, SimpleNamespace(total=len(batch.case_ids)))["loss"].item())
        optimizer.step()
    return losses, [p.detach().clone() for p in model.parameters()], calls


def test_steps_of_several_shapes_equal_eager_ones():
    """Whole batches, a smaller last one in each epoch, and one with other counts of masks."""
    sizes = [5, 5, 2] * 6
    batches = [batch_of(size, step) for step, size in enumerate(sizes)]
    batches[10:10] = [batch_of(5, 99, masked=1)]
    losses, weights, calls = run(batches, StandIn)
    expected, wanted, _ = run(batches, None)
    assert losses == expected
    assert all(map(torch.equal, weights, wanted))
    assert len(set(losses)) == len(losses)
    assert calls.count("record") == 2
    assert calls.count("eager") == 3 + 3 + 1
    assert calls.count("replay") == len(batches) - 7


def test_no_more_graphs_are_recorded_than_memory_is_there_for():
    batches = [batch_of(size, step) for step in range(5) for size in (2, 3, 4)]
    losses, _, calls = run(batches, StandIn)
    assert losses == run(batches, None)[0]
    assert calls.count("record") == graphs.MOST == 2
    assert calls.count("eager") == 3 + 3 + 5


TINY = [
    "modalities=slide", "pretrain.epochs=4", "finetune.epochs=1", "pretrain.batch_size=8",
    "pretrain.window=4", "model.dim=16", "model.heads=2", "model.num_landmarks=4",
    "model.dropout=0.2", "device=cpu",
]  # fmt: skip


def pretrained(cohort, out, *overrides):
    said = []
    config = load_config(overrides=[*TINY, *overrides])
    train(config, cohort, out, stages=["pretrain"], log=said.append)
    return load_checkpoint(out / "checkpoints" / "pretrain.safetensors")[0], said


def test_pretraining_by_graphs_gives_the_same_weights(cohort_folder, tmp_path, monkeypatch):
    expected, _ = pretrained(cohort_folder, tmp_path / "eager")
    made = []

    class Recorder(StandIn):
        def __init__(self):
            made.append(self)
            self.calls = []

    def recorded(compute, parameters, recorder):
        recorder.parameters = parameters
        return RecordedSteps(compute, parameters, recorder)

    monkeypatch.setattr(graphs, "why_not_recorded", lambda stage: None)
    monkeypatch.setattr(graphs, "CudaRecorder", Recorder)
    monkeypatch.setattr(graphs, "RecordedSteps", recorded)
    found, said = pretrained(cohort_folder, tmp_path / "graphs", "pretrain.cuda_graphs=true")
    assert made[0].calls.count("replay") >= 3
    assert not [text for text in said if "no effect" in text]
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_without_a_gpu_the_option_says_that_it_has_no_effect(cohort_folder, tmp_path):
    _, said = pretrained(cohort_folder, tmp_path / "run", "pretrain.cuda_graphs=true")
    assert "pretrain: cuda_graphs has no effect, because the run is on cpu" in said


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"recordable": False}, "its batches have many shapes, or its steps wait for the GPU"),
        ({"ranks": 2}, "processes exchange gradients in the backward pass"),
        ({"compile": True}, "compile=true launches kernels in its own way"),
        ({"checkpoint_layers": True}, "model.checkpoint_layers=true sets random numbers back"),
        ({"balance": True}, "pretrain.balance=true takes gradients within the step"),
        ({}, None),
    ],
    ids=["stage", "ranks", "compile", "checkpoints", "balance", "possible"],
)
def test_when_steps_are_not_recorded(change, reason):
    given = {"recordable": True, "ranks": 1, "compile": False, "checkpoint_layers": False}
    given |= {"balance": False} | change
    model = SimpleNamespace(checkpoint_layers=given["checkpoint_layers"])
    context = SimpleNamespace(
        device=torch.device("cuda"),
        ranks=SimpleNamespace(size=given["ranks"]),
        config=SimpleNamespace(
            compile=given["compile"],
            model=model,
            pretrain=SimpleNamespace(balance=given["balance"]),
        ),
    )
    stage = SimpleNamespace(recordable=given["recordable"], context=context)
    assert why_not_recorded(stage) == reason


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_pretraining_by_cuda_graphs_gives_the_same_weights(cohort_folder, tmp_path, precision):
    both = []
    for wanted in ("false", "true"):
        options = ["device=cuda", f"precision={precision}", f"pretrain.cuda_graphs={wanted}"]
        both.append(pretrained(cohort_folder, tmp_path / wanted, *options)[0])
    assert all(torch.equal(both[0][name], both[1][name]) for name in both[0])
