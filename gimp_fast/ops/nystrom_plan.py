"""What the layers for some tokens on a CPU share: their settings, and landmarks of the queries."""

from __future__ import annotations

from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from gimp_fast import native
from gimp_fast.ops import nystrom_native
from gimp_fast.ops.packing import Bags, Rows
from gimp_fast.ops.products import chunks, linear, steady_threads, weight_grad
from gimp_fast.ops.segment_means import segment_means_fwd, segments

# Tokens whose gradients get their share of the landmarks' at a time; they fit a CPU's cache.
CHUNK = 1024


class Plan(NamedTuple):
    """What the layer on a CPU needs besides tensors with gradients."""

    rows: Rows
    bags: Bags
    heads: int
    settings: tuple[int, int, float]  # M, iterations, scale
    longest: int | None
    module: ModuleType  # nystrom_fwd and nystrom_bwd of the backend

    @property
    def fuses(self) -> bool:
        """True if the backend computes the convolution with the attention."""
        return self.module is nystrom_native

    def of_bags(self, bags: list[int]) -> tuple[Plan, Tensor, Tensor]:
        """The plan for some bags, their tokens among all of them, and their rows among all rows."""
        tokens, rows, index, end = [], [], [], 0
        for bag in bags:
            (start, stop), (first, last) = self.bags.spans[bag], self.rows.bags.spans[bag]
            tokens.append(torch.arange(start, stop))
            rows.append(torch.arange(first, last))
            index.append(self.rows.index[first:last] + (end - start))
            end += stop - start
        counts = Bags.of_lengths([len(part) for part in rows])
        plan = self._replace(
            rows=Rows(torch.cat(index), counts),
            bags=Bags.of_lengths([len(part) for part in tokens]),
        )
        return plan, torch.cat(tokens), torch.cat(rows)

    def fused(self, conv_weight: Tensor | None) -> dict[str, Tensor | None]:
        """The convolution as arguments of such a backend."""
        if not self.fuses or conv_weight is None:
            return {}
        return {"conv_weight": conv_weight, "positions": self.rows.positions(self.bags)}

    @property
    def places(self) -> tuple[Tensor, tuple[Tensor, list[int]]]:
        """Arguments of the convolution."""
        return self.rows.index, (self.bags.cu_seqlens, list(self.bags.bounds))


def steady_linear(x: Tensor, weight: Tensor, longest: int | None = None) -> Tensor:
    """``linear`` with the same result for any number of threads."""
    with steady_threads(x, training=False):
        return linear(x, weight, longest=longest)


def long_bags(plan: Plan) -> list[int]:
    """The bags that have landmarks."""
    return [bag for bag, length in enumerate(plan.bags.lengths) if length > plan.settings[0]]


def project_landmarks(x: Tensor, of_q: Tensor, plan: Plan) -> tuple[Tensor, Tensor]:
    """Means of x (L, M, C) of the L long bags, and Q̃ (B, H, M, D), zero for the others."""
    bags, heads, marks = plan.bags, plan.heads, plan.settings[0]
    chosen = long_bags(plan)
    q_marks = x.new_zeros(len(bags), marks, len(of_q))
    means = x.new_zeros(0, marks, x.shape[1])
    if chosen:
        means = segment_means_fwd(x, bags.cu_seqlens, marks)[chosen]
        for place, bag in enumerate(chosen):
            q_marks[bag] = steady_linear(means[place], of_q, plan.longest)
    return means, q_marks.unflatten(-1, (heads, -1)).transpose(1, 2)


def add_landmark_grads(
    grad_x: Tensor,
    grad_q_weight: Tensor,
    grad_marks: Tensor,
    means: Tensor,
    of_q: Tensor,
    plan: Plan,
) -> None:
    """Add what the landmarks pass on: to the rows of the long bags, and to the gradient of W_q.

    Args:
        grad_x: (T, C).
        grad_q_weight: (H·D, C).
        grad_marks: (B, M, H·D), gradient of Q̃.
        means: (L, M, C), as of :func:`project_landmarks`.
        of_q: (H·D, C), W_q.
    """
    for place, bag in enumerate(long_bags(plan)):
        start, stop = plan.bags.spans[bag]
        grad_q_weight += weight_grad(grad_marks[bag], means[place])
        grad_means = linear(grad_marks[bag], of_q.t(), longest=plan.longest)
        add_shares(grad_x[start:stop], grad_means)


def add_shares(grad_x: Tensor, grad_means: Tensor) -> None:
    """Add to each row (N, C) its share of the gradient of its segment's mean, (M, C)."""
    add = _add_natively if _is_native(grad_x) else _add_by_chunks
    add(grad_x, grad_means)


def _is_native(x: Tensor) -> bool:
    return x.dtype == torch.float32 and x.is_contiguous() and native.load().cpu == native.AVAILABLE


def _add_natively(grad_x: Tensor, grad_means: Tensor) -> None:
    """A segment is a group of rows whose linear layer has one input, 1."""
    marks, count = len(grad_means), len(grad_x)
    bounds = [i * count // marks for i in range(marks + 1)]
    lengths = torch.tensor(bounds, dtype=torch.float32).diff()
    shares = (grad_means / lengths[:, None])[:, None]  # (M, 1, C)
    torch.ops.gimp_fast.grouped_linear_bwd_x(grad_x.new_ones(count, 1), shares, bounds, grad_x)


def _add_by_chunks(grad_x: Tensor, grad_means: Tensor) -> None:
    segment, lengths = segments(len(grad_x), len(grad_means), grad_x.device)
    shares = grad_means / lengths[:, None]
    for part in chunks(len(grad_x), CHUNK):
        grad_x[part] += shares[segment[part]]
