"""An encoder of your own: mean and spread of the three colours of a patch.

gimp-fast extract --plugin own_encoder.py --encoder colours --slides svs --out features
gimp-fast extract --encoder own_encoder.py:make --slides svs --out features      # the same
"""

import torch
from torch import nn

from gimp_fast import wsi


class Colours(nn.Module):
    def forward(self, pixels):  # (B, 3, P, P), normalised -> (B, 6)
        return torch.cat([pixels.mean((2, 3)), pixels.std((2, 3))], dim=1)


def make(weights):  # the file of --weights as a Path, or None
    return Colours()


wsi.register_encoder("colours", make)
