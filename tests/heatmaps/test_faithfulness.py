"""Curves, areas and verdicts, of models of which it is known what they depend on."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from gimp_fast.errors import GimpError
from gimp_fast.heatmaps.faithfulness import perturbed
from gimp_fast.heatmaps.faithfulness.curves import Curve, order_of, steps
from gimp_fast.heatmaps.faithfulness.patient import PatientCurves, check_patient
from gimp_fast.heatmaps.faithfulness.perturbed import WithoutGenes, WithoutPatches
from gimp_fast.heatmaps.faithfulness.summary import summarised
from gimp_fast.heatmaps.options import GRADIENT, ROLLOUT
from gimp_fast.models import PatientInputs, PatientModel
from gimp_fast.models.settings import ModelSettings
from gimp_fast.targets.regression import Regression

C, G, DRAWS = 3, 5, 6


class Planted(PatientModel):
    """Reads channel 1 of patches whose channel 0 is high, and genes 0 and 3, or 0 and 1 of two.

    ``seen`` says what its attention shows of the patches' true weights (T,).
    """

    title = "Planted"
    settings_class, reads = ModelSettings, ("both",)

    def __init__(self, outputs: int, seen=lambda weights: weights, genes: int = G):
        sizes = {"num_outputs": outputs, "feature_dim": C, "num_genes": genes}
        super().__init__(self.config_class(**sizes))
        self.seen, self.genes = seen, [0, min(genes - 1, 3)]
        self.eval()

    def weights(self, inputs: PatientInputs) -> list[Tensor]:
        if not inputs.has_bags:
            return []
        return [(6 * inputs.patches[a:b, 0]).softmax(0) for a, b in inputs.bags.spans]

    def attention(self, inputs: PatientInputs) -> Tensor:
        return torch.cat([self.seen(weights) for weights in self.weights(inputs)])[:, None]

    def vectors(self, inputs: PatientInputs) -> Tensor:
        found = torch.zeros(len(inputs), 1)
        if inputs.has_bags:
            spans = zip(inputs.bags.spans, self.weights(inputs), strict=True)
            found = torch.stack([w @ inputs.patches[a:b, 1:2] for (a, b), w in spans])
        if inputs.genes is not None:
            found = found + inputs.genes[:, self.genes].sum(1, keepdim=True)
        return found

    def logits(self, representation) -> Tensor:
        v = representation.vectors
        return v if self.config.num_outputs == 1 else torch.cat([-v, v], dim=1)


def shuffled(weights: Tensor) -> Tensor:
    return weights[torch.randperm(len(weights))]


def trained(model: PatientModel, regression: bool = False) -> SimpleNamespace:
    """What explanations need of a trained model."""
    if regression:
        model.target = Regression(5.0, 2.0)
    classes = () if regression else ("A", "B")
    return SimpleNamespace(
        model=model, method="planted", classes=classes, columns=classes or ("prediction",),
        gene_ids=[f"G{number}" for number in range(model.config.num_genes)], trained_on={},
    )  # fmt: skip


def patient(seed: int, patches: int | None = 13, genes: int | None = G) -> PatientInputs:
    """Two planted patches; signal and genes are in favour of one of the outputs."""
    rng = np.random.default_rng(seed)
    sign, rows = rng.choice([-1, 1]), None
    if patches is not None:
        rows = rng.normal(0, 0.1, (patches, C))
        planted = rng.permutation(patches)[:2]
        rows[planted, 0], rows[planted, 1] = 1, 2 * sign
        rows = torch.tensor(rows, dtype=torch.float32)
    expression = None
    if genes is not None:
        expression = torch.tensor(sign * rng.uniform(0.5, 1, (1, genes)), dtype=torch.float32)
    return PatientInputs.of(rows, genes=expression)


def checked(model, count: int = 12, how: str = ROLLOUT, regression: bool = False, **sizes):
    """kind -> summary of so many patients."""
    torch.manual_seed(0)
    explained = trained(model, regression)
    found = [
        one
        for seed in range(count)
        for one in check_patient(explained, f"P{seed}", patient(seed, **sizes), how, DRAWS)
    ]
    kinds = {one.kind for one in found}
    return {kind: summarised([one for one in found if one.kind == kind]) for kind in kinds}


def gain(of: dict, order: str, against: str = "random", curve: str = "both") -> dict:
    pair = order, against, curve
    return next(g for g in of["gains"] if (g["order"], g["against"], g["curve"]) == pair)


def test_attention_to_what_decides_beats_chance():
    found = checked(Planted(2))
    assert found["patches"]["finding"] == "better"
    assert found["patches"]["verdict"].startswith("Attention ranks patches better than chance")
    for curve in ("deletion", "insertion", "both"):
        assert gain(found["patches"], "attention", curve=curve)["low"] > 0
        assert gain(found["patches"], "gradient", curve=curve)["low"] > 0
    assert found["genes"]["orders"] == ["gradient", "random"]
    assert found["genes"]["finding"] == "better"


def test_shuffled_attention_is_no_better_than_chance():
    """The same model: only what its attention shows is another."""
    found = checked(Planted(2, shuffled), count=30)["patches"]
    assert found["finding"] == "chance"
    assert "no better than chance" in found["verdict"]
    assert "Gradient × input is more faithful" in found["verdict"]
    assert gain(found, "attention", "gradient")["high"] < 0


def test_attention_to_all_else_is_worse_than_chance():
    found = checked(Planted(2, lambda weights: -weights))["patches"]
    assert found["finding"] == "worse"
    assert gain(found, "attention")["high"] < 0


def test_even_attention_is_chance_itself():
    """Equal weights stand in a random order, not in that of the rows."""
    found = checked(Planted(2, torch.ones_like), count=30)["patches"]
    assert found["finding"] == "chance"
    orders = {tuple(order_of(np.ones(9), np.random.default_rng(seed))) for seed in range(5)}
    assert len(orders) == 5


def test_numbers_are_explained_by_what_moves_them_either_way():
    """Half of the patients are low, and patches that lower them are what is to be found."""
    model = Planted(1)
    found = checked(model, how=GRADIENT, regression=True)
    signs = {
        one.sign
        for seed in range(12)
        for one in check_patient(trained(model, True), "P", patient(seed), GRADIENT, DRAWS)
    }
    assert signs == {-1, 1}
    for kind in ("patches", "genes"):
        assert found[kind]["finding"] == "better"
        assert found[kind]["curves"]["deletion"]["gradient"][0] == pytest.approx(0, abs=1e-5)
        assert found[kind]["curves"]["deletion"]["gradient"][-1] < -1
    attention = checked(model, regression=True)["patches"]
    assert attention["orders"] == ["attention", "gradient", "random"]
    assert attention["finding"] == "better"


def test_the_class_of_the_whole_patient_is_explained_all_along_a_curve():
    for one in check_patient(trained(Planted(2)), "P", patient(0), ROLLOUT, DRAWS):
        curves = one.curves["gradient"][0]
        assert curves["deletion"].values[0] == pytest.approx(one.full)
        assert curves["insertion"].values[-1] == pytest.approx(one.full)
        assert one.full > 0.5


@pytest.mark.parametrize("how", [ROLLOUT, GRADIENT])
def test_a_model_that_reads_no_patches_is_constant(how):
    class Deaf(Planted):
        def weights(self, inputs):
            return [0 * weights for weights in super().weights(inputs)]

    found = checked(Deaf(2), how=how)
    assert found["patches"]["finding"] == "constant"
    assert found["genes"]["finding"] == "better"


def test_one_patient_is_compared_with_each_random_order():
    found = checked(Planted(2), count=1)["patches"]
    assert found["finding"] == "few"
    assert f"of {DRAWS} random orders" in found["verdict"]
    of = gain(found, "attention")
    assert of["low"] < of["value"] < of["high"]
    assert gain(found, "attention", "gradient")["low"] is None


def test_few_patients_get_no_verdict():
    found = checked(Planted(2), count=9)["patches"]
    assert found["finding"] == "few"
    assert "9 patients are too few" in found["verdict"]


def test_a_patient_of_one_patch_has_no_curve_of_patches():
    assert set(checked(Planted(2), patches=1)) == {"genes"}
    assert checked(Planted(2), patches=1, genes=None) == {}
    assert set(checked(Planted(2), patches=2, genes=None)) == {"patches"}
    assert set(checked(Planted(2), patches=None)) == {"genes"}


def test_two_genes_have_the_areas_of_a_sum():
    """v = g0 + g1 with z = 0 for what is gone: both curves by hand."""
    inputs = PatientInputs.of(genes=torch.tensor([[1.0, 3.0]]))
    model = trained(Planted(1, genes=2), regression=True)
    [one] = check_patient(model, "P", inputs, ROLLOUT, DRAWS)
    curves = one.curves["gradient"][0]
    # In units of 2 a standard deviation: 4 -> 1 -> 0, and 0 -> 3 -> 4, less 4.
    np.testing.assert_allclose(curves["deletion"].shares, [0, 0.5, 1])
    np.testing.assert_allclose(curves["deletion"].values, [0, -6, -8], atol=1e-5)
    np.testing.assert_allclose(curves["insertion"].values, [-8, -2, 0], atol=1e-5)
    assert one.areas("gradient", "deletion")[0] == pytest.approx(-5)
    assert one.areas("gradient", "insertion")[0] == pytest.approx(-3)
    assert (one.full, one.emptied) == pytest.approx((13, 5))


def test_random_orders_do_not_depend_on_other_patients():
    def areas(case: str) -> np.ndarray:
        [one] = check_patient(trained(Planted(2)), case, patient(3, genes=None), ROLLOUT, DRAWS)
        return one.areas("random", "deletion")

    np.testing.assert_array_equal(areas("P"), areas("P"))
    assert not np.array_equal(areas("P"), areas("Q"))
    assert len(set(areas("P"))) > 1


@pytest.mark.parametrize("rows", [1, 20, 10_000])
def test_what_is_kept_is_read_in_its_order_in_batches_of_any_size(monkeypatch, rows):
    monkeypatch.setattr(perturbed, "_ROWS", rows)
    inputs, explained = patient(1), trained(Planted(2))
    kept = [np.array(places) for places in ([4], [7, 2], range(13), [12, 0, 5])]

    def predicted(**change) -> np.ndarray:
        of = {"patches": inputs.patches, "genes": inputs.genes} | change
        return explained.model.predict(**of)[0].numpy()

    seen = []
    explained.model.register_forward_pre_hook(lambda _, args: seen.append(args[0].lengths()))
    found = WithoutPatches(explained, inputs).predictions(kept)
    for row, places in zip(found, kept, strict=True):
        expected = predicted(patches=inputs.patches[sorted(places)])
        np.testing.assert_allclose(row, expected, rtol=1e-6)
    assert all(sum(lengths) <= rows or len(lengths) == 1 for lengths in seen)
    kept = [np.array([], int), np.array([3]), np.array([4, 0])]
    for row, places in zip(WithoutGenes(explained, inputs).predictions(kept), kept, strict=True):
        genes = torch.zeros(1, G)
        genes[0, places] = inputs.genes[0, places]
        np.testing.assert_allclose(row, predicted(genes=genes), rtol=1e-6)


@pytest.mark.parametrize("removable", [1, 2, 3, 12, 49_999])
def test_steps_rise_from_nothing_to_all(removable):
    counts = steps(removable)
    assert counts[0] == 0
    assert counts[-1] == removable
    assert (np.diff(counts) > 0).all()
    assert len(counts) <= 14


def test_areas_are_means_along_the_curve():
    curve = Curve(np.array([0, 0.1, 1]), np.array([1.0, 0.0, 0.0]))
    assert curve.area == pytest.approx(0.05)
    np.testing.assert_allclose(curve.at(np.array([0, 0.05, 0.5])), [1, 0.5, 0])
    flat = {
        name: Curve(np.array([0, 1]), np.array([2.0, 2.0])) for name in ("deletion", "insertion")
    }
    one = {"deletion": curve, "insertion": curve}
    found = PatientCurves("P", "patches", 3, 1, 0, 1, {"attention": [one], "random": [flat] * 2})
    np.testing.assert_allclose(found.gains("attention", "random", "deletion"), [1.95, 1.95])
    np.testing.assert_allclose(found.gains("attention", "random", "insertion"), [-1.95, -1.95])


def test_a_model_without_attention_is_refused():
    class Blind(Planted):
        @property
        def attention(self):
            raise AttributeError("none")

    with pytest.raises(GimpError, match="has no attention over patches"):
        list(check_patient(trained(Blind(2)), "P", patient(0), ROLLOUT, DRAWS))
