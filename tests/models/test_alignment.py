"""Promises of all models that are pre-trained by alignment: MGCA, BioViL, REFERS."""

from __future__ import annotations

import pytest
import torch
from builders.alignment import (
    aligned_model,
    check_processes_add_up,
    finite_gradients,
    one_process,
    untrained_by_alignment,
    windows_and_genes,
)

from gimp_fast.validation import FieldsError

# Terms that contrast patients, and terms of each patient.
TERMS = {
    "mgca": ({"contrast", "prototypes"}, {"tokens"}),
    "biovil": ({"contrast"}, {"reconstruction"}),
    "refers": ({"contrast"}, {"generation"}),
}
every_model = pytest.mark.parametrize("name", TERMS)


@every_model
@pytest.mark.parametrize("length", [1, 9])
@pytest.mark.parametrize("num_genes", [1, 7])
def test_a_single_patient_has_nothing_to_be_contrasted_with(name, length, num_genes):
    model = aligned_model(name, num_genes=num_genes, gene_fragments="auto", gene_groups="auto")
    windows, genes = windows_and_genes(1, model.views, length, num_genes)
    terms = model.alignment_terms(windows, genes, one_process)
    of_all, of_each = TERMS[name]
    assert terms.keys() == of_all | of_each
    assert all(terms[term] == 0 for term in of_all)
    assert all(terms[term].shape == (1,) for term in of_each)
    assert finite_gradients(model, terms)


@every_model
def test_processes_add_up(name, monkeypatch):
    model = aligned_model(name)
    if name == "biovil":  # each process would draw other masks
        monkeypatch.setattr(model, "_choose", lambda patients: torch.ones(patients, 1).long())
    check_processes_add_up(model, *windows_and_genes(5, model.views))


@every_model
def test_everything_that_is_aligned_gets_a_gradient(name):
    model = aligned_model(name)
    untrained = untrained_by_alignment(model, *windows_and_genes(7, model.views))
    # The softmax over views cancels the bias of their scores; only GiMP has masked patches.
    assert untrained - {"view_scores.score.bias"} == {"aggregator.mask_token"}
    assert model.decoder is None


@every_model
def test_bf16_steps_are_near_fp32_and_have_finite_gradients(name):
    model = aligned_model(name).float()
    windows, genes = (x.float() for x in windows_and_genes(views=model.views))
    torch.manual_seed(0)
    full = model.alignment_terms(windows, genes, one_process)
    torch.manual_seed(0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = model.alignment_terms(windows, genes, one_process)
    for term, value in terms.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, full[term], rtol=0.05, atol=0.05)
    assert finite_gradients(model, terms)


def test_settings_that_cannot_be_aligned_are_refused():
    with pytest.raises(FieldsError, match="slides are aligned with its gene fragments"):
        aligned_model("mgca", gene_encoder="snn")
    with pytest.raises(ValueError, match="modalities is 'slide'; expected 'both'"):
        aligned_model("mgca", modalities="slide")
