"""How faithful the weights of one patient are: orders, their curves and areas."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import xxhash

from gimp_fast.heatmaps.attribution import Attribution, attribute
from gimp_fast.heatmaps.faithfulness.curves import CURVES, DELETION, Curve, curves_of, order_of
from gimp_fast.heatmaps.faithfulness.perturbed import Perturbed, WithoutGenes, WithoutPatches
from gimp_fast.heatmaps.gene_maps import fragment_table
from gimp_fast.heatmaps.options import GRADIENT
from gimp_fast.heatmaps.protocols import ExplainedModel
from gimp_fast.models import PatientInputs

PATCHES, GENES = "patches", "genes"
KINDS = (PATCHES, GENES)
# Orders: the model's own attention, gradient × input, and chance.
ATTENTION, RANDOM = "attention", "random"
ORDERS = (ATTENTION, GRADIENT, RANDOM)


@dataclass(frozen=True)
class PatientCurves:
    """The curves of one patient's patches, or genes.

    Attributes:
        size: patches or genes of the patient.
        full: prediction of the whole patient, of the explained column.
        emptied: the same with as much taken away as can be, mean of the random orders.
        sign: 1, or −1 for an outcome that is lower than ``emptied``.
        curves: order -> its repetitions -> ``CURVES`` -> curve. Only chance has several.
    """

    case_id: str
    kind: str
    size: int
    full: float
    emptied: float
    sign: int
    curves: Mapping[str, list[Mapping[str, Curve]]]

    @property
    def change(self) -> float:
        """The largest change of the value along any of the curves."""
        values = np.concatenate(
            [one[name].values for many in self.curves.values() for one in many for name in CURVES]
        )
        whole = self.curves[RANDOM][0][DELETION].values[0]
        return float(np.abs(values - whole).max())

    def areas(self, order: str, curve: str) -> np.ndarray:
        """(repetitions,) areas of an order."""
        return np.array([one[curve].area for one in self.curves[order]])

    def gains(self, order: str, against: str, *curves: str) -> np.ndarray:
        """(repetitions,) how much more faithful an order is than each of another.

        Above zero is better: a larger area of insertion, a smaller one of deletion. The mean if
        both curves are given.
        """
        found = []
        for curve in curves:
            better = -1 if curve == DELETION else 1
            mean = self.areas(order, curve).mean()
            found.append(better * (mean - self.areas(against, curve)))
        return np.mean(found, axis=0)

    def mean_curve(self, order: str, curve: str, shares: np.ndarray) -> np.ndarray:
        """(len(shares),) mean over the repetitions."""
        return np.mean([one[curve].at(shares) for one in self.curves[order]], axis=0)


def check_patient(
    trained: ExplainedModel, case_id: str, inputs: PatientInputs, how: str, draws: int
) -> Iterator[PatientCurves]:
    """The curves of the patient's patches and of their genes, where one of them can be taken away.

    Args:
        trained: the model, in fp32.
        case_id: seeds the random orders, which so do not depend on who else is checked.
        inputs: the patient, on the device of the model.
        how: the attribution of the maps.
        draws: random orders.

    Raises:
        GimpError: the model has no such attribution.
    """
    seed = xxhash.xxh3_64_intdigest(case_id.encode("utf-8"))
    found = attribute(trained, inputs, how)
    gradient = found
    if how != GRADIENT and inputs.has_bags:
        gradient = attribute(trained, inputs, GRADIENT)
    for place, (kind, seen) in enumerate({PATCHES: WithoutPatches, GENES: WithoutGenes}.items()):
        patient = seen(trained, inputs)
        if not patient.removable:
            continue
        of_kind = {PATCHES: gradient.patches, GENES: gradient.gene_gradients}
        weights = {GRADIENT: of_kind[kind]}
        if kind == PATCHES and how != GRADIENT:
            weights[ATTENTION] = found.patches
        elif kind == GENES and found.genes is not None:
            weights[ATTENTION] = _attention_of_genes(trained, found, patient.size)
        rng = np.random.default_rng([seed, place])
        yield _curves(trained, patient, case_id, kind, weights, draws, rng)


def _attention_of_genes(trained: ExplainedModel, found: Attribution, size: int) -> np.ndarray:
    """(G,) attention of the fragments that hold a gene; zero for genes that no fragment holds."""
    fragments, weights = fragment_table(trained, found, [""] * size), np.zeros(size)
    for genes, weight in zip(fragments["genes"], fragments["fragment_attention"], strict=True):
        weights[genes] += weight
    return weights


def _curves(
    trained: ExplainedModel,
    patient: Perturbed,
    case_id: str,
    kind: str,
    weights: dict[str, np.ndarray],
    draws: int,
    rng: np.random.Generator,
) -> PatientCurves:
    column = int(patient.full.argmax()) if trained.classes else 0
    full = float(patient.full[column])
    chance = [curves_of(patient, rng.permutation(patient.size)) for _ in range(draws)]
    emptied = float(np.mean([one[DELETION].values[-1, column] for one in chance]))
    # Attention has no sign, but an outcome is explained by what raises it or by what lowers it.
    sign = -1 if not trained.classes and full < emptied else 1
    found = {RANDOM: chance}
    for order, values in weights.items():
        signed = sign * values if order == GRADIENT else values
        found[order] = [curves_of(patient, order_of(signed, rng))]
    start = 0.0 if trained.classes else full

    def chosen(one: Mapping[str, Curve]) -> dict[str, Curve]:
        return {
            name: Curve(one[name].shares, sign * (one[name].values[:, column] - start))
            for name in CURVES
        }

    return PatientCurves(
        case_id,
        kind,
        patient.size,
        full,
        emptied,
        sign,
        {order: [chosen(one) for one in found[order]] for order in ORDERS if order in found},
    )
