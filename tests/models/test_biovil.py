"""BioViL: contrast and masked gene fragments, written out."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from builders.alignment import (
    GENE_SETS,
    aligned_model,
    losses_of_aligning,
    one_process,
    windows_and_genes,
)

from gimp_fast.losses import info_nce_loss

make = partial(aligned_model, "biovil")
sets_or_not = pytest.mark.parametrize("gene_sets", [None, GENE_SETS], ids=["cut", "sets"])


@sets_or_not
def test_terms_equal_the_formulas(gene_sets):
    model = make(gene_sets=gene_sets, mask_ratio=0.4, reconstruction_weight=2.0)
    windows, genes = windows_and_genes()
    torch.manual_seed(5)
    terms = model.alignment_terms(windows, genes, one_process)
    assert list(terms) == ["contrast", "reconstruction"]
    cls_img, cls_ge = model.aggregator(windows[:, 0])[0], model.gene_encoder(genes)
    contrast = info_nce_loss(model.project_slide(cls_img), model.project_genes(cls_ge), 0.07)
    torch.testing.assert_close(terms["contrast"], contrast)

    torch.manual_seed(5)
    chosen = model._choose(4)
    encoder, part = model.gene_encoder, model.masked_genes
    for i in range(4):
        slots = model.words[chosen[i]].tolist()
        masked = torch.tensor([[slot in slots for slot in range(len(encoder.gene_mask))]])
        hidden = genes[i].clone()
        _, fragments = encoder.encode(hidden[None], masked=masked, mask_token=part.mask_token)
        errors = []
        for slot in slots:
            values = encoder.cut(genes[i][None])[0, slot]
            predicted = part.decoder(fragments[0, slot])
            counted = encoder.gene_mask[slot].tolist()
            errors += [abs(t - v) for t, v, c in zip(predicted, values, counted, strict=True) if c]
        torch.testing.assert_close(terms["reconstruction"][i], 2 * sum(errors) / len(errors))


@pytest.mark.parametrize(("ratio", "expected"), [(0.15, 1), (0.4, 2), (1.0, 5)])
def test_the_ratio_of_fragments_is_masked_and_drawn_for_each_patient(ratio, expected):
    model = make(mask_ratio=ratio)
    torch.manual_seed(0)
    chosen = model._choose(200)
    assert chosen.shape == (200, expected)
    assert all(len(set(row)) == expected for row in chosen.tolist())
    share = torch.bincount(chosen.flatten(), minlength=5) / 200
    torch.testing.assert_close(share, torch.full((5,), expected / 5), atol=0.1, rtol=0)


@sets_or_not
def test_padded_slots_are_never_masked(gene_sets):
    model = make(gene_sets=gene_sets)
    slots = model.words[model._choose(50)]
    assert model.gene_encoder.gene_mask.any(1)[slots].all()


def test_the_reconstruction_does_not_see_what_it_is_asked_for():
    """Changing the masked fragment changes the error, but not the prediction."""
    model = make(gene_fragments=23, gene_groups=1)  # a gene a fragment
    _, genes = windows_and_genes(1)
    chosen = torch.tensor([[3]])
    moved = genes.clone()
    moved[0, 3] += 100.0
    before, after = model._fill_in(genes, chosen), model._fill_in(moved, chosen)
    assert (after - before).abs().item() == pytest.approx(100.0, abs=2 * before.item() + 1e-6)
    moved = genes.clone()
    moved[0, 4] += 1.0
    assert not torch.allclose(model._fill_in(moved, chosen), before)


def test_each_objective_is_learned():
    torch.manual_seed(0)
    history = losses_of_aligning(make(), *windows_and_genes(8), 250)
    assert history[-1]["contrast"] < 0.1 * history[0]["contrast"]
    late = sum(step["reconstruction"] for step in history[-20:]) / 20
    early = sum(step["reconstruction"] for step in history[:10]) / 10
    assert late < 0.6 * early


def test_the_mask_draws_from_the_one_seed():
    model, batch = make(), windows_and_genes()
    errors = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        errors.append(model.alignment_terms(*batch, one_process)["reconstruction"])
    assert torch.equal(errors[0], errors[1])
    assert not torch.equal(errors[0], errors[2])
