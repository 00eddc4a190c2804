"""A model of your own: a linear classifier of the genes.

gimp-fast train --plugin own_model.py --method linear --data cohort --out runs/linear
gimp-fast predict --plugin own_model.py --run runs/linear --data cohort --out predicted
"""

from torch import nn

from gimp_fast import models


class LinearSettings(models.ModelSettings):
    dropout: float = 0.0  # changed by --set model.dropout=0.5


class Linear(models.PatientModel):
    title, settings_class, reads = "Linear", LinearSettings, ("rna",)

    def __init__(self, config, backend="auto"):
        super().__init__(config)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(config.num_genes, config.num_classes)

    def vectors(self, inputs):  # (B, G), from which self.head makes the logits
        return self.dropout(inputs.genes)


models.register("linear", Linear)
