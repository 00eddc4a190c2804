"""Weights of patches and genes for every method, against what they are defined to be."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from builders.checkpoints import facts_of

from gimp_fast import models
from gimp_fast.errors import GimpError
from gimp_fast.heatmaps.attribution import attribute, describe
from gimp_fast.heatmaps.faithfulness.patient import check_patient
from gimp_fast.heatmaps.gene_maps import fragment_table, gene_table
from gimp_fast.heatmaps.options import ATTRIBUTIONS
from gimp_fast.inference import TrainedModel
from gimp_fast.models import PatientInputs
from gimp_fast.nn import attention_rollout, cls_attention

C, G, N = 8, 30, 40
SMALL = {"dim": 16, "heads": 2, "num_landmarks": 8, "gene_fragments": 8, "gene_groups": 3}
IN_FRAGMENTS = ("gimp", "mgca", "biovil", "refers")  # how they read genes
METHODS = [
    pytest.param(name, modalities, id=f"{name}-{modalities}")
    for name in models.available()
    for modalities in models.model_class(name).reads
]


def untrained(method: str, modalities: str = "slide", **settings) -> TrainedModel:
    torch.manual_seed(0)
    kind = models.model_class(method)
    sizes = {"num_outputs": 3, "feature_dim": C, "num_genes": G, "modalities": modalities}
    fields = kind.config_class.model_fields
    config = {k: v for k, v in (sizes | SMALL | settings).items() if k in fields}
    model = models.build(method, config).eval()
    ids = [f"G{number}" for number in range(G)]
    sets = {f"set {i}": list(genes) for i, genes in enumerate(settings.get("gene_sets", ()))}
    facts = facts_of(method, model, "ABC", ids, sets)
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {"scaler.mean": torch.zeros(G), "scaler.std": torch.ones(G)}
    return TrainedModel(tensors, facts, Path("untrained"))


def patient(trained: TrainedModel) -> PatientInputs:
    torch.manual_seed(1)
    patches = torch.randn(N, C) if trained.uses_slides else None
    genes = torch.randn(1, G) if trained.uses_genes else None
    return PatientInputs.of(patches, genes=genes)


def accepted(trained: TrainedModel) -> dict[str, str]:
    """Attributions that the model has, and what they are."""
    found = {}
    for how in ATTRIBUTIONS:
        with contextlib.suppress(GimpError):
            found[how] = describe(trained, how)
    return found


@pytest.mark.parametrize(("method", "modalities"), METHODS)
def test_every_method_has_weights_of_all_that_it_reads(method, modalities):
    trained = untrained(method, modalities)
    inputs = patient(trained)
    expected = trained.outputs(inputs).predictions
    hows = accepted(trained)
    assert "gradient" in hows
    for how, what in hows.items():
        found = attribute(trained, inputs, how)
        np.testing.assert_allclose(found.predictions, expected[0], rtol=1e-5)
        shapes = [None if x is None else x.shape for x in (found.patches, found.gene_gradients)]
        assert shapes == [
            (N,) if trained.uses_slides else None,
            (G,) if trained.uses_genes else None,
        ]
        total = 0.0 if found.patches is None else found.patches.sum()
        assert np.isfinite(total)
        assert what != "attention pooling" or total == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(("method", "modalities"), METHODS)
def test_every_method_can_be_checked(method, modalities):
    trained = untrained(method, modalities)
    inputs = patient(trained)
    expected = trained.outputs(inputs).predictions[0]
    kinds = {"patches": (trained.uses_slides, N), "genes": (trained.uses_genes, G)}
    for how in accepted(trained):
        found = {one.kind: one for one in check_patient(trained, "P", inputs, how, 2)}
        assert {k: one.size for k, one in found.items()} == {
            kind: size for kind, (is_read, size) in kinds.items() if is_read
        }
        for kind, one in found.items():
            assert one.full == pytest.approx(expected.max(), rel=1e-5)
            names = set(one.curves)
            has_attention = how != "gradient" if kind == "patches" else method in IN_FRAGMENTS
            assert names == {"gradient", "random", *(["attention"] if has_attention else [])}
            assert all(np.isfinite(one.areas(name, "deletion")).all() for name in names)


@pytest.mark.parametrize("how", ["rollout", "attention-of-last-layer"])
def test_a_method_without_attention_says_so(how):
    trained = untrained("mean_pool")
    with pytest.raises(GimpError, match=f"{how}: the method 'mean_pool' has no attention"):
        attribute(trained, patient(trained), how)


@pytest.mark.parametrize("give_up", [False, True])
def test_gimp_gives_what_its_aggregator_attends_to(give_up):
    trained = untrained("gimp", "both")
    inputs, model = patient(trained), trained.model
    patches = inputs.patches.clone()
    found = attribute(trained, inputs, "rollout", give_up_patches=give_up)
    assert len(inputs.patches) == (0 if give_up else N)
    expected = attention_rollout(model.aggregator, patches[None])[0]
    np.testing.assert_allclose(found.patches, expected, rtol=1e-4, atol=1e-7)
    inputs = replace(inputs, patches=patches)
    last = attribute(trained, inputs, "attention-of-last-layer")
    expected = cls_attention(model.aggregator, patches[None])[0].mean(0)
    np.testing.assert_allclose(last.patches, expected, rtol=1e-4, atol=1e-7)
    assert not model.aggregator.layers[0]._forward_pre_hooks


def test_patches_that_transmil_repeats_get_the_weight_of_all_their_copies():
    trained = untrained("transmil", num_landmarks=64)  # exact attention: rows sum to one
    inputs = patient(trained)
    found = attribute(trained, inputs, "attention-of-last-layer")
    seen = []
    layer = trained.model.layers[-1]
    layer.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    trained.outputs(inputs)
    q, k, _ = layer.to_qkv(seen[0]).unflatten(-1, (3, 2, 8)).permute(2, 0, 3, 1, 4)
    row = (q[0, :, :1] @ k[0].mT * 8**-0.5).softmax(-1).mean(0)[0]  # (1 + 49,)
    expected = row[1 : N + 1].clone()
    expected[:9] += row[N + 1 :]
    np.testing.assert_allclose(found.patches, expected.detach(), rtol=1e-4)
    assert found.patches.sum() + row[0].item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("method", ["abmil", "mean_pool", "gimp"])
def test_gradient_times_input_is_the_slope_of_the_contrast(method):
    trained = untrained(method)
    inputs = patient(trained)
    found = attribute(trained, inputs, "gradient")
    chosen, row, step = int(found.predictions.argmax()), 7, 1e-2

    def contrast(scale: float) -> float:
        moved = inputs.patches.double().clone()
        moved[row] *= scale
        logits = trained.model.double()(replace(inputs, patches=moved))[0]
        trained.model.float()
        return float(logits[chosen] - (logits.sum() - logits[chosen]) / 2)

    slope = (contrast(1 + step) - contrast(1 - step)) / (2 * step)
    assert found.patches[row] == pytest.approx(slope, rel=1e-2, abs=1e-6)


def test_genes_gradients_add_up_to_the_contrast_of_a_linear_model():
    """For z = W x, Σ gradient × input is the contrast of the logits itself."""
    trained = untrained("mean_pool")
    inputs = patient(trained)
    found = attribute(trained, inputs, "gradient")
    with torch.no_grad():
        logits = trained.model(inputs)[0] - trained.model.head.bias
    chosen = int(found.predictions.argmax())
    contrast = logits[chosen] - (logits.sum() - logits[chosen]) / 2
    assert found.patches.sum() == pytest.approx(contrast.item(), rel=1e-4)


@pytest.mark.parametrize(
    "gene_sets", [None, [[0, 3, 5, 9, 11], [7], [3, 8, 29]]], ids=["cut", "sets"]
)
def test_genes_stand_in_the_fragments_that_read_them(gene_sets):
    settings = {} if gene_sets is None else {"gene_sets": gene_sets}
    trained = untrained("gimp", "rna", **settings)
    inputs = patient(trained)
    found = attribute(trained, inputs)
    symbols = [""] * G
    fragments = fragment_table(trained, found, symbols)
    genes = gene_table(trained, found, inputs.genes[0].numpy(), fragments, symbols)
    held = [gene for row in fragments["genes"] for gene in row]
    assert sorted(held) == (
        list(range(G)) if gene_sets is None else sorted(g for s in gene_sets for g in s)
    )
    assert set(genes["gene_id"]) == {f"G{number}" for number in range(G)}
    weight_of = dict(zip(fragments["fragment"], fragments["fragment_attention"], strict=True))
    placed = genes.dropna(subset=["fragment"])
    assert len(placed) == len(held)
    np.testing.assert_allclose(
        placed["fragment_attention"].astype(float), placed["fragment"].map(weight_of).astype(float)
    )
    if gene_sets is not None:
        assert set(fragments["group"]) == {"set 0", "set 1", "set 2"}
        assert placed[placed["gene_id"] == "G3"]["group"].nunique() == 2
        unread = genes[pd.isna(genes["fragment"])]
        assert (unread["gradient_input"] == 0).all()
