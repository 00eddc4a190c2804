// Gradients of Y = Z W: see nystrom_pinv.h. Only for files that are compiled for an instruction
// set.
#pragma once

#include "nystrom_pinv.h"

namespace gimp_fast {
namespace {

struct PinvGradients {
  float *grad_z, *grad_x, *half, *product, *sums;  // square
  float *grad_y, *grad_w, *second, *third;         // narrow
  float* own;                                      // gradient of the X of each thin step
  float *row_sums, *column_sums;
  double* doubles;

  void lay_out(const Pinv& p, Arena& arena) {
    float** const squares[] = {&grad_z, &grad_x, &half, &product, &sums};
    for (float** square : squares) *square = p.square(arena);
    float** const narrows[] = {&grad_y, &grad_w, &second, &third};
    for (float** narrow : narrows) *narrow = p.narrow(arena);
    own = arena.take(round_up(p.m * p.side, 16) * p.thin);
    row_sums = arena.take(p.side);
    column_sums = arena.take(p.side);
    doubles = arena.take_doubles(p.m);
  }
};

// Gradient of X from the symmetric gradient G of Q, into g.grad_x.
inline void classic_grad(const Pinv& p, const PinvGradients& g, const float* x,
                         const float* grad_q) {
  p.squares(p.of(x), p.of(grad_q), g.product);  // H
  p.with_transposed(g.product, 1, 0.5f, g.half);
  p.combine(g.product, kOnce, grad_q, kTwice / 2, g.sums, p.side);
  p.squares(p.of(x), p.of(g.half), g.sums, true);
  p.with_transposed(g.sums, 1, 1, g.grad_x);
}

// The same from the symmetric gradient G of the next X of a thin step.
inline void thin_grad(const Pinv& p, const PinvGradients& g, const float* x, const float* s,
                      const float* grad_next) {
  p.squares(p.of(x), p.of(grad_next), g.product);  // H
  p.combine(g.product, kTwice, grad_next, kThrice / 2, g.sums, p.side);
  p.with_transposed(g.product, kOnce, kOnce / 2, g.half);
  p.squares(p.of(x), p.of(g.half), g.sums, true);
  p.with_transposed(g.product, 1, 1, g.half);
  p.squares(p.of(s), p.of(g.half), g.sums, true);
  p.with_transposed(g.sums, 1, 1, g.grad_x);
}

// Gradients of w, into g.grad_w, and of each thin X by its own product with w, into g.own.
inline void apply_grad(const Pinv& p, const PinvGradients& g, const PinvChain& chain) {
  const int64_t square = round_up(p.m * p.side, 16), narrow = round_up(p.m * p.wide, 16);
  for (int64_t i = 0; i < p.thin; ++i) {
    const float* x = chain.thin_xs + i * square;
    const float* slots[3] = {chain.seconds + i * narrow, chain.firsts + i * narrow,
                             chain.inputs + i * narrow};
    p.multiply(p.of(x), {g.grad_w, p.wide, 1}, p.m, p.d, g.second, p.wide);
    p.multiply(p.of(x), {g.second, p.wide, 1}, p.m, p.d, g.third, p.wide);
    const float* grads[3] = {g.grad_w, g.second, g.third};
    for (int j = 0; j < 3; ++j) {
      p.multiply({grads[j], p.wide, 1}, {slots[j], 1, p.wide}, p.d, p.m, g.sums, p.side, j > 0);
    }
    p.with_transposed(g.sums, 0.5f, 0.5f, g.own + i * square);
    p.combine(g.grad_w, kThrice, g.second, kTwice, g.grad_w, p.wide);
    p.combine(g.grad_w, 1, g.third, kOnce, g.grad_w, p.wide);
    p.multiply(p.of(x), {g.third, p.wide, 1}, p.m, p.d, g.grad_w, p.wide, true);
  }
}

// Through X = −A σZ: add to the gradients of A and of σZ.
inline void add_grad_of_x(const Pinv& p, const PinvGradients& g, const float* a, const float* z,
                          float* grad_a) {
  p.squares(p.of(g.grad_x), p.of(z).transposed(), grad_a, true, -1);
  p.squares(p.of(a).transposed(), p.of(g.grad_x), g.grad_z, true, -1);
}

// Through Z₀ = Aᵀ / (largest row sum · largest column sum), whose maxima ties share evenly.
inline void add_grad_of_start(const Pinv& p, const PinvGradients& g, const float* a,
                              float* grad_a) {
  float row_max, column_max;
  const float factor =
      p.start_factor(a, g.row_sums, g.column_sums, g.doubles, &row_max, &column_max);
  p.with_transposed(g.grad_z, 0, kSigma, g.sums);  // of A, without the factor
  double total = 0;
  int64_t rows = 0, columns = 0;
  for (int64_t i = 0; i < p.m; ++i) {
    F32 sum = {};
    for (int64_t j = 0; j < p.m; j += kLanes) {
      sum += load(a + i * p.side + j) * load(g.sums + i * p.side + j);
    }
    total += sum_of(sum);
    rows += g.row_sums[i] == row_max;
    columns += g.column_sums[i] == column_max;
  }
  const float grad_log = static_cast<float>(-total) * factor;
  const float of_row = grad_log / (row_max * static_cast<float>(rows));
  const float of_column = grad_log / (column_max * static_cast<float>(columns));
  for (int64_t j = 0; j < p.m; ++j) {
    g.column_sums[j] = g.column_sums[j] == column_max ? of_column : 0.0f;
  }
  fill(g.column_sums, p.m, round_up(p.m, kLanes), 0);
  for (int64_t i = 0; i < p.m; ++i) {
    const float plus = g.row_sums[i] == row_max ? of_row : 0.0f;
    for (int64_t j = 0; j < p.m; j += kLanes) {
      float* at = grad_a + i * p.side + j;
      store(at, load(at) + load(g.sums + i * p.side + j) * factor + load(g.column_sums + j) + plus);
    }
  }
}

// Gradient of A into grad_a, and of W into g.grad_w, from that of Y in g.grad_y.
inline void pinv_backward(const Pinv& p, const PinvGradients& g, const PinvChain& chain,
                          const float* a, const float* w, float* grad_a) {
  const int64_t square = round_up(p.m * p.side, 16);
  float row_max, column_max;
  const float factor =
      p.start_factor(a, g.row_sums, g.column_sums, g.doubles, &row_max, &column_max);
  const float* z = run_chain(p, chain, true, a, factor, w);
  p.combine(g.grad_y, 1 / kSigma, nullptr, 0, g.grad_y, p.wide);
  p.multiply({g.grad_y, p.wide, 1}, {chain.u, 1, p.wide}, p.d, p.m, g.grad_z, p.side);
  p.multiply(p.of(z).transposed(), {g.grad_y, p.wide, 1}, p.m, p.d, g.grad_w, p.wide);
  apply_grad(p, g, chain);
  std::memset(grad_a, 0, p.m * p.side * sizeof(float));
  if (p.thin > 0) {
    const float* grad = g.own + (p.thin - 1) * square;
    for (int64_t i = p.thin - 2; i >= 0; --i) {
      thin_grad(p, g, chain.thin_xs + i * square, chain.thin_ss + i * square, grad);
      float* own = g.own + i * square;
      p.combine(own, 1, g.grad_x, 1, own, p.side);
      grad = own;
    }
    p.combine(grad, 1, nullptr, 0, g.grad_x, p.side);
    add_grad_of_x(p, g, a, z, grad_a);
  }
  for (int64_t i = p.classic - 1; i >= 0; --i) {
    const float *x = chain.xs + i * square, *q = chain.qs + i * square;
    z = chain.zs + i * square;
    p.squares(p.of(z).transposed(), p.of(g.grad_z), g.sums);
    p.with_transposed(g.sums, 0.5f, 0.5f, g.own);  // of Q
    p.squares(p.of(g.grad_z), p.of(q), g.half);
    p.combine(g.half, 1, nullptr, 0, g.grad_z, p.side);
    classic_grad(p, g, x, g.own);
    add_grad_of_x(p, g, a, z, grad_a);
  }
  add_grad_of_start(p, g, a, grad_a);
}

}  // namespace
}  // namespace gimp_fast
