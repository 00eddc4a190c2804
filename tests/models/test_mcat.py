"""MCAT: plain formulas for each patient, groups of genes, missing modalities, overfitting."""

from __future__ import annotations

import pytest
import torch
from builders.models import (
    CHANNELS,
    every_pattern,
    gated_weights_by_hand,
    losses_of_overfitting,
    patients_lacking,
    seeded_model,
    snn_by_hand,
)

from gimp_fast import models
from gimp_fast.models.inputs import PatientInputs

SMALL = {"feature_dim": CHANNELS, "dim": 8, "heads": 2, "ffn_dim": 10, "attention_dim": 6}
SETS = ((0, 3, 4), (3, 1), (6,))


def make(num_genes=7, num_outputs=3, **changes):
    sizes = {"num_outputs": num_outputs, "num_genes": num_genes}
    return seeded_model("mcat", SMALL | sizes | changes)


def attend(module, tokens):
    """Self-attention of all heads, token by token."""
    q, k, v = (tokens @ module.in_proj_weight.T + module.in_proj_bias).chunk(3, -1)
    outputs = []
    for qh, kh, vh in zip(*(x.chunk(module.num_heads, -1) for x in (q, k, v)), strict=True):
        outputs.append((qh @ kh.T / kh.shape[1] ** 0.5).softmax(-1) @ vh)
    return module.out_proj(torch.cat(outputs, -1))


def pool(part, tokens):
    for layer in part.transformer.layers:
        tokens = layer.norm1(tokens + attend(layer.self_attn, tokens))
        tokens = layer.norm2(tokens + layer.linear2(layer.linear1(tokens).clamp(min=0)))
    weights = gated_weights_by_hand(part.scores, tokens)
    return part.project[0]((weights * tokens).sum(0)).clamp(min=0)


def groups_by_hand(model, genes, columns):
    groups = zip(model.gene_groups.encoders, columns, strict=True)
    return torch.stack([snn_by_hand(encoder, genes[list(group)]) for encoder, group in groups])


def by_hand(model, bag, genes, columns):
    """Logits of one patient; None for a modality that the patient lacks."""
    groups = model.absent_genes.view(len(columns), -1)
    attended = model.absent_slide.view(len(columns), -1)
    if genes is not None:
        groups = groups_by_hand(model, genes, columns)
    if bag is not None:
        rows, c = model.embed[0](bag).clamp(min=0), model.co_attention
        scores = c.query(groups) @ c.key(rows).T / rows.shape[1] ** 0.5
        attended = c.out(scores.softmax(-1) @ c.value(rows))
    pooled = torch.cat([pool(model.pool_slide, attended), pool(model.pool_genes, groups)])
    fused = model.fusion[0](pooled).clamp(min=0)
    return model.head(model.fusion[2](fused).clamp(min=0))


COLUMNS = {1: [(0,)], 7: [(0, 1), (2,), (3,), (4,), (5,), (6,)]}


@every_pattern
@pytest.mark.parametrize(
    ("genes", "classes", "gene_sets"),
    [(1, 2, None), (7, 5, None), (7, 3, SETS)],
    ids=["G1-2", "G7-5", "sets-3"],
)
def test_each_patient_equals_the_formulas(pattern, genes, classes, gene_sets):
    model, batch = make(genes, classes, gene_sets=gene_sets), patients_lacking(*pattern, genes)
    logits = model(**batch)
    bags = iter(batch["patches"].split(batch["cu_seqlens"].diff().tolist()))
    for i, (has_slide, has_genes) in enumerate(zip(*pattern, strict=True)):
        bag = next(bags) if has_slide else None
        own = batch["genes"][i] if has_genes else None
        expected = by_hand(model, bag, own, gene_sets or COLUMNS[genes])
        torch.testing.assert_close(logits[i], expected)


@pytest.mark.parametrize(
    ("genes", "groups", "lengths"),
    [(1, 6, [1]), (4, 6, [1] * 4), (7, 6, [2, 1, 1, 1, 1, 1]), (20, 3, [7, 7, 6])],
)
def test_consecutive_groups_hold_every_gene_once(genes, groups, lengths):
    model = make(genes, groups=groups)
    assert model.gene_groups.lengths == lengths
    assert model.gene_groups.gene_index.tolist() == list(range(genes))


def test_gene_sets_are_the_groups_and_genes_in_no_set_are_not_read():
    model, batch = make(gene_sets=SETS), patients_lacking([True] * 3, [True] * 3, 7)
    logits = model(**batch)
    for column in range(7):
        changed = batch["genes"].clone()
        changed[:, column] += 1
        same = torch.equal(model(**(batch | {"genes": changed})), logits)
        assert same == (column in (2, 5))
    assert not any("index" in name for name in model.state_dict())


def test_the_slide_of_a_patient_without_rna_is_read():
    model = make()
    batch = patients_lacking([True] * 3, [False] * 3, 7)
    moved = batch | {"patches": batch["patches"] + 1}
    assert not torch.allclose(model(**batch), model(**moved))


def test_gradients_of_inputs_are_those_of_finite_differences():
    model, cu_seqlens = make(), torch.tensor([0, 1, 4])
    inputs = (torch.randn(4, CHANNELS).double(), torch.randn(2, 7).double())
    assert torch.autograd.gradcheck(
        lambda patches, genes: model(patches, cu_seqlens, genes),
        tuple(x.requires_grad_() for x in inputs),
    )


def test_attention_sums_to_one_over_each_bag():
    model, batch = make(), patients_lacking([True] * 3, [True, True, False], 7)
    of_groups = model.co_attend(PatientInputs.of(**batch))
    assert of_groups.shape == (14, 6)
    of_patches = model.attention(PatientInputs.of(**batch))
    torch.testing.assert_close(of_patches, of_groups.mean(1, keepdim=True))
    for part in of_groups.split(batch["cu_seqlens"].diff().tolist()):
        torch.testing.assert_close(part.sum(0), torch.ones(6).double())
    # Without RNA of any patient, all have the learned tokens.
    slides_alone = PatientInputs.of(batch["patches"], batch["cu_seqlens"])
    torch.testing.assert_close(model.co_attend(slides_alone)[10:], of_groups[10:])


def test_sizes_of_the_paper():
    model = models.build("mcat", {"num_outputs": 2, "num_genes": 60})
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters() if p.dim() == 2}
    assert shapes["embed.0.weight"] == (256, 1024)
    assert len(model.gene_groups.encoders) == 6
    assert len(model.pool_genes.transformer.layers) == 2
    assert model.pool_slide.transformer.layers[0].self_attn.num_heads == 8
    assert shapes["pool_slide.transformer.layers.0.linear1.weight"] == (512, 256)
    assert shapes["fusion.0.weight"] == (256, 512)
    assert shapes["head.weight"] == (2, 256)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"heads": 3}, "must divide dim"), ({"num_genes": 0}, "num_genes is 0; expected at least 1")],
    ids=["heads", "genes"],
)
def test_sizes_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)


def test_it_can_overfit_eight_patients():
    torch.manual_seed(0)
    model = models.build("mcat", SMALL | {"num_outputs": 2, "num_genes": 7, "dropout": 0.0})
    losses = losses_of_overfitting(model, 7, 200)
    assert losses[0] > 0.5
    assert losses[-1] < 0.02
