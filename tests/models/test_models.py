"""Promises of every registered model, for every modality that it can be built for."""

from __future__ import annotations

import io

import pytest
import torch
from builders.models import CHANNELS, one_patient, patients

from gimp_fast import models
from gimp_fast.models.inputs import PatientInputs

GENES, LENGTHS = 40, (1, 9, 30, 4)
# Used where a model has the setting; all other settings are defaults.
SMALL = {
    "dim": 16,
    "heads": 4,
    "num_landmarks": 8,
    "attention_dim": 8,
    "query_dim": 8,
    "head_hidden": 16,
}
CASES = [
    pytest.param(name, modalities, id=f"{name}-{modalities}")
    for name in models.available()
    for modalities in models.model_class(name).reads
]
every_model = pytest.mark.parametrize(("name", "modalities"), CASES)


def make(name, modalities, num_outputs=3, seed=0):
    config_class = models.model_class(name).config_class
    fields = config_class.model_fields
    chosen = {field: value for field, value in SMALL.items() if field in fields}
    if "modalities" in fields:
        chosen["modalities"] = modalities
    torch.manual_seed(seed)
    sizes = {"num_outputs": num_outputs, "feature_dim": CHANNELS, "num_genes": GENES}
    return models.build(name, sizes | chosen).eval()


def labels_of(batch, num_outputs=3):
    return torch.arange(len(batch["genes"])) % num_outputs


@every_model
@pytest.mark.parametrize("num_outputs", [2, 5])
def test_a_patient_is_the_same_alone_and_in_a_batch(name, modalities, num_outputs):
    model = make(name, modalities, num_outputs).double()
    batch = patients(LENGTHS, GENES, torch.float64)
    labels = labels_of(batch, num_outputs)

    def results(batch, labels):
        inputs = PatientInputs.of(**batch)
        vectors = model.represent(inputs).vectors
        return vectors, model.predict(**batch), model.loss(labels, inputs).loss

    together = results(batch, labels)
    for i in range(len(labels)):
        single = results(one_patient(batch, i), labels[i : i + 1])
        for found, expected in zip(single, together, strict=True):
            torch.testing.assert_close(found, expected[i : i + 1])


@every_model
@pytest.mark.parametrize("num_outputs", [2, 5])
@pytest.mark.parametrize("lengths", [(1,), (1, 1, 1), (2, 3, 1, 17)], ids=str)
def test_shapes_and_sums_of_predictions_and_losses(name, modalities, num_outputs, lengths):
    model, batch = make(name, modalities, num_outputs), patients(lengths, GENES)
    predicted = model.predict(**batch)
    assert predicted.shape == (len(lengths), num_outputs)
    torch.testing.assert_close(predicted.sum(1), torch.ones(len(lengths)))
    logits = model(**batch)
    torch.testing.assert_close(model.classify(model.represent(PatientInputs.of(**batch))), logits)
    outcome = model.loss(labels_of(batch, num_outputs), PatientInputs.of(**batch))
    torch.testing.assert_close(outcome.logits, logits)
    assert outcome.loss.shape == (len(lengths),)
    assert outcome.loss.isfinite().all()
    assert (outcome.loss > 0).all()


@every_model
def test_finite_gradients_reach_everything_that_is_trained(name, modalities):
    model, batch = make(name, modalities).train(), patients((1, 9, 30, 4, 1, 12), GENES)
    present = {}
    if modalities == "both":
        batch["patches"], batch["cu_seqlens"] = batch["patches"][:-12], batch["cu_seqlens"][:-1]
        present["has_slide"] = torch.tensor([True] * 5 + [False])
        present["has_genes"] = torch.tensor([True, False] + [True] * 4)
    model.loss(labels_of(batch), PatientInputs.of(**batch, **present)).loss.mean().backward()
    trained = [
        (path, parameter)
        for module in model.finetuned_modules(freeze_genes=False)
        for path, parameter in module.named_parameters()
        # Only masked pre-training trains the first; the softmax over a bag cancels the second.
        if not path.endswith(("mask_token", "score.bias"))
    ]
    if modalities == "both":
        trained += [("absent token", token) for token in model.loose_parameters()]
    assert trained
    for path, parameter in trained:
        assert parameter.grad is not None, path
        assert parameter.grad.isfinite().all(), path
        assert parameter.grad.abs().sum() > 0, path


@every_model
def test_bags_of_one_row_have_finite_gradients(name, modalities):
    model, batch = make(name, modalities).train(), patients((1, 1), GENES)
    batch["patches"].requires_grad_(), batch["genes"].requires_grad_()
    model.loss(labels_of(batch), PatientInputs.of(**batch)).loss.sum().backward()
    gradients = [p.grad for p in model.parameters()] + [batch["patches"].grad, batch["genes"].grad]
    assert all(g.isfinite().all() for g in gradients if g is not None)


@every_model
def test_only_what_the_model_reads_changes_the_answer(name, modalities):
    model, batch = make(name, modalities), patients(LENGTHS, GENES)
    answer = model(**batch)
    other_slides = model(**(batch | {"patches": batch["patches"] + 1}))
    other_genes = model(**(batch | {"genes": batch["genes"] + 1}))
    assert torch.equal(answer, other_slides) == (modalities == "rna")
    assert torch.equal(answer, other_genes) == (modalities == "slide")


@every_model
def test_the_state_makes_another_the_same(name, modalities):
    model, other = make(name, modalities), make(name, modalities, seed=1)
    batch = patients(LENGTHS, GENES)
    assert not torch.equal(other(**batch), model(**batch))
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other(**batch), model(**batch))


@every_model
def test_evaluation_is_deterministic_and_labels_do_not_enter_predictions(name, modalities):
    model, batch = make(name, modalities), patients(LENGTHS, GENES)
    predicted = model.predict(**batch)
    model.loss(labels_of(batch), PatientInputs.of(**batch))
    assert torch.equal(model.predict(**batch), predicted)
    for label in range(3):
        assert torch.equal(
            model.loss(torch.full((4,), label), PatientInputs.of(**batch)).logits, model(**batch)
        )


@every_model
def test_bf16_autocast_trains(name, modalities):
    model, batch = make(name, modalities), patients(LENGTHS, GENES)
    full = model.predict(**batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        predicted = model.predict(**batch)
        outcome = model.loss(labels_of(batch), PatientInputs.of(**batch))
    assert predicted.dtype == outcome.logits.dtype == outcome.loss.dtype == torch.float32
    torch.testing.assert_close(predicted, full, atol=0.05, rtol=0)
    outcome.loss.mean().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


both = [case for case in CASES if case.values[1] == "both"]


@pytest.mark.parametrize(("name", "modalities"), both)
def test_what_a_patient_lacks_is_not_read_and_changes_no_other(name, modalities):
    model, batch = make(name, modalities).double(), patients((9, 30, 4, 1), GENES, torch.float64)
    complete = model.predict(**batch)
    genes = batch["genes"].clone()
    genes[2] = float("nan")
    keep = torch.arange(len(batch["patches"])) >= 9
    found = model.predict(
        patches=batch["patches"][keep],
        cu_seqlens=batch["cu_seqlens"][1:] - 9,
        genes=genes,
        has_slide=torch.tensor([False, True, True, True]),
        has_genes=torch.tensor([True, True, False, True]),
    )
    assert found.isfinite().all()
    torch.testing.assert_close(found[[1, 3]], complete[[1, 3]])
    assert not torch.allclose(found[[0, 2]], complete[[0, 2]])


@pytest.mark.parametrize(("name", "modalities"), both)
def test_a_batch_may_lack_a_modality_altogether(name, modalities):
    model, batch = make(name, modalities), patients((9, 4), GENES)
    nobody = torch.tensor([False, False])
    no_slides = {"patches": torch.empty(0, CHANNELS), "cu_seqlens": torch.zeros(1).int()}
    for lacking in (
        batch | no_slides | {"has_slide": nobody},
        batch | {"genes": torch.full((2, GENES), float("nan")), "has_genes": nobody},
    ):
        outcome = model.loss(torch.tensor([0, 1]), PatientInputs.of(**lacking))
        assert outcome.logits.isfinite().all()
        assert outcome.loss.shape == (2,)


def test_an_unknown_name_is_an_error():
    with pytest.raises(ValueError, match="expected one of mean_pool, abmil, dsmil"):
        models.build("abmill", {"num_outputs": 2})
