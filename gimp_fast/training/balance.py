"""Two losses of one encoder, weighted so that neither drowns the other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gimp_fast.training.distributed import Share

LARGEST = 1e4  # weight: a loss whose gradient vanishes would get any


def balancing_weight(
    first: Tensor, second: Tensor, parameters: Sequence[nn.Parameter], share: Share
) -> Tensor:
    """λ of ``first + λ second`` whose gradients of some parameters have the same norm.

    It carries no gradient. The parameters should be few and near the losses, such as those of a
    last layer that both share: the backward passes for λ end there (Esser et al., CVPR 2021,
    https://arxiv.org/abs/2012.09841, eq. 7).

    Args:
        first, second: scalars, this rank's shares of them.
        parameters: that both depend on.
        share: this rank's part of the batch. All ranks get the same λ.
    """
    norms = []
    for loss in (first, second):
        gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        present = [g.detach().float().flatten() for g in gradients if g is not None]
        norms.append(share.sum_of(torch.cat(present)).norm())
    return (norms[0] / norms[1].clamp_min(torch.finfo(torch.float32).tiny)).clamp(max=LARGEST)
