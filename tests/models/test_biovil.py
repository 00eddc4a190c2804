"""BioViL: contrast and masked gene fragments, written out."""

from __future__ import annotations

import pytest
import torch

from gimp_fast import models
from gimp_fast.losses import info_nce_loss

SIZES = {"num_classes": 2, "feature_dim": 12, "num_genes": 23}
SMALL = SIZES | {"dim": 16, "heads": 4, "num_landmarks": 8, "head_hidden": 8, "projection_dim": 6,
                 "gene_fragments": 5, "gene_groups": 2, "dropout": 0.0,
                 "gene_dropout": 0.0}  # fmt: skip
SETS = ((0, 3, 4, 7, 9), (3, 1), (8,))
sets_or_not = pytest.mark.parametrize("gene_sets", [None, SETS], ids=["cut", "sets"])


def make(**changes):
    torch.manual_seed(0)
    return models.build("biovil", SMALL | changes).eval().double()


def alone(rows):
    return rows


@sets_or_not
def test_terms_equal_the_formulas(aligned_batch, gene_sets):
    model = make(gene_sets=gene_sets, mask_ratio=0.4, reconstruction_weight=2.0)
    windows, genes = aligned_batch()
    torch.manual_seed(5)
    terms = model.alignment_terms(windows, genes, alone)
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
            told = part.decoder(fragments[0, slot])
            counted = encoder.gene_mask[slot].tolist()
            errors += [abs(t - v) for t, v, c in zip(told, values, counted, strict=True) if c]
        torch.testing.assert_close(terms["reconstruction"][i], 2 * sum(errors) / len(errors))


@pytest.mark.parametrize(("ratio", "expected"), [(0.15, 1), (0.4, 2), (1.0, 5)])
def test_so_many_fragments_are_masked_other_ones_for_each_patient(ratio, expected):
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


def test_the_reconstruction_does_not_see_what_it_is_asked_for(aligned_batch, monkeypatch):
    """Other values of the masked fragment: the prediction stays, and the error moves with them."""
    model = make(gene_fragments=23, gene_groups=1)  # a gene a fragment
    _, genes = aligned_batch(1)
    chosen = torch.tensor([[3]])
    moved = genes.clone()
    moved[0, 3] += 100.0
    before, after = model._fill_in(genes, chosen), model._fill_in(moved, chosen)
    assert (after - before).abs().item() == pytest.approx(100.0, abs=2 * before.item() + 1e-6)
    moved = genes.clone()
    moved[0, 4] += 1.0
    assert not torch.allclose(model._fill_in(moved, chosen), before)


@pytest.mark.parametrize("length", [1, 9])
@pytest.mark.parametrize("num_genes", [1, 7])
def test_one_patient_alone(aligned_batch, length, num_genes):
    model = make(num_genes=num_genes, gene_fragments="auto", gene_groups="auto")
    terms = model.alignment_terms(*aligned_batch(1, 1, length, num_genes), alone)
    assert terms["contrast"] == 0
    assert terms["reconstruction"].shape == (1,)
    sum(term.mean() for term in terms.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_processes_add_up(aligned_batch, ranks_add_up, monkeypatch):
    model = make()
    monkeypatch.setattr(model, "_choose", lambda patients: torch.ones(patients, 1).long())
    ranks_add_up(model, *aligned_batch(5))


def test_everything_that_is_aligned_gets_a_gradient(aligned_batch, untrained_by_alignment):
    assert untrained_by_alignment(make(), *aligned_batch(6)) == {"aggregator.mask_token"}


def test_each_objective_is_learned(aligned_batch, aligning_losses):
    torch.manual_seed(0)
    windows, genes = aligned_batch(8)
    history = aligning_losses(make().float(), windows.float(), genes.float(), 250)
    assert history[-1]["contrast"] < 0.1 * history[0]["contrast"]
    late = sum(step["reconstruction"] for step in history[-20:]) / 20
    early = sum(step["reconstruction"] for step in history[:10]) / 10
    assert late < 0.6 * early


def test_the_mask_draws_from_the_one_seed(aligned_batch):
    model, batch = make(), aligned_batch()
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(model.alignment_terms(*batch, alone)["reconstruction"])
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_bf16_steps_are_finite(aligned_batch):
    model = make().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = model.alignment_terms(*(x.float() for x in aligned_batch()), alone)
    assert all(term.dtype == torch.float32 for term in terms.values())
    sum(term.mean() for term in terms.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
