"""REFERS: fusion of views, contrast with a preferred direction, generated genes, written out."""

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
VIEWS = 3


def make(**changes):
    torch.manual_seed(0)
    return models.build("refers", SMALL | changes).eval().double()


def alone(rows):
    return rows


def test_it_wants_three_windows():
    assert models.model_class("refers").views == VIEWS
    assert models.model_class("mgca").views == models.model_class("biovil").views == 1


@pytest.mark.parametrize("gene_sets", [None, SETS], ids=["cut", "sets"])
def test_terms_equal_the_formulas(aligned_batch, gene_sets):
    model = make(gene_sets=gene_sets, generation_weight=2.0)
    windows, genes = aligned_batch(views=VIEWS)
    terms = model.alignment_terms(windows, genes, alone)
    assert list(terms) == ["contrast", "generation"]
    fused = []
    for patient in windows:
        cls = [model.aggregator(window[None])[0][0] for window in patient]
        part = model.view_scores
        scores = [part.score(torch.tanh(part.value(c))) for c in cls]
        weights = torch.cat(scores).softmax(0)
        fused.append(sum(w * c for w, c in zip(weights, cls, strict=True)))
    slide = model.project_slide(torch.stack(fused))
    rna = model.project_genes(model.gene_encoder(genes))
    contrast = info_nce_loss(slide, rna, 0.1, 0.75)
    torch.testing.assert_close(terms["contrast"], contrast)

    encoder = model.gene_encoder
    for i, z in enumerate(fused):
        errors = []
        for word, slot in enumerate(model.words.tolist()):
            told = model.generator.decoder(z + model.generator.queries[word])
            values, counted = encoder.cut(genes[i][None])[0, slot], encoder.gene_mask[slot].tolist()
            errors += [abs(t - v) for t, v, c in zip(told, values, counted, strict=True) if c]
        found = terms["generation"][i]
        torch.testing.assert_close(found, 2 * sum(errors) / len(errors))


def test_the_order_of_views_does_not_matter(aligned_batch):
    model, (windows, genes) = make(), aligned_batch(views=VIEWS)
    terms = model.alignment_terms(windows, genes, alone)
    turned = model.alignment_terms(windows[:, [2, 0, 1]], genes, alone)
    for name, term in terms.items():
        torch.testing.assert_close(turned[name], term)


def test_equal_views_are_one():
    model = make()
    cls = torch.randn(2, 1, 16).double()
    torch.testing.assert_close(model.fuse(cls.expand(-1, 3, -1)), cls[:, 0])


@pytest.mark.parametrize("length", [1, 9])
@pytest.mark.parametrize("num_genes", [1, 7])
def test_one_patient_alone(aligned_batch, length, num_genes):
    model = make(num_genes=num_genes, gene_fragments="auto", gene_groups="auto")
    terms = model.alignment_terms(*aligned_batch(1, VIEWS, length, num_genes), alone)
    assert terms["contrast"] == 0
    assert terms["generation"].shape == (1,)
    sum(term.mean() for term in terms.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_processes_add_up(aligned_batch, ranks_add_up):
    ranks_add_up(make(), *aligned_batch(5, VIEWS))


def test_everything_that_is_aligned_gets_a_gradient(aligned_batch, untrained_by_alignment):
    # The softmax over views cancels the bias of their scores; masked patches are GiMP's.
    untrained = untrained_by_alignment(make(), *aligned_batch(6, VIEWS))
    assert untrained - {"view_scores.score.bias"} == {"aggregator.mask_token"}


def test_each_objective_is_learned(aligned_batch, aligning_losses):
    windows, genes = aligned_batch(8, VIEWS)
    history = aligning_losses(make().float(), windows.float(), genes.float(), 80, lr=1e-2)
    assert history[-1]["contrast"] < 0.1 * history[0]["contrast"]
    assert history[-1]["generation"] < 0.6 * history[0]["generation"]


def test_bf16_steps_are_finite(aligned_batch):
    model = make().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = model.alignment_terms(*(x.float() for x in aligned_batch(views=VIEWS)), alone)
    assert all(term.dtype == torch.float32 for term in terms.values())
    sum(term.mean() for term in terms.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
