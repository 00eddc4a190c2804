"""REFERS: fusion of views, contrast with a preferred direction, generated genes, written out."""

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

from gimp_fast import models
from gimp_fast.losses import info_nce_loss

VIEWS = 3
make = partial(aligned_model, "refers")


def test_it_wants_three_windows():
    assert models.model_class("refers").views == VIEWS
    assert models.model_class("mgca").views == models.model_class("biovil").views == 1


@pytest.mark.parametrize("gene_sets", [None, GENE_SETS], ids=["cut", "sets"])
def test_terms_equal_the_formulas(gene_sets):
    model = make(gene_sets=gene_sets, generation_weight=2.0)
    windows, genes = windows_and_genes(views=VIEWS)
    terms = model.alignment_terms(windows, genes, one_process)
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
            predicted = model.generator.decoder(z + model.generator.queries[word])
            values, counted = encoder.cut(genes[i][None])[0, slot], encoder.gene_mask[slot].tolist()
            errors += [abs(t - v) for t, v, c in zip(predicted, values, counted, strict=True) if c]
        torch.testing.assert_close(terms["generation"][i], 2 * sum(errors) / len(errors))


def test_the_order_of_views_does_not_matter():
    model, (windows, genes) = make(), windows_and_genes(views=VIEWS)
    terms = model.alignment_terms(windows, genes, one_process)
    turned = model.alignment_terms(windows[:, [2, 0, 1]], genes, one_process)
    for name, term in terms.items():
        torch.testing.assert_close(turned[name], term)


def test_equal_views_are_one():
    model = make()
    cls = torch.randn(2, 1, 16).double()
    torch.testing.assert_close(model.view_scores.pool(cls.expand(-1, 3, -1)), cls[:, 0])


def test_each_objective_is_learned():
    history = losses_of_aligning(make(), *windows_and_genes(8, VIEWS), 80, lr=1e-2)
    assert history[-1]["contrast"] < 0.1 * history[0]["contrast"]
    assert history[-1]["generation"] < 0.6 * history[0]["generation"]
