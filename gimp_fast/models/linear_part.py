"""What is added to the outputs of a model of survival: risks that are linear in each input.

A network needs many events to learn what Cox's model with a ridge penalty finds in the mean patch
and in single genes. With this part it need not: the part is fitted in closed form, before any stage
(:mod:`gimp_fast.training.fit_linear`), and the network learns what is left.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gimp_fast.models.inputs import PatientInputs, Presence
from gimp_fast.models.settings import Modalities

LINEAR_INPUTS = ("slide", "amount", "rna", "covariates")
"""The mean patch, the logarithm of the number of patches, genes, and clinical covariates."""

LARGEST = 10.0  # of a standardised value; a gene that hardly anyone expresses would decide alone


def read_by(modalities: Modalities, num_covariates: int) -> tuple[str, ...]:
    """Which of ``LINEAR_INPUTS`` a model reads."""
    reads = {
        "slide": modalities != "rna",
        "amount": modalities != "rna",
        "rna": modalities != "slide",
        "covariates": num_covariates > 0,
    }
    return tuple(name for name in LINEAR_INPUTS if reads[name])


class LinearPart(nn.Module):
    """Patients -> logarithms of hazard ratios (B, 4), one of each input, to be added up.

    Of an input x with d features it is Σ β clip((x − mean) / sd, ±10) − centre, and 0 for patients
    who lack the input, or for an input that the model does not read. There are two sets of β: of
    the training patients, by which validation patients are predicted, and of training and
    validation patients, by which all others are.

    Args:
        widths: d of each input that is read, by name.

    Attributes:
        refitted: whether the second set is used. A new part uses it; training, which chooses by
            validation patients, does not.
    """

    def __init__(self, widths: dict[str, int]):
        super().__init__()
        self.inputs, self.refitted = tuple(widths), True
        for name, width in widths.items():
            self.register_buffer(f"{name}_mean", torch.zeros(2, width, dtype=torch.float64))
            self.register_buffer(f"{name}_factor", torch.zeros(2, width, dtype=torch.float64))
            self.register_buffer(f"{name}_slope", torch.zeros(2, width, dtype=torch.float64))
            self.register_buffer(f"{name}_centre", torch.zeros(2, dtype=torch.float64))

    def forward(self, inputs: PatientInputs) -> Tensor:
        """(B, 4) float32, in the order of ``LINEAR_INPUTS``.

        Patients are computed one by one, so that a result does not depend on the others.
        """
        columns = [
            self._of_input(name, *_rows(name, inputs))
            if name in self.inputs
            else torch.zeros(len(inputs), device=inputs.device)
            for name in LINEAR_INPUTS
        ]
        return torch.stack(columns, dim=1).float()

    def _of_input(self, name: str, rows: Sequence[Tensor], presence: Presence) -> Tensor:
        """(B,), of the rows of the patients who have the input."""
        chosen = int(self.refitted)
        parts = (getattr(self, f"{name}_{key}") for key in ("mean", "factor", "slope", "centre"))
        mean, factor, slope, centre = (part[chosen] for part in parts)
        found = [
            (((row.double() - mean) * factor).clamp(-LARGEST, LARGEST) * slope).sum() - centre
            for row in rows
        ]
        risks = torch.stack(found) if found else None
        return presence.fill(None if risks is None else risks[:, None], mean.new_zeros(1))[:, 0]


def _rows(name: str, inputs: PatientInputs) -> tuple[Sequence[Tensor], Presence]:
    """The features (d,) of an input of the patients who have it, and who they are."""
    if name in ("slide", "amount"):
        bags = inputs.patches.split(inputs.bags.lengths) if inputs.has_bags else ()
        of_bag = _mean_patch if name == "slide" else _log_count
        return [of_bag(bag) for bag in bags], inputs.slide
    if name == "rna":
        genes = inputs.present_genes
        return [] if genes is None else list(genes), inputs.rna
    rows = inputs.covariates
    return list(rows), Presence.of([True] * len(rows), rows.device)


def _mean_patch(bag: Tensor) -> Tensor:
    return bag.mean(0, dtype=torch.float64)


def _log_count(bag: Tensor) -> Tensor:
    return torch.full((1,), float(len(bag)), dtype=torch.float64, device=bag.device).log()
