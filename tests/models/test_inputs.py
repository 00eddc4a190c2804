"""The inputs of models: who has which modality, packed bags, and inputs that do not fit."""

from __future__ import annotations

import pytest
import torch

from gimp_fast.models.inputs import PatientInputs, Presence, map_tensors


def test_presence_is_known_as_flags_mask_and_index():
    presence = Presence.of([True, False, True])
    assert (len(presence), presence.count, presence.everybody) == (3, 2, False)
    assert presence.mask.tolist() == [True, False, True]
    assert presence.index.tolist() == [0, 2]
    assert presence.rows_of(torch.arange(3)).tolist() == [0, 2]


@pytest.mark.parametrize("flags", [[True, False, True], [True] * 3, [False] * 3], ids=str)
def test_absent_rows_are_the_token_and_only_it_gets_their_gradient(flags):
    presence = Presence.of(flags)
    token = torch.zeros(2, requires_grad=True)
    rows = torch.arange(2.0 * presence.count).reshape(-1, 2).add(1).requires_grad_()
    filled = presence.fill(rows if presence.count else None, token)
    assert filled.shape == (3, 2)
    assert torch.equal(filled[presence.mask], rows)
    assert (filled[~presence.mask] == 0).all()
    filled.sum().backward()
    assert token.grad.tolist() == [3 - presence.count] * 2
    assert rows.grad is None or (rows.grad == 1).all()


def test_without_flags_everybody_has_the_modalities_of_the_batch():
    patches, genes = torch.randn(5, 3), torch.randn(2, 4)
    inputs = PatientInputs.of(patches, torch.tensor([0, 2, 5]), genes)
    assert inputs.slide.flags == inputs.rna.flags == (True, True)
    assert inputs.present_genes is genes
    genes_only = PatientInputs.of(genes=genes)
    assert (genes_only.slide.flags, genes_only.has_bags) == ((False, False), False)
    single = PatientInputs.of(patches)
    assert (single.bags.bounds, single.rna.flags, single.present_genes) == ((0, 5), (False,), None)


def test_patients_may_lack_either():
    inputs = PatientInputs.of(
        torch.randn(5, 3), torch.tensor([0, 5]), torch.randn(2, 4),
        has_slide=[False, True], has_genes=torch.tensor([True, False]),
    )  # fmt: skip
    assert len(inputs) == 2
    assert inputs.has_bags
    assert inputs.present_genes.shape == (1, 4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "neither patches nor genes"),
        ({"patches": torch.ones(3, 2), "genes": torch.ones(2, 2)}, "1 bags for 2 patients"),
        ({"genes": torch.ones(2, 2), "has_genes": [True]}, "genes of 2 patients; expected 1"),
        ({"patches": torch.ones(3, 2), "cu_seqlens": torch.tensor([0, 2])}, "must rise"),
    ],
    ids=["nothing", "bags", "flags", "bounds"],
)
def test_what_does_not_fit_is_named(fields, message):
    with pytest.raises(ValueError, match=message):
        PatientInputs.of(**fields)


def test_every_tensor_moves_and_patches_become_fp32():
    inputs = PatientInputs.of(
        torch.ones(3, 2, dtype=torch.float16), torch.tensor([0, 3]), torch.ones(1, 2)
    )
    tensors = []
    map_tensors(inputs, lambda tensor: tensors.append(tensor) or tensor)
    assert len(tensors) == 7  # patches, bounds, genes, and a mask and an index for either modality
    assert inputs.to(torch.device("cpu")).patches.dtype == torch.float32
