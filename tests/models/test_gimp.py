"""GiMP: modalities present and absent, packed patients, pre-training losses, one tiny overfit."""

from __future__ import annotations

import pytest
import torch
from builders.models import CHANNELS, one_patient, patients

from gimp_fast import models
from gimp_fast.losses import triplet_loss
from gimp_fast.models import GiMP, GiMPConfig
from gimp_fast.models.inputs import PatientInputs, Presence
from gimp_fast.validation import FieldsError

GENES, LENGTHS = 37, (1, 9, 30)
SMALL = {"num_outputs": 3, "feature_dim": CHANNELS, "num_genes": GENES, "dim": 16, "heads": 4,
         "num_landmarks": 8, "head_hidden": 16}  # fmt: skip


def make(**changes):
    torch.manual_seed(0)
    return GiMP(GiMPConfig(**(SMALL | changes))).eval()


@pytest.mark.parametrize(("modalities", "width"), [("both", 32), ("slide", 16), ("rna", 16)])
def test_cls_pat_concatenates_the_modalities(modalities, width):
    model, batch = make(modalities=modalities), patients(LENGTHS, GENES)
    cls = model.represent(PatientInputs.of(**batch)).vectors
    assert cls.shape == (3, width)
    for name, unread in (("patches", "rna"), ("genes", "slide")):
        changed = PatientInputs.of(**(batch | {name: batch[name] + 1}))
        assert torch.equal(cls, model.represent(changed).vectors) == (modalities == unread)


def test_an_absent_modality_is_a_learned_token():
    model, batch = make(), patients((9, 30), GENES)
    genes = torch.cat([batch["genes"], torch.full((1, 37), float("nan"))])
    has_slide = torch.tensor([True, False, True])
    has_genes = torch.tensor([True, True, False])
    inputs = PatientInputs.of(
        batch["patches"], batch["cu_seqlens"], genes, has_slide=has_slide, has_genes=has_genes
    )
    represented = model.represent(inputs)
    assert represented.slide.flags == (True, False, True)
    assert represented.rna.flags == (True, True, False)
    cls = represented.vectors
    assert cls.isfinite().all()
    assert torch.equal(cls[1, :16], model.absent_slide)
    assert torch.equal(cls[2, 16:], model.absent_genes)
    img, ge = cls[:, :16], cls[:, 16:]
    single = model.represent(PatientInputs.of(**one_patient(batch, 0)))
    torch.testing.assert_close(img[0], single.vectors[0, :16])
    torch.testing.assert_close(ge[1:2], model.gene_encoder(batch["genes"][1:2]))


def test_no_patient_may_have_any_slide():
    model = make()
    inputs = PatientInputs.of(
        torch.empty(0, 12), torch.tensor([0]), torch.randn(2, 37), has_slide=[False, False]
    )
    cls = model.represent(inputs).vectors
    assert torch.equal(cls[:, :16], model.absent_slide.expand(2, -1))


def windows(batch=4, length=20, seed=0):
    generator = torch.Generator().manual_seed(seed)
    masked = torch.rand(batch, length, generator=generator) < 0.5
    return torch.randn(batch, length, 12, generator=generator), masked


LABELS = torch.tensor([0, 0, 1, 1])


def pretraining_loss(model, x, masked, genes):
    """Mean reconstruction plus triplets, as the stage adds them."""
    reconstruction, cls_pat = model.pretrain_parts(x, masked, genes)
    return reconstruction / (masked.sum() * x.shape[-1]) + triplet_loss(cls_pat, LABELS)


def test_reconstruction_counts_the_masked_rows_only():
    model, (x, masked) = make(), windows()
    genes = torch.randn(4, 37)
    reconstruction, cls_pat = model.pretrain_parts(x, masked, genes)
    cls, tokens = model.aggregator(x, masked=masked)
    expected = ((model.decoder(tokens) - x).abs() * masked[..., None]).sum()
    torch.testing.assert_close(reconstruction, expected, rtol=1e-4, atol=1e-5)
    patient = torch.cat([cls, model.gene_encoder(genes)], 1)
    torch.testing.assert_close(cls_pat, patient, rtol=1e-4, atol=1e-5)


def test_windows_of_patients_without_rna_have_the_token():
    model, (x, masked) = make(), windows()
    genes = torch.randn(4, 37)
    everybody = model.pretrain_parts(x, masked, genes)[1]
    genes[1] = float("nan")
    rna = Presence.of([True, False, True, True])
    cls_pat = model.pretrain_parts(x, masked, genes, rna)[1]
    assert torch.equal(cls_pat[1, 16:], model.absent_genes)
    torch.testing.assert_close(cls_pat[[0, 2, 3]], everybody[[0, 2, 3]])


def test_pretraining_does_not_train_the_gene_encoder():
    model, (x, masked) = make(), windows()
    pretraining_loss(model, x, masked, torch.randn(4, 37)).backward()
    assert all(p.grad is None for p in model.gene_encoder.parameters())
    for module in (model.aggregator, model.decoder):
        assert all(p.grad is not None for p in module.parameters())


def test_a_window_without_masked_rows_has_no_reconstruction_loss():
    model, (x, masked) = make(), windows()
    parts = model.pretrain_parts(x, torch.zeros_like(masked), torch.randn(4, 37))
    assert parts[0].item() == 0


@pytest.mark.parametrize("hidden", [0, 24], ids=["linear", "hidden"])
def test_gradients_of_the_reconstruction_are_those_of_decoding_every_row(hidden):
    model, (x, masked) = make(decoder_hidden=hidden).double(), windows()
    x = x.double()
    parameters = [*model.aggregator.parameters(), *model.decoder.parameters()]
    _, tokens = model.aggregator(x, masked=masked)
    error = (model.decoder(tokens) - x).abs() * masked[..., None]
    expected = torch.autograd.grad(error.sum(), parameters)
    reconstruction, _ = model.pretrain_parts(x, masked, torch.randn(4, 37, dtype=torch.float64))
    found = torch.autograd.grad(reconstruction, parameters)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-12)


def test_checkpointed_layers_train_bitwise_the_same():
    gradients = []
    for recompute in (False, True):
        model, (x, masked) = make(checkpoint_layers=recompute, dropout=0.3).train(), windows()
        assert model.aggregator.checkpoint_layers == recompute
        torch.manual_seed(1)
        pretraining_loss(model, x, masked, torch.randn(4, 37)).backward()
        gradients.append([p.grad for p in model.aggregator.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_a_compiled_pretraining_step_has_the_same_gradients():
    model, (x, masked) = make(), windows()
    genes = torch.randn(4, 37)

    def loss():
        return pretraining_loss(model, x, masked, genes)

    parameters = [*model.aggregator.parameters(), *model.decoder.parameters()]
    expected = torch.autograd.grad(loss(), parameters)
    found = torch.autograd.grad(torch.compile(loss, backend="aot_eager")(), parameters)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_it_can_overfit_a_handful_of_patients():
    model = make(num_outputs=2, dropout=0.0, gene_dropout=0.0, head_dropout=0.0)
    batch = patients(LENGTHS, GENES)
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
    model, batch = make(gene_sets=sets), patients(LENGTHS, GENES)
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
    with pytest.raises(FieldsError, match="num_landmark"):
        models.build("gimp", SMALL | {"num_landmark": 8})
