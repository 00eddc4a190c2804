// Y = Z W with Z the iterative pseudo-inverse of A (M, M), and its gradients: gimp_fast/ops/pinv.py
// explains the steps. Only for files that are compiled for an instruction set.
//
// With σ³ = 1/4, X = −A (σZ), T = X + 7σ, R = X T + 15σ², Q = X R + 13σ³, the next σZ is σZ Q. X,
// T, R and Q are symmetric but for rounding, because Z starts from Aᵀ. The thin steps compute lower
// triangles only; the classic ones do not, since they correct what the triangles differ by. Only
// the symmetric part of the gradients counts. The gradient of X from the symmetric G of Q is
//
//     U + Uᵀ,   U = X (H + Hᵀ/2) + 7σ H + 15σ² G/2,   H = X G,
//
// and through the next X of a thin step, X⁴ + 7σ X³ + 15σ² X² + 13σ³ X with S = X²,
//
//     U = S (H + Hᵀ) + 7σ X (H + Hᵀ/2) + 15σ² H + 13σ³ G/2.
#pragma once

#include "nystrom_rows.h"
#include "nystrom_softmax.h"

namespace gimp_fast {
namespace {

// The last steps multiply W by each Q and never form Z. More of them lose digits.
constexpr int64_t kThinSteps = 2;
constexpr double kExactSigma = 0.62996052494743658;
constexpr float kSigma = static_cast<float>(kExactSigma);
constexpr float kOnce = static_cast<float>(7 * kExactSigma);
constexpr float kTwice = static_cast<float>(15 * kExactSigma * kExactSigma);
constexpr float kThrice = 13.0f / 4;
// Rows of a product that a thread computes at a time: a multiple of the rows of every tile.
constexpr int64_t kRowBlock = 48;

// Square matrices (m, m) in rows `side` apart, and thin ones (m, d) in rows `wide` apart.
struct Pinv {
  const Team& team;
  int64_t m, side, d, wide, thin, classic;
  float* packed;

  // W has `width` columns.
  Pinv(const Head& head, const Team& team, int64_t width)
      : team(team),
        m(head.landmarks),
        side(scores_stride(m)),
        d(width),
        wide(round_up(d, kLanes)),
        thin(smaller(head.iterations, kThinSteps)),
        classic(head.iterations - thin),
        packed(nullptr) {}

  float* square(Arena& arena) const { return arena.take(m * side); }
  float* narrow(Arena& arena) const { return arena.take(m * wide); }

  Strided of(const float* square) const { return {square, side, 1}; }

  // b (k, n) times `factor` as the second factor of a product: where it lies if it is small and of
  // whole vectors, else packed, with zeros up to a whole vector.
  Factor factor_of(Strided b, int64_t k, int64_t n, float factor) const {
    const bool fits = b.columns == 1 && n <= kPanel && n % kLanes == 0;
    if (fits && factor == 1) return {b.data, b.rows};
    for_each(team, (n + kPanel - 1) / kPanel,
             [&](int64_t panel, int64_t) { pack_panel(b, k, n, panel * kPanel, factor, packed); });
    return {packed};
  }

  // out {=, +=} a (m, k) times b (k, n) times `factor`; out is neither a nor b.
  void multiply(Strided a, Strided b, int64_t k, int64_t n, float* out, int64_t stride,
                bool add = false, float factor = 1) const {
    const Factor second = factor_of(b, k, n, factor);
    for_each(team, (m + kRowBlock - 1) / kRowBlock, [&](int64_t block, int64_t) {
      const int64_t row = block * kRowBlock, rows = smaller(kRowBlock, m - row);
      product(a.from_row(row), second, out + row * stride, stride, rows, n, k, add);
    });
  }

  void squares(Strided a, Strided b, float* out, bool add = false, float factor = 1) const {
    multiply(a, b, m, m, out, side, add, factor);
  }

  // A product that is symmetric: the lower triangle is computed, the upper one copied from it.
  void symmetric(Strided a, Strided b, float* out, bool add = false, float factor = 1) const {
    const Factor second = factor_of(b, m, m, factor);
    const int64_t blocks = (m + kRowBlock - 1) / kRowBlock;
    for_each(team, blocks, [&](int64_t block, int64_t) {
      // The longest rows first, so that threads end together.
      const int64_t row = (blocks - 1 - block) * kRowBlock, rows = smaller(kRowBlock, m - row);
      const int64_t columns = smaller(m, round_up(row + rows, kPanel));
      product(a.from_row(row), second, out + row * side, side, rows, columns, m, add);
    });
    for_each(team, blocks, [&](int64_t block, int64_t) {
      const int64_t row = block * kRowBlock;
      mirror(out, row, smaller(kRowBlock, m - row));
    });
  }

  // Copy what is left of the diagonal in some rows to what is above it.
  void mirror(float* x, int64_t begin, int64_t count) const {
    for (int64_t i = begin; i < begin + count; i += 4) {
      const int64_t rows = smaller(4, begin + count - i);
      int64_t j = 0;
      if (rows == 4) {
        for (; j + 4 <= i; j += 4) transpose_four(x + i * side + j, side, x + j * side + i, side);
      }
      for (int64_t r = i; r < i + rows; ++r) {
        for (int64_t c = j; c < r; ++c) x[c * side + r] = x[r * side + c];
      }
    }
  }

  template <typename Body>
  void rows(int64_t stride, const Body& body) const {
    for (int64_t i = 0; i < m; ++i) body(i * stride);
  }

  // out ← a x + b y over rows; y may be null, and out may be x or y.
  void combine(const float* x, float a, const float* y, float b, float* out, int64_t stride) const {
    for (int64_t i = 0; i < m * stride; i += kLanes) {
      const F32 first = load(x + i) * a;
      store(out + i, y == nullptr ? first : first + load(y + i) * b);
    }
  }

  // out ← a x + b xᵀ; out is not x.
  void with_transposed(const float* x, float a, float b, float* out) const {
    for_each(team, (m + kRowBlock - 1) / kRowBlock, [&](int64_t block, int64_t) {
      const int64_t begin = block * kRowBlock, end = smaller(m, begin + kRowBlock);
      for (int64_t i = begin; i < end; i += 4) {
        const int64_t count = smaller(4, end - i);
        int64_t j = 0;
        if (count == 4) {
          for (; j + 4 <= m; j += 4)
            transpose_four(x + j * side + i, side, out + i * side + j, side);
        }
        for (int64_t r = i; r < i + count; ++r) {
          for (int64_t c = j; c < m; ++c) out[r * side + c] = x[c * side + r];
          for (int64_t c = m; c < round_up(m, kLanes); ++c) out[r * side + c] = 0;
          for (int64_t c = 0; c < m; c += kLanes) {
            float* at = out + r * side + c;
            store(at, load(x + r * side + c) * a + load(at) * b);
          }
        }
      }
    });
  }

  void add_to_diagonal(float* x, float value) const {
    for (int64_t i = 0; i < m; ++i) x[i * side + i] += value;
  }

  // 1 / (largest row sum · largest column sum). The start decides how far the steps come, so its
  // sums are fp64; `doubles` has room for a column's.
  float start_factor(const float* a, float* row_sums, float* column_sums, double* doubles,
                     float* row_max, float* column_max) const {
    *row_max = *column_max = -infinity();
    for (int64_t j = 0; j < m; ++j) doubles[j] = 0;
    for (int64_t i = 0; i < m; ++i) {
      double sum = 0;
      for (int64_t j = 0; j < m; ++j) {
        sum += a[i * side + j];
        doubles[j] += a[i * side + j];
      }
      row_sums[i] = static_cast<float>(sum);
      *row_max = row_sums[i] > *row_max ? row_sums[i] : *row_max;
    }
    for (int64_t j = 0; j < m; ++j) {
      column_sums[j] = static_cast<float>(doubles[j]);
      *column_max = column_sums[j] > *column_max ? column_sums[j] : *column_max;
    }
    return 1 / (*row_max * *column_max);
  }

  // σZ₀.
  void start(const float* a, float factor, float* z) const {
    with_transposed(a, 0, factor * kSigma, z);
  }

  // X and Q of a classic step, and the next σZ. `t` is room for T.
  void step(const float* a, const float* z, float* x, float* q, float* t, float* next) const {
    squares(of(a), of(z), x, false, -1);
    combine(x, 1, nullptr, 0, t, side);
    add_to_diagonal(t, kOnce);
    float* r = next;  // until it is written
    squares(of(x), of(t), r);
    add_to_diagonal(r, kTwice);
    squares(of(x), of(r), q);
    add_to_diagonal(q, kThrice);
    squares(of(z), of(q), next);
  }

  // S = X² of a thin step, and the next X.
  void thin_step(const float* x, float* s, float* t, float* next) const {
    symmetric(of(x), of(x), s);
    combine(s, 1, x, kOnce, t, side);
    combine(x, kThrice, s, kTwice, next, side);
    symmetric(of(s), of(t), next, true);
  }

  // out ← X w + factor · w.
  void apply(const float* x, const float* w, float factor, const float* plus, float* out) const {
    combine(plus, factor, nullptr, 0, out, wide);
    multiply(of(x), {w, wide, 1}, m, d, out, wide, true);
  }
};

// What the forward pass leaves for the backward pass.
struct PinvChain {
  float *zs, *xs, *qs;  // of the classic steps, one after the other; zs has the last Z too
  float *thin_xs, *thin_ss;
  float *inputs, *firsts, *seconds;  // w, t1 and t2 of each thin step
  float *t, *u;

  void lay_out(const Pinv& p, Arena& arena, bool record) {
    const int64_t square = round_up(p.m * p.side, 16), narrow = round_up(p.m * p.wide, 16);
    const int64_t kept = record ? p.classic : smaller(p.classic, 1);
    zs = arena.take(square * (record ? p.classic + 1 : 2));
    xs = arena.take(square * kept);
    qs = arena.take(square * kept);
    thin_xs = arena.take(square * p.thin);
    thin_ss = arena.take(square * p.thin);
    inputs = arena.take(narrow * p.thin);
    firsts = arena.take(narrow * p.thin);
    seconds = arena.take(narrow * p.thin);
    t = p.square(arena);
    u = p.narrow(arena);
  }
};

// Runs the steps on A; returns the last σZ, and Q…Q w in chain.u.
inline const float* run_chain(const Pinv& p, const PinvChain& chain, bool record, const float* a,
                              float start_factor, const float* w) {
  const int64_t square = round_up(p.m * p.side, 16), narrow = round_up(p.m * p.wide, 16);
  p.start(a, start_factor, chain.zs);
  float* z = chain.zs;
  for (int64_t i = 0; i < p.classic; ++i) {
    float* next = chain.zs + square * (record ? i + 1 : (i + 1) % 2);
    const int64_t at = record ? i * square : 0;
    p.step(a, z, chain.xs + at, chain.qs + at, chain.t, next);
    z = next;
  }
  if (p.thin > 0) p.symmetric(p.of(a), p.of(z), chain.thin_xs, false, -1);
  for (int64_t i = 0; i + 1 < p.thin; ++i) {
    float* x = chain.thin_xs + i * square;
    p.thin_step(x, chain.thin_ss + i * square, chain.t, x + square);
  }
  p.combine(w, 1, nullptr, 0, chain.u, p.wide);
  for (int64_t i = p.thin - 1; i >= 0; --i) {
    const float* x = chain.thin_xs + i * square;
    float *input = chain.inputs + i * narrow, *first = chain.firsts + i * narrow,
          *second = chain.seconds + i * narrow;
    p.combine(chain.u, 1, nullptr, 0, input, p.wide);
    p.apply(x, input, kOnce, input, first);
    p.apply(x, first, kTwice, input, second);
    p.apply(x, second, kThrice, input, chain.u);
  }
  return z;
}

}  // namespace
}  // namespace gimp_fast
