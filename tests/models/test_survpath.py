"""SurvPath: plain formulas for each patient, pathways, missing modalities, attention."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from builders.models import (
    CHANNELS,
    every_pattern,
    losses_of_overfitting,
    patients_lacking,
    seeded_model,
    snn_by_hand,
)

from gimp_fast import models
from gimp_fast.models.inputs import PatientInputs

SMALL = {"feature_dim": CHANNELS, "dim": 8, "pathways": 4}
SETS = ((0, 3, 4), (3, 1), (6,))
COLUMNS = {1: [(0,)], 7: [(0, 1), (2, 3), (4, 5), (6,)]}


def make(num_genes=7, num_outputs=3, **changes):
    sizes = {"num_outputs": num_outputs, "num_genes": num_genes}
    return seeded_model("survpath", SMALL | sizes | changes)


def norm(layer, x):
    x = x - x.mean(-1, keepdim=True)
    x = x / (x.square().mean(-1, keepdim=True) + layer.eps).sqrt()
    return x * layer.weight + layer.bias


def feed_forward(part, x):
    hidden = F.gelu(norm(part[0], x) @ part[1].weight.T + part[1].bias)
    return norm(part[5], hidden @ part[4].weight.T + part[4].bias)


def by_hand(model, bag, genes, columns):
    """Outputs of one patient, token by token; None for a modality that the patient lacks."""
    pathways = model.absent_genes.view(len(columns), -1)
    if genes is not None:
        groups = zip(model.pathways.encoders, columns, strict=True)
        pathways = torch.stack(
            [snn_by_hand(encode, genes[list(group)]) for encode, group in groups]
        )
    tokens = pathways
    if bag is not None:
        tokens = torch.cat([pathways, bag @ model.embed.weight.T + model.embed.bias])
    q, k, v = (norm(model.cross.norm, tokens) @ model.cross.to_qkv.weight.T).chunk(3, -1)
    out = []
    for place in range(len(tokens)):
        seen = len(tokens) if place < len(columns) else len(columns)
        weights = ((k[:seen] @ q[place]) / q.shape[1] ** 0.5).softmax(0)
        out.append(weights @ v[:seen])
    out = feed_forward(model.feed_forward, torch.stack(out))
    of_slide = model.absent_slide if bag is None else out[len(columns) :].mean(0)
    z = torch.cat([out[: len(columns)].mean(0), of_slide])
    first, _, last = model.head
    return last.weight @ (first.weight @ z + first.bias).clamp(min=0) + last.bias


@every_pattern
@pytest.mark.parametrize(
    ("genes", "outputs", "gene_sets"),
    [(1, 2, None), (7, 4, None), (7, 1, SETS)],
    ids=["G1-2", "G7-4", "sets-1"],
)
def test_each_patient_equals_the_formulas(pattern, genes, outputs, gene_sets):
    model, batch = make(genes, outputs, gene_sets=gene_sets), patients_lacking(*pattern, genes)
    found = model(**batch)
    bags = iter(batch["patches"].split(batch["cu_seqlens"].diff().tolist()))
    for i, (has_slide, has_genes) in enumerate(zip(*pattern, strict=True)):
        bag = next(bags) if has_slide else None
        own = batch["genes"][i] if has_genes else None
        expected = by_hand(model, bag, own, gene_sets or COLUMNS[genes])
        torch.testing.assert_close(found[i], expected)


def test_genes_in_no_set_are_not_read():
    model, batch = make(gene_sets=SETS), patients_lacking([True] * 3, [True] * 3, 7)
    found = model(**batch)
    for column in range(7):
        changed = batch["genes"].clone()
        changed[:, column] += 1
        same = torch.equal(model(**(batch | {"genes": changed})), found)
        assert same == (column in (2, 5))


def test_gradients_of_inputs_are_those_of_finite_differences():
    model, cu_seqlens = make(), torch.tensor([0, 1, 4])
    inputs = (torch.randn(4, CHANNELS).double(), torch.randn(2, 7).double())
    assert torch.autograd.gradcheck(
        lambda patches, genes: model(patches, cu_seqlens, genes),
        tuple(x.requires_grad_() for x in inputs),
    )


def test_attention_is_that_of_the_pathways_and_sums_to_one_over_each_bag():
    model, batch = make(), patients_lacking([True] * 3, [True, True, False], 7)
    found = model.attention(PatientInputs.of(**batch))
    assert found.shape == (14, 1)
    for part in found.split(batch["cu_seqlens"].diff().tolist()):
        torch.testing.assert_close(part.sum(0), torch.ones(1).double())


def test_sizes_of_the_paper():
    model = models.build("survpath", {"num_outputs": 4, "num_genes": 600})
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters() if p.dim() == 2}
    assert shapes["embed.weight"] == (256, 1024)
    assert shapes["cross.to_qkv.weight"] == (3 * 128, 256)
    assert shapes["feed_forward.1.weight"] == (128, 128)
    assert (shapes["head.0.weight"], shapes["head.2.weight"]) == ((64, 256), (4, 64))
    assert len(model.pathways.encoders) == 50


def test_a_model_without_genes_is_refused():
    with pytest.raises(ValueError, match="num_genes is 0"):
        models.build("survpath", SMALL | {"num_outputs": 2, "num_genes": 0})


def test_it_learns_a_few_patients_by_heart():
    model = make(num_outputs=2, dim=16, gene_dropout=0.0, dropout=0.0).float()
    losses = losses_of_overfitting(model, 7, 60)
    assert losses[-1] < 0.2 * losses[0]
