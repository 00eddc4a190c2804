"""PORPOISE and Pathomic Fusion: plain formulas for each patient, with every missing modality."""

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

SMALL = {"feature_dim": CHANNELS, "dim": 10, "attention_dim": 6, "slide_dim": 5,
         "gene_widths": (4, 3), "reduced_dim": 4, "fusion_dim": 8}  # fmt: skip
both_methods = pytest.mark.parametrize("method", ["porpoise", "pathomic_fusion"])


def make(method, num_genes=7, num_outputs=3):
    return seeded_model(method, SMALL | {"num_outputs": num_outputs, "num_genes": num_genes})


def by_hand(method, model, bag, genes):
    """Logits of one patient; None for a modality that the patient lacks.

    PORPOISE gates by both vectors side by side and hands them on to the end; Pathomic Fusion gates
    by their outer product.
    """
    slide, rna = model.absent_slide, model.absent_genes
    if bag is not None:
        rows = model.embed[0](bag).clamp(min=0)
        weights = gated_weights_by_hand(model.pool.scores, rows)
        slide = model.project[0]((weights * rows).sum(0)).clamp(min=0)
    if genes is not None:
        rna = snn_by_hand(model.gene_encoder, genes)
    both = torch.cat([slide, rna])
    gates = both if method == "porpoise" else torch.outer(slide, rna).flatten()
    outs = []
    for branch, own in ((model.fusion.first, slide), (model.fusion.second, rna)):
        gated = torch.sigmoid(branch.gate(gates)) * branch.hidden(own).clamp(min=0)
        outs.append(torch.cat([branch.out(gated).clamp(min=0), torch.ones(1).double()]))
    fused = model.fusion.products[1](torch.outer(*outs).flatten()).clamp(min=0)
    if method == "porpoise":
        fused = torch.cat([fused, both])
    fused = model.fusion.out[0](fused).clamp(min=0)
    return model.head(fused)


@both_methods
@every_pattern
@pytest.mark.parametrize(("genes", "classes"), [(1, 2), (7, 5)], ids=["G1-2", "G7-5"])
def test_each_patient_equals_the_formulas(method, pattern, genes, classes):
    model, batch = make(method, genes, classes), patients_lacking(*pattern, genes)
    logits = model(**batch)
    bags = iter(batch["patches"].split(batch["cu_seqlens"].diff().tolist()))
    for i, (has_slide, has_genes) in enumerate(zip(*pattern, strict=True)):
        bag = next(bags) if has_slide else None
        expected = by_hand(method, model, bag, batch["genes"][i] if has_genes else None)
        torch.testing.assert_close(logits[i], expected)


@both_methods
def test_gradients_of_inputs_are_those_of_finite_differences(method):
    model, cu_seqlens = make(method), torch.tensor([0, 1, 4])
    inputs = (torch.randn(4, CHANNELS).double(), torch.randn(2, 7).double())
    assert torch.autograd.gradcheck(
        lambda patches, genes: model(patches, cu_seqlens, genes),
        tuple(x.requires_grad_() for x in inputs),
    )


def test_attention_sums_to_one_over_each_bag():
    batch = patients_lacking([True] * 3, [True] * 3, 7)
    attention = make("porpoise").attention(PatientInputs.of(**batch))
    for part in attention.split(batch["cu_seqlens"].diff().tolist()):
        torch.testing.assert_close(part.sum(0), torch.ones(1).double())


def shapes_of_the_paper(method):
    model = models.build(method, {"num_outputs": 2, "num_genes": 20})
    return {name: tuple(p.shape) for name, p in model.named_parameters() if p.dim() == 2}


def test_porpoise_has_the_sizes_of_the_paper():
    shapes = shapes_of_the_paper("porpoise")
    assert shapes["embed.0.weight"] == (512, 1024)
    assert shapes["pool.scores.value.weight"] == (256, 512)
    assert shapes["fusion.first.gate.weight"] == (32, 512)
    assert shapes["fusion.products.1.weight"] == (256, 33 * 33)
    assert shapes["fusion.out.0.weight"] == (256, 256 + 512)
    assert shapes["head.weight"] == (2, 256)


def test_pathomic_fusion_has_the_sizes_of_the_paper():
    shapes = shapes_of_the_paper("pathomic_fusion")
    model = models.build("pathomic_fusion", {"num_outputs": 2, "num_genes": 20})
    widths = [block[0].out_features for block in model.gene_encoder.blocks]
    assert widths == [64, 48, 32, 32]
    assert shapes["project.0.weight"] == (32, 512)
    assert shapes["fusion.first.gate.weight"] == (32, 32 * 32)
    assert shapes["fusion.products.1.weight"] == (64, 33 * 33)
    assert shapes["fusion.out.0.weight"] == (64, 64)
    assert shapes["head.weight"] == (2, 64)


@both_methods
def test_genes_that_nobody_is_said_to_lack_are_an_error(method):
    with pytest.raises(ValueError, match="say with has_genes that patients lack them"):
        make(method)(torch.randn(3, CHANNELS).double(), torch.tensor([0, 3]))


@both_methods
def test_it_can_overfit_eight_patients(method):
    torch.manual_seed(0)
    model = models.build(method, SMALL | {"num_outputs": 2, "num_genes": 7, "dropout": 0.0})
    losses = losses_of_overfitting(model, 7, 300)
    assert losses[0] > 0.5
    assert losses[-1] < 0.02


def test_the_snn_of_pathomic_fusion_is_trained_first_and_then_frozen():
    model = models.build("pathomic_fusion", {"num_outputs": 2, "num_genes": 20})
    classifier = model.gene_classifier()
    assert classifier.encoder is model.gene_encoder
    assert classifier(torch.randn(3, 20)).shape == (3, 2)

    def trained(freeze):
        found = {id(p) for m in model.finetuned_modules(freeze) for p in m.parameters()}
        return found | {id(p) for p in model.loose_parameters()}

    of_genes = {id(p) for p in model.gene_encoder.parameters()}
    everything = {id(p) for p in model.parameters()}
    assert trained(False) == everything
    assert trained(True) == everything - of_genes


def test_porpoise_drops_inputs_and_nothing_behind_its_products():
    """As in its public code; Pathomic Fusion the other way round."""

    def rates(method):
        model = models.build(method, {"num_outputs": 2, "num_genes": 20})
        behind = (model.fusion.products[-1], model.fusion.out[-1])
        return model.input_dropout.p, model.fusion.products[0].p, *(m.p for m in behind)

    assert rates("porpoise") == (0.1, 0.25, 0.0, 0.0)
    assert rates("pathomic_fusion") == (0.0, 0.25, 0.25, 0.25)
