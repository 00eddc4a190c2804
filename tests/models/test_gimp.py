"""GiMP: modalities present and absent, packed patients, pre-training losses, one tiny overfit."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from gimp_fast import models
from gimp_fast.losses import triplet_loss
from gimp_fast.models import GiMP, GiMPConfig

SIZES = {"num_classes": 3, "feature_dim": 12, "num_genes": 37}
SMALL = SIZES | {"dim": 16, "heads": 4, "num_landmarks": 8, "head_hidden": 16}


def make(**changes):
    torch.manual_seed(0)
    return GiMP(GiMPConfig(**(SMALL | changes))).eval()


def patients(lengths=(1, 9, 30), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        "patches": torch.randn(sum(lengths), 12, generator=generator),
        "cu_seqlens": torch.tensor([0, *lengths]).cumsum(0).int(),
        "genes": torch.randn(len(lengths), 37, generator=generator),
    }


def only(batch, i):
    start, stop = batch["cu_seqlens"][i : i + 2].tolist()
    return {
        "patches": batch["patches"][start:stop],
        "cu_seqlens": torch.tensor([0, stop - start], dtype=torch.int32),
        "genes": batch["genes"][i : i + 1],
    }


def test_a_patient_is_the_same_alone_and_among_others():
    model, batch = make().double(), patients()
    batch = {k: v.double() if v.is_floating_point() else v for k, v in batch.items()}
    together = model.predict(**batch)
    assert together.shape == (3, 3)
    torch.testing.assert_close(together.sum(1), torch.ones(3))
    for i in range(3):
        torch.testing.assert_close(model.predict(**only(batch, i)), together[i : i + 1])


@pytest.mark.parametrize(("modalities", "width"), [("both", 32), ("slide", 16), ("rna", 16)])
def test_cls_pat_concatenates_the_modalities(modalities, width):
    model, batch = make(modalities=modalities), patients()
    cls = model.represent(**batch)
    assert cls.shape == (3, width)
    if_slides_change = model.represent(**(batch | {"patches": batch["patches"] + 1}))
    if_genes_change = model.represent(**(batch | {"genes": batch["genes"] + 1}))
    assert torch.equal(cls, if_slides_change) == (modalities == "rna")
    assert torch.equal(cls, if_genes_change) == (modalities == "slide")


def test_an_absent_modality_is_a_learned_token():
    model, batch = make(), patients(lengths=(9, 30))
    genes = torch.cat([batch["genes"], torch.full((1, 37), float("nan"))])
    has_slide = torch.tensor([True, False, True])
    has_genes = torch.tensor([True, True, False])
    cls = model.represent(
        batch["patches"], batch["cu_seqlens"], genes, has_slide=has_slide, has_genes=has_genes
    )
    assert cls.isfinite().all()
    assert torch.equal(cls[1, :16], model.absent_slide)
    assert torch.equal(cls[2, 16:], model.absent_genes)
    img, ge = cls[:, :16], cls[:, 16:]
    torch.testing.assert_close(img[0], model.represent(**only(batch, 0))[0, :16])
    torch.testing.assert_close(ge[1:2], model.gene_encoder(batch["genes"][1:2]))


def test_no_patient_may_have_any_slide():
    model = make()
    cls = model.represent(
        torch.empty(0, 12),
        torch.tensor([0]),
        torch.randn(2, 37),
        has_slide=torch.zeros(2, dtype=torch.bool),
    )
    assert torch.equal(cls[:, :16], model.absent_slide.expand(2, -1))


def windows(batch=4, length=20, seed=0):
    generator = torch.Generator().manual_seed(seed)
    masked = torch.rand(batch, length, generator=generator) < 0.5
    return torch.randn(batch, length, 12, generator=generator), masked


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_reconstruction_counts_the_masked_rows_only(reduction):
    model, (x, masked) = make(), windows()
    labels, genes = torch.tensor([0, 0, 1, 1]), torch.randn(4, 37)
    losses = model.pretrain_losses(x, masked, labels, genes, reduction=reduction)
    cls, tokens = model.aggregator(x, masked=masked)
    error = (model.decoder(tokens) - x).abs() * masked[..., None]
    expected = error.sum() / (1 if reduction == "sum" else 12 * masked.sum())
    torch.testing.assert_close(losses.reconstruction, expected, rtol=1e-4, atol=1e-5)
    patient = torch.cat([cls, model.gene_encoder(genes)], 1)
    torch.testing.assert_close(losses.triplet, triplet_loss(patient, labels), rtol=1e-4, atol=1e-5)


def test_pretraining_leaves_the_gene_encoder_alone():
    model, (x, masked) = make(), windows()
    losses = model.pretrain_losses(x, masked, torch.tensor([0, 0, 1, 1]), torch.randn(4, 37))
    (losses.reconstruction + losses.triplet).backward()
    assert all(p.grad is None for p in model.gene_encoder.parameters())
    for module in (model.aggregator, model.decoder):
        assert all(p.grad is not None for p in module.parameters())


def test_a_window_without_masked_rows_has_no_reconstruction_loss():
    model, (x, masked) = make(), windows()
    losses = model.pretrain_losses(
        x, torch.zeros_like(masked), torch.tensor([0, 0, 1, 1]), torch.randn(4, 37)
    )
    assert losses.reconstruction.item() == 0


@pytest.mark.parametrize("hidden", [0, 24], ids=["linear", "hidden"])
def test_gradients_of_the_reconstruction_are_those_of_decoding_every_row(hidden):
    model, (x, masked) = make(decoder_hidden=hidden).double(), windows()
    x = x.double()
    parameters = [*model.aggregator.parameters(), *model.decoder.parameters()]
    _, tokens = model.aggregator(x, masked=masked)
    error = (model.decoder(tokens) - x).abs() * masked[..., None]
    expected = torch.autograd.grad(error.sum() / (12 * masked.sum()), parameters)
    labels, genes = torch.tensor([0, 0, 1, 1]), torch.randn(4, 37, dtype=torch.float64)
    losses = model.pretrain_losses(x, masked, labels, genes)
    found = torch.autograd.grad(losses.reconstruction, parameters)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-12)


def test_pretrain_parts_are_what_the_losses_are_made_of():
    model, (x, masked) = make(), windows()
    labels, genes = torch.tensor([0, 0, 1, 1]), torch.randn(4, 37)
    has_genes = torch.tensor([True, False, True, True])
    reconstruction, cls_pat = model.pretrain_parts(x, masked, genes, has_genes=has_genes)
    losses = model.pretrain_losses(
        x, masked, labels, genes, has_genes=has_genes, reduction="sum", margin=0.5
    )
    assert torch.equal(reconstruction, losses.reconstruction)
    assert torch.equal(triplet_loss(cls_pat, labels, margin=0.5), losses.triplet)


def test_checkpointed_layers_train_bitwise_the_same():
    gradients = []
    for again in (False, True):
        model, (x, masked) = make(checkpoint_layers=again, dropout=0.3).train(), windows()
        assert model.aggregator.checkpoint_layers == again
        torch.manual_seed(1)
        losses = model.pretrain_losses(x, masked, torch.tensor([0, 0, 1, 1]), torch.randn(4, 37))
        (losses.reconstruction + losses.triplet).backward()
        gradients.append([p.grad for p in model.aggregator.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_a_compiled_pretraining_step_has_the_same_gradients():
    model, (x, masked) = make(), windows()
    labels, genes = torch.tensor([0, 0, 1, 1]), torch.randn(4, 37)

    def loss():
        losses = model.pretrain_losses(x, masked, labels, genes)
        return losses.reconstruction + losses.triplet

    parameters = [*model.aggregator.parameters(), *model.decoder.parameters()]
    expected = torch.autograd.grad(loss(), parameters)
    found = torch.autograd.grad(torch.compile(loss, backend="aot_eager")(), parameters)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_it_can_overfit_a_handful_of_patients():
    model, batch = make(num_classes=2, dropout=0.0, gene_dropout=0.0, head_dropout=0.0), patients()
    labels = torch.tensor([0, 1, 0])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(**batch), labels)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.01
    assert torch.equal(model.predict(**batch).argmax(1), labels)


@pytest.mark.parametrize(
    ("genes", "expected"), [(60_480, (64, 8)), (50, (5, 5)), (4, (1, 1)), (320, (32, 8))]
)
def test_automatic_gene_groups_follow_the_panel(genes, expected):
    assert GiMPConfig(**(SMALL | {"num_genes": genes})).resolved_gene_groups() == expected


def test_gene_sets_are_the_groups():
    sets = ((0, 5, 36), (5, 7), tuple(range(20, 35)))
    config = GiMPConfig(**(SMALL | {"gene_sets": sets}))
    assert config.resolved_gene_groups() == (2, 3)
    assert GiMPConfig.model_validate_json(config.model_dump_json()) == config
    model, batch = make(gene_sets=sets), patients()
    assert model.gene_encoder.num_groups == 3
    before = model.predict(**batch)
    batch["genes"][:, 36] += 1
    assert not torch.equal(model.predict(**batch), before)
    before = model.predict(**batch)
    batch["genes"][:, 1] += 1
    assert torch.equal(model.predict(**batch), before)
    rebuilt = GiMP(GiMPConfig(**config.model_dump(mode="json"))).eval()
    rebuilt.load_state_dict(model.state_dict())
    assert torch.equal(rebuilt.predict(**batch), before)


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ([[0], []], "gene set 1 is empty"),
        ([[0, 37]], "column 37 is not in 0 … 36"),
        ([], "gene_sets is empty"),
    ],
)
def test_bad_gene_sets_are_named(sets, message):
    with pytest.raises(ValueError, match=message):
        GiMPConfig(**(SMALL | {"gene_sets": sets}))


def test_without_gene_sets_the_configuration_is_as_before():
    config = GiMPConfig(**SMALL)
    assert config.gene_sets is None
    assert make().gene_encoder.gene_index is None


def test_build_by_name():
    assert "gimp" in models.available()
    assert isinstance(models.build("gimp", SMALL), GiMP)
    with pytest.raises(ValueError, match="unknown model 'gimpy'"):
        models.build("gimpy", SMALL)
    with pytest.raises(ValidationError, match="num_landmark"):
        models.build("gimp", SMALL | {"num_landmark": 8})
