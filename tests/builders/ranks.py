"""Ranks of a run without their processes."""

from __future__ import annotations

import torch


class OneOfTwo:
    """The share of one of two ranks; ``columns`` are what both have, in the order of asking."""

    def __init__(self, rank, columns):
        self.rank, self.columns, self.total = rank, iter(columns), len(columns[0])

    def gather(self, rows):
        first, second = next(self.columns).detach().split(self.total // 2)
        return torch.cat([rows, second] if self.rank == 0 else [first, rows])

    def of_all(self, value):
        return value - value.detach() / 2
