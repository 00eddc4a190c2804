"""Z W with Z the hyper-power pseudo-inverse of M×M matrices, and its gradients; fp32.

Every product is one launch over all matrices at once, with a sum fused to it. As in
``gimp_fast.ops.pinv`` the first steps build Z and correct themselves; the last two never form it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from gimp_fast.kernels.bags import Bags, bag_size
from gimp_fast.kernels.launch import Architecture, Config, launch

THIN_STEPS = 2
# Elements of the matrices of one group. It bounds the memory of the recorded chain, which is 5 MiB
# for a matrix of 256 × 256.
GROUP_ELEMENTS = 32 * 256 * 256
NORMS = Config(tokens=32, landmarks=32, num_warps=4, num_stages=2)


@triton.jit(do_not_specialize=["tokens", "num_bags", "first_matrix"])
def _product_kernel(
    cu_seqlens, tokens, num_bags, first_matrix, a, b, c, d, out, out2,
    a_g, a_r, a_k, b_g, b_k, b_c, c_g, c_r, d_g, d_r, out_g, out_r, out2_g, out2_r,
    alpha, beta, gamma, alpha2, beta2, H, M, R, C, K,
    PACKED: tl.constexpr, BAGS: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
    BLOCK_K: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """out = α A·B + β C + γ D, and out2 = α₂ A·B + β₂ C; absent operands are None."""
    matrix = tl.program_id(1)
    n = bag_size(cu_seqlens, tokens, (first_matrix + matrix) // H, PACKED)
    if n <= M:
        return
    column_tiles = tl.cdiv(C, BLOCK_C)
    r = (tl.program_id(0) // column_tiles) * BLOCK_R + tl.arange(0, BLOCK_R)
    col = (tl.program_id(0) % column_tiles) * BLOCK_C + tl.arange(0, BLOCK_C)
    group = matrix.to(tl.int64)
    inside = (r < R)[:, None] & (col < C)[None, :]
    total = tl.zeros([BLOCK_R, BLOCK_C], tl.float32)
    for start in range(0, K, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        a_tile = tl.load(
            a + group * a_g + r[:, None] * a_r + k[None, :] * a_k,
            mask=(r < R)[:, None] & (k < K)[None, :], other=0.0,
        )  # fmt: skip
        b_tile = tl.load(
            b + group * b_g + k[:, None] * b_k + col[None, :] * b_c,
            mask=(k < K)[:, None] & (col < C)[None, :], other=0.0,
        )  # fmt: skip
        total = tl.dot(a_tile, b_tile, total, input_precision=PRECISION)
    result = alpha * total
    if c is not None:
        c_tile = tl.load(c + group * c_g + r[:, None] * c_r + col[None, :], mask=inside, other=0.0)
        result += beta * c_tile
        if out2 is not None:
            pointers = out2 + group * out2_g + r[:, None] * out2_r + col[None, :]
            tl.store(pointers, alpha2 * total + beta2 * c_tile, mask=inside)
    if d is not None:
        d_tile = tl.load(d + group * d_g + r[:, None] * d_r + col[None, :], mask=inside, other=0.0)
        result += gamma * d_tile
    tl.store(out + group * out_g + r[:, None] * out_r + col[None, :], result, mask=inside)


@triton.jit(do_not_specialize=["tokens", "num_bags", "first_matrix"])
def _norms_kernel(
    cu_seqlens, tokens, num_bags, first_matrix, a, sums, H, M,
    PACKED: tl.constexpr, BAGS: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Sums of a tile of rows, and of a tile of columns."""
    matrix = tl.program_id(1)
    n = bag_size(cu_seqlens, tokens, (first_matrix + matrix) // H, PACKED)
    if n <= M:
        return
    base = a + matrix.to(tl.int64) * M * M
    i = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    row_sums = tl.zeros([BLOCK_R], tl.float32)
    column_sums = tl.zeros([BLOCK_R], tl.float32)
    for start in range(0, M, BLOCK_C):
        j = start + tl.arange(0, BLOCK_C)
        inside = (i < M)[:, None] & (j < M)[None, :]
        row_sums += tl.sum(tl.load(base + i[:, None] * M + j[None, :], mask=inside, other=0.0), 1)
        column_sums += tl.sum(
            tl.load(base + j[None, :] * M + i[:, None], mask=inside, other=0.0), 1
        )
    tl.store(sums + matrix * 2 * M + i, row_sums, mask=i < M)
    tl.store(sums + matrix * 2 * M + M + i, column_sums, mask=i < M)


@triton.jit(do_not_specialize=["tokens", "num_bags", "first_matrix"])
def _start_fwd_kernel(
    cu_seqlens, tokens, num_bags, first_matrix, a, sums, z, H, M,
    PACKED: tl.constexpr, BAGS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):  # fmt: skip
    """A tile of Z₀ = Aᵀ / (largest row sum · largest column sum)."""
    matrix = tl.program_id(1)
    n = bag_size(cu_seqlens, tokens, (first_matrix + matrix) // H, PACKED)
    if n <= M:
        return
    m = tl.arange(0, BLOCK_M)
    largest_row = tl.max(tl.load(sums + matrix * 2 * M + m, mask=m < M, other=0.0), 0)
    largest_column = tl.max(tl.load(sums + matrix * 2 * M + M + m, mask=m < M, other=0.0), 0)
    column_tiles = tl.cdiv(M, BLOCK_C)
    r = (tl.program_id(0) // column_tiles) * BLOCK_R + tl.arange(0, BLOCK_R)
    c = (tl.program_id(0) % column_tiles) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = (r < M)[:, None] & (c < M)[None, :]
    start = matrix.to(tl.int64) * M * M
    tile = tl.load(a + start + c[None, :] * M + r[:, None], mask=inside, other=0.0)
    pointers = z + start + r[:, None] * M + c[None, :]
    tl.store(pointers, tile / (largest_row * largest_column), mask=inside)


@triton.jit(do_not_specialize=["tokens", "num_bags", "first_matrix"])
def _start_bwd_kernel(
    cu_seqlens, tokens, num_bags, first_matrix, a, sums, grad_z, grad_a, H, M,
    PACKED: tl.constexpr, BAGS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Add the gradient of A through Z₀: the transpose, and the two maxima, ties sharing evenly."""
    matrix = tl.program_id(0)
    n = bag_size(cu_seqlens, tokens, (first_matrix + matrix) // H, PACKED)
    if n <= M:
        return
    m = tl.arange(0, BLOCK_M)
    row_sums = tl.load(sums + matrix * 2 * M + m, mask=m < M, other=0.0)
    column_sums = tl.load(sums + matrix * 2 * M + M + m, mask=m < M, other=0.0)
    largest_row, largest_column = tl.max(row_sums, 0), tl.max(column_sums, 0)
    row_ties = tl.sum(((row_sums == largest_row) & (m < M)).to(tl.float32), 0)
    column_ties = tl.sum(((column_sums == largest_column) & (m < M)).to(tl.float32), 0)
    factor = 1.0 / (largest_row * largest_column)
    start = matrix.to(tl.int64) * M * M
    inner = tl.zeros([BLOCK_R], tl.float32)
    for row in range(0, M, BLOCK_R):
        r = row + tl.arange(0, BLOCK_R)
        for column in range(0, M, BLOCK_C):
            c = column + tl.arange(0, BLOCK_C)
            inside = (r < M)[:, None] & (c < M)[None, :]
            tile = tl.load(a + start + r[:, None] * M + c[None, :], mask=inside, other=0.0)
            grad = tl.load(grad_z + start + c[None, :] * M + r[:, None], mask=inside, other=0.0)
            inner += tl.sum(tile * grad, 1)
    d_factor = -tl.sum(inner, 0) * factor
    row_grad = d_factor / (largest_row * row_ties)
    column_grad = d_factor / (largest_column * column_ties)
    for row in range(0, M, BLOCK_R):
        r = row + tl.arange(0, BLOCK_R)
        sums_r = tl.load(sums + matrix * 2 * M + r, mask=r < M, other=0.0)
        for column in range(0, M, BLOCK_C):
            c = column + tl.arange(0, BLOCK_C)
            sums_c = tl.load(sums + matrix * 2 * M + M + c, mask=c < M, other=0.0)
            inside = (r < M)[:, None] & (c < M)[None, :]
            pointers = grad_a + start + r[:, None] * M + c[None, :]
            grad = tl.load(grad_z + start + c[None, :] * M + r[:, None], mask=inside, other=0.0)
            total = tl.load(pointers, mask=inside, other=0.0) + grad * factor
            total += tl.where((sums_r == largest_row)[:, None], row_grad, 0.0)
            total += tl.where((sums_c == largest_column)[None, :], column_grad, 0.0)
            tl.store(pointers, total, mask=inside)


@dataclass(frozen=True)
class _Group:
    """A group of matrices, with what their launches need."""

    a: Tensor  # (G, M, M) fp32
    bags: Bags
    first: int
    heads: int
    arch: Architecture
    precision: str

    @property
    def common(self) -> tuple:
        return (*self.bags.arguments, self.first)

    def new(self, columns: int | None = None) -> Tensor:
        g, m, _ = self.a.shape
        return self.a.new_empty(g, m, columns or m)

    def product(
        self, a: Tensor, b: Tensor, alpha: float = 1.0, *, c: Tensor | None = None,
        beta: float = 0.0, d: Tensor | None = None, gamma: float = 0.0,
        out: Tensor | None = None, out2: Tensor | None = None, alpha2: float = 0.0,
        beta2: float = 0.0,
    ) -> Tensor:  # fmt: skip
        """out = α A·B + β C + γ D, out2 = α₂ A·B + β₂ C; C or D may be out itself."""
        (g, r, k), columns = a.shape, b.shape[2]
        out = self.new(columns) if out is None else out
        config = self.arch.product
        tiles = triton.cdiv(r, config.tokens) * triton.cdiv(columns, config.landmarks)
        launch(
            _product_kernel, (tiles, g), config,
            *self.common, a, b, c, d, out, out2,
            *a.stride(), *b.stride(), *_strides(c), *_strides(d), *_strides(out), *_strides(out2),
            alpha, beta, gamma, alpha2, beta2, self.heads, self.a.shape[1], r, columns, k,
            **self.bags.constants, BLOCK_R=config.tokens, BLOCK_C=config.landmarks, BLOCK_K=32,
            PRECISION=self.precision,
        )  # fmt: skip
        return out

    def start(self) -> tuple[Tensor, Tensor]:
        """Z₀, and the row and column sums (G, 2, M) that it divides by."""
        g, m, _ = self.a.shape
        sums = self.a.new_empty(g, 2, m)
        z = self.new()
        tiles = triton.cdiv(m, NORMS.tokens)
        launch(
            _norms_kernel, (tiles, g), NORMS, *self.common, self.a, sums, self.heads, m,
            **self.bags.constants, BLOCK_R=NORMS.tokens, BLOCK_C=NORMS.landmarks,
        )  # fmt: skip
        launch(
            _start_fwd_kernel, (tiles * tiles, g), NORMS,
            *self.common, self.a, sums, z, self.heads, m, **self._start_constants(),
        )  # fmt: skip
        return z, sums

    def start_bwd(self, sums: Tensor, grad_z: Tensor, grad_a: Tensor) -> None:
        g, m, _ = self.a.shape
        launch(
            _start_bwd_kernel, (g,), NORMS,
            *self.common, self.a, sums, grad_z, grad_a, self.heads, m, **self._start_constants(),
        )  # fmt: skip

    def _start_constants(self) -> dict[str, int | bool]:
        return self.bags.constants | {
            "BLOCK_M": triton.next_power_of_2(self.a.shape[1]),
            "BLOCK_R": NORMS.tokens,
            "BLOCK_C": NORMS.landmarks,
        }


def _strides(x: Tensor | None) -> tuple[int, int]:
    return (0, 0) if x is None else x.stride()[:2]


@dataclass
class _Chain:
    """What the backward pass needs of the forward pass."""

    sums: Tensor
    classic: list[tuple[Tensor, Tensor, Tensor, Tensor]]  # z, x, t, r of each step
    z: Tensor  # after the classic steps
    thin: list[tuple[Tensor, Tensor | None, Tensor | None]]  # x, s, t; the last has only x


def _chain(group: _Group, iterations: int, record: bool) -> _Chain:
    z, sums = group.start()
    classic = []
    for _ in range(max(0, iterations - THIN_STEPS)):
        x = group.product(group.a, z)
        t = group.product(x, x, -1.0, c=x, beta=7.0)
        r = group.product(x, t, -1.0, c=x, beta=15.0)
        if record:
            classic.append((z, x, t, r))
        z = group.product(z, r, -0.25, c=z, beta=3.25)
    thin = []
    x = group.product(group.a, z) if iterations else None
    for step in range(steps := min(iterations, THIN_STEPS)):
        if step == steps - 1:
            thin.append((x, None, None))
            break
        t = group.new()
        s = group.product(x, x, c=x, out2=t, alpha2=-1.0, beta2=7.0)
        thin.append((x, s, t))
        x = group.product(s, t, 0.25, c=x, beta=3.25, d=s, gamma=-3.75)
    return _Chain(sums, classic, z, thin)


def _apply(group: _Group, chain: _Chain, w: Tensor) -> tuple[Tensor, list[Tensor]]:
    """P(X)…w right to left, each ¼(13w − X(15w − X(7w − Xw))) -> u, and [t₂ | t₁ | w] by step."""
    d = w.shape[2]
    slots = [group.new(3 * d) for _ in chain.thin]
    for (x, _, _), slot in zip(reversed(chain.thin), reversed(slots), strict=True):
        slot[..., 2 * d :] = w
        t2, t1, w = slot.split(d, dim=2)
        group.product(x, w, -1.0, c=w, beta=7.0, out=t1)
        group.product(x, t1, -1.0, c=w, beta=15.0, out=t2)
        w = group.product(x, t2, -0.25, c=w, beta=3.25)
    return w, slots


def _apply_bwd(
    group: _Group, chain: _Chain, slots: list[Tensor], quarter: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """Gradients of w and of every X, from a quarter of the gradient of u."""
    d = quarter.shape[2]
    grads_x = []
    for step, ((x, _, _), slot) in enumerate(zip(chain.thin, slots, strict=True)):
        grads = group.new(3 * d)
        grads[..., :d] = quarter
        first, second, third = grads.split(d, dim=2)
        rest = group.new(d)
        group.product(x.mT, first, -1.0, c=first, out=second, out2=rest, alpha2=-15.0, beta2=13.0)
        group.product(x.mT, second, -1.0, out=third)
        grads_x.append(group.product(grads, slot.mT, -1.0))
        part = 1.0 if step == len(slots) - 1 else 0.25
        quarter = group.product(x.mT, third, -part, c=third, beta=7.0 * part, d=rest, gamma=part)
    return quarter, grads_x


def _thin_bwd(group: _Group, chain: _Chain, grads_x: list[Tensor]) -> Tensor:
    """Gradient of the first X, from the gradients of the single Xs."""
    total = grads_x[-1]
    for (x, s, t), own in zip(reversed(chain.thin[:-1]), reversed(grads_x[:-1]), strict=True):
        dt = group.product(s.mT, total, 0.25)
        ds = group.product(total, t.mT, 0.25, c=total, beta=-3.75, d=dt, gamma=-1.0)
        dx = group.product(ds, x.mT, c=total, beta=3.25, d=dt, gamma=7.0)
        total = group.product(x.mT, ds, c=dx, beta=1.0, d=own, gamma=1.0, out=dx)
    return total


def _classic_bwd(
    group: _Group, step: tuple[Tensor, Tensor, Tensor, Tensor], grad: Tensor, grad_a: Tensor
) -> Tensor:
    """Gradient of the step's Z from that of the next; A's is added in place."""
    z, x, t, r = step
    dr = group.product(z.mT, grad, -0.25)
    dz = group.product(grad, r.mT, -0.25, c=grad, beta=3.25)
    dt = group.product(x.mT, dr, -1.0)
    dx = group.product(dr, t.mT, -1.0, c=dr, beta=15.0, d=dt, gamma=7.0)
    group.product(dt, x.mT, -1.0, c=dx, beta=1.0, out=dx)
    group.product(x.mT, dt, -1.0, c=dx, beta=1.0, out=dx)
    group.product(dx, z.mT, c=grad_a, beta=1.0, out=grad_a)
    return group.product(group.a.mT, dx, c=dz, beta=1.0, out=dz)


def pinv_matmul_fwd(
    a: Tensor, w: Tensor, iterations: int, bags: Bags, arch: Architecture, precision: str
) -> Tensor:
    """Z W.

    Args:
        a: (B, H, M, M) fp32, rows that sum to one.
        w: (B, H, M, D) fp32.
        precision: of the products, ``"ieee"``, ``"tf32x3"`` or ``"tf32"``.

    Returns:
        (B, H, M, D) fp32; rows of bags of N ≤ M tokens are not written.
    """
    y = torch.empty_like(w)
    y_flat, w_flat = y.flatten(0, 1), w.flatten(0, 1)
    for group, part in _groups(a, bags, arch, precision):
        chain = _chain(group, iterations, record=False)
        u, _ = _apply(group, chain, w_flat[part])
        group.product(chain.z, u, out=y_flat[part])
    return y


def pinv_matmul_bwd(
    grad_y: Tensor,
    a: Tensor,
    w: Tensor,
    iterations: int,
    bags: Bags,
    arch: Architecture,
    precision: str,
) -> tuple[Tensor, Tensor]:
    """Gradients of A and W from that of Z W, all fp32; the chain is recomputed."""
    grad_a, grad_w = torch.empty_like(a), torch.empty_like(w)
    a_out, w_out = grad_a.flatten(0, 1), grad_w.flatten(0, 1)
    w_flat, y_flat = w.flatten(0, 1), grad_y.flatten(0, 1)
    for group, part in _groups(a, bags, arch, precision):
        chain = _chain(group, iterations, record=True)
        u, slots = _apply(group, chain, w_flat[part])
        grad = y_flat[part]
        dz = group.product(grad, u.mT)
        if chain.thin:
            quarter = group.product(chain.z.mT, grad, 0.25)
            w_out[part], grads_x = _apply_bwd(group, chain, slots, quarter)
            dx = _thin_bwd(group, chain, grads_x)
            group.product(dx, chain.z.mT, out=a_out[part])
            group.product(group.a.mT, dx, c=dz, beta=1.0, out=dz)
        else:
            group.product(chain.z.mT, grad, out=w_out[part])
            a_out[part].zero_()
        for step in reversed(chain.classic):
            dz = _classic_bwd(group, step, dz, a_out[part])
        group.start_bwd(chain.sums, dz, a_out[part])
    return grad_a, grad_w


def _groups(a: Tensor, bags: Bags, arch: Architecture, precision: str):
    """Groups of the matrices, and their slices: the recorded chain of one fits its memory."""
    flat = a.flatten(0, 1)
    size = min(max(1, GROUP_ELEMENTS // a.shape[-1] ** 2), 65535)  # a grid's second dimension
    for first in range(0, len(flat), size):
        part = slice(first, min(first + size, len(flat)))
        yield _Group(flat[part], bags, first, a.shape[1], arch, precision), part
