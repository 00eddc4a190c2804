"""Models learn the classic multiple-instance sets: one fold each, as a sanity check.

benchmarks/mil_sets.py cross-validates them all beside published figures.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from builders.packed import cu_seqlens_of

from gimp_fast import models
from gimp_fast.models.inputs import PatientInputs


@pytest.fixture(scope="module", params=["Musk1", "Elephant"])
def fold(real_data, request):
    """Standardised rows of each bag, its label, and which bags (a fifth) are held out."""
    path = real_data / "mil" / f"{request.param}.npz"
    if not path.is_file():
        pytest.skip(f"no multiple-instance set at {path}")
    with np.load(path, allow_pickle=False) as file:
        rows = torch.from_numpy(file["features"]).float()
        lengths, labels = np.diff(file["offsets"]), torch.from_numpy(file["label"]).long()
    held_out = torch.arange(len(labels)) % 5 == 2  # labels are sorted: of both classes
    of_train = ~held_out.repeat_interleave(torch.from_numpy(lengths))
    rows = (rows - rows[of_train].mean(0)) / rows[of_train].std(0).clamp_min(1e-6)
    return rows.split(lengths.tolist()), labels, held_out


def pack(bags, which):
    chosen = [bags[i] for i in which.tolist()]
    return PatientInputs.of(torch.cat(chosen), cu_seqlens_of(map(len, chosen)))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("abmil", {"dim": 64, "attention_dim": 32}),
        ("dsmil", {}),
        ("clam_sb", {"dim": 64, "attention_dim": 32}),
        ("clam_mb", {"dim": 64, "attention_dim": 32}),
        ("transmil", {"dim": 32, "heads": 4}),
    ],
    ids=["abmil", "dsmil", "clam_sb", "clam_mb", "transmil"],
)
def test_held_out_bags_are_classified_far_better_than_by_chance(fold, name, settings):
    bags, labels, held_out = fold
    torch.manual_seed(0)
    sizes = {"num_outputs": 2, "feature_dim": bags[0].shape[1]}
    model = models.build(name, sizes | settings).train()
    optimiser = torch.optim.Adam(model.parameters(), 1e-3, weight_decay=5e-3, fused=True)
    train = (~held_out).nonzero()[:, 0]
    for _ in range(10):
        for which in train[torch.randperm(len(train))].split(8):
            optimiser.zero_grad()
            model.loss(labels[which], pack(bags, which)).loss.mean().backward()
            optimiser.step()
    test = held_out.nonzero()[:, 0]
    predicted = model.eval().predict(pack(bags, test)).argmax(1)
    assert (predicted == labels[test]).float().mean() >= 0.7
