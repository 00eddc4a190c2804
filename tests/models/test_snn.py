"""SNN: its blocks by hand, initial weights, patients without RNA, and GiMP with an SNN."""

from __future__ import annotations

import pytest
import torch
from builders.models import losses_of_overfitting, seeded_model, snn_by_hand

from gimp_fast import models
from gimp_fast.models.inputs import PatientInputs
from gimp_fast.nn.snn import SNNEncoder
from gimp_fast.validation import FieldsError

SETTINGS = {"feature_dim": 12, "num_genes": 7, "num_outputs": 3, "hidden": 6}


def make(**changes):
    return seeded_model("snn", SETTINGS | changes)


@pytest.mark.parametrize("genes", [1, 7])
@pytest.mark.parametrize("classes", [2, 5])
def test_logits_equal_the_blocks_written_out(genes, classes):
    model = make(num_genes=genes, num_outputs=classes)
    x = torch.randn(4, genes, dtype=torch.float64)
    logits = model(genes=x)
    for row, found in zip(x, logits, strict=True):
        hidden = snn_by_hand(model.gene_encoder, row)
        torch.testing.assert_close(found, model.head.weight @ hidden + model.head.bias)
    assert len(model.gene_encoder.blocks) == 4


def test_gradients_are_those_of_finite_differences():
    model = make()
    assert torch.autograd.gradcheck(
        lambda genes: model(genes=genes), torch.randn(2, 7).double().requires_grad_()
    )


def test_weights_begin_with_variance_one_over_fan_in_and_biases_with_zero():
    torch.manual_seed(0)
    encoder = SNNEncoder(400, (300, 200))
    for linear, _, _ in encoder.blocks:
        assert not linear.bias.any()
        variance = linear.weight.var().item() * linear.in_features
        assert variance == pytest.approx(1, abs=0.05)
        assert linear.weight.mean().abs() < 0.005


def test_depth_and_dropout_leave_mean_and_variance():
    """ELU is not SELU: they are kept roughly, as in the public models; nothing explodes."""
    torch.manual_seed(0)
    encoder = SNNEncoder(1000, [256] * 4).train()
    hidden = encoder(torch.randn(500, 1000))
    assert hidden.mean().abs() < 0.5
    assert 0.2 < hidden.std() < 1.5


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (
            {"genes": torch.ones(3, 7), "has_genes": torch.tensor([True, False, False])},
            "2 of 3 patients lack it",
        ),
        ({"genes": None, "has_genes": torch.tensor([False])}, "neither patches nor genes"),
        ({}, "neither patches nor genes"),
    ],
    ids=["two-lack-it", "nobody", "nothing"],
)
def test_patients_without_rna_are_an_error(inputs, message):
    with pytest.raises(ValueError, match=message):
        make()(**inputs)


@pytest.mark.parametrize(("genes", "widths"), [(0, (4,)), (3, ())])
def test_an_encoder_of_nothing_is_refused(genes, widths):
    with pytest.raises(ValueError, match="expected at least one of each"):
        SNNEncoder(genes, widths)


def test_slides_are_not_needed():
    model, x = make(), torch.randn(2, 7, dtype=torch.float64)
    nobody = torch.tensor([False, False])
    assert torch.equal(
        model(torch.empty(0, 12), torch.zeros(1).int(), x, has_slide=nobody), model(genes=x)
    )


def test_it_can_overfit_eight_patients():
    model = make(num_outputs=2, hidden=16, dropout=0.0).float()
    assert losses_of_overfitting(model, 7, 100, lr=1e-2)[-1] < 0.01


GIMP = {"num_outputs": 2, "feature_dim": 12, "dim": 16, "heads": 4, "num_landmarks": 8}


@pytest.mark.parametrize("genes", [1, 7])
@pytest.mark.parametrize("modalities", ["both", "rna"])
def test_gimp_encodes_genes_with_an_snn(genes, modalities):
    torch.manual_seed(0)
    config = GIMP | {"num_genes": genes, "gene_encoder": "snn", "modalities": modalities}
    model = models.build("gimp", config).eval()
    x = torch.randn(3, genes)
    blocks, linear = model.gene_encoder
    assert [block[0].out_features for block in blocks.blocks] == [256] * 4
    assert blocks.blocks[0][2].p == model.config.gene_dropout
    inputs = PatientInputs.of(torch.randn(3, 12), torch.arange(4), x)
    cls_ge = model.represent(inputs).vectors[:, -16:]
    torch.testing.assert_close(cls_ge, linear(blocks(x)))
    classifier = models.GeneClassifier(model.gene_encoder, 16, 2)
    assert classifier(x).shape == (3, 2)


def test_gimp_with_an_snn_ignores_gene_sets():
    config = GIMP | {"num_genes": 7, "gene_sets": ((0, 1), (3,)), "gene_encoder": "snn"}
    model = models.build("gimp", config)
    assert model.gene_encoder(torch.randn(2, 7)).shape == (2, 16)


def test_gimp_has_no_other_gene_encoder():
    with pytest.raises(FieldsError, match="group_msa"):
        models.build("gimp", GIMP | {"num_genes": 7, "gene_encoder": "mlp"})
