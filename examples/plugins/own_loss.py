"""A loss of your own: ABMIL with a penalty on large weights of its head.

gimp-fast train --plugin own_loss.py --method sparse_abmil --set model.penalty=0.01 \\
    --data cohort --out runs/sparse

The term is added to the loss of any target: classes, survival, numbers.
"""

from gimp_fast import models

ABMIL = models.model_class("abmil")


class SparseSettings(ABMIL.settings_class):
    penalty: float = 0.001


class SparseABMIL(ABMIL):
    title, settings_class = "ABMIL, sparse", SparseSettings

    def losses(self, labels, inputs):
        outcome = super().losses(labels, inputs)  # logits (B, K), loss (B,)
        penalty = self.config.penalty * self.head.weight.abs().sum()
        return models.Outcome(outcome.logits, outcome.loss + penalty)


models.register("sparse_abmil", SparseABMIL)
