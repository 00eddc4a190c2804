"""The fusion weight that validation patients choose."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from gimp_fast.errors import FaultError
from gimp_fast.models import Presence, Representation, build
from gimp_fast.training import load_config

SIZES = {"num_outputs": 3, "feature_dim": 6, "num_genes": 12, "dim": 8, "heads": 2}
SIZES |= {"gene_fragments": 4, "gene_groups": 2, "head_hidden": 8, "fusion": "validated"}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build("gimp", SIZES).eval()


def rows(count: int = 40) -> torch.Tensor:
    return torch.randn(count, 16, generator=torch.Generator().manual_seed(1))


def seen(vectors: torch.Tensor, without_rna: tuple[int, ...] = ()) -> Representation:
    count = len(vectors)
    rna = Presence.of([place not in without_rna for place in range(count)])
    return Representation(vectors, Presence.of([True] * count), rna)


def test_logits_are_mixed_by_the_weight(model):
    model.fusion_weight.fill_(0.3)
    x = rows()
    expected = 0.7 * model.gene_head(x[:, 8:]) + 0.3 * model.head(x)
    torch.testing.assert_close(model.classify(seen(x)), expected)


@pytest.mark.parametrize(("source", "weight"), [("genes", 0.0), ("head", 1.0)])
def test_the_weight_follows_whoever_is_right(model, source, weight):
    x = rows(200)
    with torch.no_grad():
        for layer in (model.gene_head, model.head[-1]):
            layer.weight.mul_(10)
        logits = model.gene_head(x[:, 8:]) if source == "genes" else model.head(x)
    assert model.fit_to_validation(seen(x), logits.argmax(-1))
    assert float(model.fusion_weight) == pytest.approx(weight, abs=0.11)


def test_the_weight_is_that_of_the_lowest_loss(model):
    x, labels = seen(rows(), without_rna=(0, 3)), torch.arange(40) % 3
    losses = []
    with torch.no_grad():
        for step in range(11):
            model.fusion_weight.fill_(step / 10)
            losses.append(float(F.cross_entropy(model.classify(x), labels)))
    model.fit_to_validation(x, labels)
    assert float(model.fusion_weight) == pytest.approx(losses.index(min(losses)) / 10)


def test_the_weight_is_chosen_in_two_passes_of_the_heads(model):
    calls = []
    model.head.register_forward_hook(lambda *_: calls.append(1))
    model.fit_to_validation(seen(rows(5)), torch.zeros(5, dtype=torch.long))
    assert len(calls) == 2 * 5


def test_patients_without_rna_have_only_the_head(model):
    model.fusion_weight.fill_(0.0)
    x = rows()
    mixed = model.classify(seen(x, without_rna=(0,)))
    torch.testing.assert_close(mixed[:1], model.head(x[:1]))
    torch.testing.assert_close(mixed[1:], model.gene_head(x[1:, 8:]))


def test_the_head_trains_by_its_own_logits(model):
    model.train()
    model.fusion_weight.fill_(0.0)
    model.head[2].p = 0.0
    torch.testing.assert_close(model.classify(seen(rows())), model.head(rows()))


@pytest.mark.parametrize(
    ("name", "changes"),
    [("gimp", {"modalities": "slide"}), ("gimp", {"modalities": "rna"}), ("mgca", {})],
    ids=["slide", "rna", "no-genes-stage"],
)
def test_models_without_two_opinions_have_no_weight(name, changes):
    model = build(name, SIZES | changes)
    assert model.gene_head is None
    assert not model.fit_to_validation(seen(rows()), torch.zeros(40, dtype=torch.long))


def test_a_gene_encoder_that_moves_on_is_refused():
    overrides = ["model.fusion=validated", "finetune.freeze_genes=false"]
    with pytest.raises(FaultError, match=r"freeze_genes=true with model.fusion=validated"):
        load_config(overrides=overrides)
