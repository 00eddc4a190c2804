// Products of small matrices, in fp32: a factor is packed once into panels as wide as a tile, and a
// tile of the result stays in registers. Only for files that are compiled for an instruction set.
//
// Every element of a result is summed in one order, whichever rows are computed together: in runs
// of kRun terms, each added up from its first to its last. Short runs keep rounding errors small.
#pragma once

#include "cpu_vectors.h"

namespace gimp_fast {
namespace {

// Rows and vectors of a tile: its sums, a row of the panel and a factor fit the registers.
#if defined(__AVX512F__)
constexpr int kTileVectors = 4;
constexpr int tile_rows(int vectors) { return vectors == 4 ? 6 : vectors == 3 ? 8 : 12; }
#else
constexpr int kTileVectors = 2;
constexpr int tile_rows(int vectors) { return vectors == 2 ? 6 : 12; }
#endif
constexpr int64_t kPanel = kTileVectors * kLanes;
// A block of kRun rows of a panel stays in the first cache.
constexpr int64_t kRun = 96;

// A matrix in memory: element (i, j) is at data[i * rows + j * columns].
struct Strided {
  const float* data;
  int64_t rows, columns;

  Strided transposed() const { return {data, columns, rows}; }
  Strided from_row(int64_t row) const { return {data + row * rows, rows, columns}; }
};

// Floats of a packed (k, n) matrix.
inline int64_t packed_size(int64_t k, int64_t n) { return k * round_up(n, kLanes); }

inline int64_t panel_width(int64_t n, int64_t first) {
  return smaller(kPanel, round_up(n - first, kLanes));
}

inline void transpose_four(const float* from, int64_t stride, float* to, int64_t to_stride) {
  Four r[4];
  for (int i = 0; i < 4; ++i) r[i] = load<Four>(from + i * stride);
  const Four a = GIMP_FAST_SHUFFLE(r[0], r[1], 0, 4, 1, 5);
  const Four b = GIMP_FAST_SHUFFLE(r[0], r[1], 2, 6, 3, 7);
  const Four c = GIMP_FAST_SHUFFLE(r[2], r[3], 0, 4, 1, 5);
  const Four d = GIMP_FAST_SHUFFLE(r[2], r[3], 2, 6, 3, 7);
  store(to, GIMP_FAST_SHUFFLE(a, c, 0, 1, 4, 5));
  store(to + to_stride, GIMP_FAST_SHUFFLE(a, c, 2, 3, 6, 7));
  store(to + 2 * to_stride, GIMP_FAST_SHUFFLE(b, d, 0, 1, 4, 5));
  store(to + 3 * to_stride, GIMP_FAST_SHUFFLE(b, d, 2, 3, 6, 7));
}

// One panel of a (k, n) matrix, times `factor`; columns beyond n are zero.
inline void pack_panel(Strided b, int64_t k, int64_t n, int64_t first, float factor, float* out) {
  const int64_t width = panel_width(n, first), columns = smaller(width, n - first);
  out += first * k;
  const float* from = b.data + first * b.columns;
  if (b.columns == 1) {
    for (int64_t p = 0; p < k; ++p, out += width) {
      const float* row = from + p * b.rows;
      if (columns == width) {
        for (int64_t j = 0; j < width; j += kLanes) store(out + j, load(row + j) * factor);
      } else {
        for (int64_t j = 0; j < columns; ++j) out[j] = row[j] * factor;
        for (int64_t j = columns; j < width; ++j) out[j] = 0;
      }
    }
    return;
  }
  int64_t j = 0;
  if (b.rows == 1) {
    for (; j + 4 <= columns; j += 4) {
      int64_t p = 0;
      for (; p + 4 <= k; p += 4) {
        transpose_four(from + j * b.columns + p, b.columns, out + p * width + j, width);
      }
      for (; p < k; ++p) {
        for (int i = 0; i < 4; ++i) out[p * width + j + i] = from[(j + i) * b.columns + p];
      }
    }
  }
  for (; j < width; ++j) {
    for (int64_t p = 0; p < k; ++p) {
      out[p * width + j] = j < columns ? from[p * b.rows + j * b.columns] : 0;
    }
  }
  if (factor != 1.0f) {
    for (int64_t i = 0; i < k * width; i += kLanes) store(out + i, load(out + i) * factor);
  }
}

inline void pack(Strided b, int64_t k, int64_t n, float* out, float factor = 1.0f) {
  for (int64_t first = 0; first < n; first += kPanel) pack_panel(b, k, n, first, factor, out);
}

// out {=, +=} A (rows, k) times k rows of a panel, `step` floats apart; rows of `out` are `stride`
// apart.
template <int kRows, int kVectors>
inline void tile(Strided a, const float* panel, int64_t step, float* out, int64_t stride, int64_t k,
                 bool add) {
  F32 sums[kRows][kVectors] = {};
  const float* from = a.data;
  for (int64_t p = 0; p < k; ++p) {
    F32 row[kVectors];
    for (int j = 0; j < kVectors; ++j) row[j] = load(panel + j * kLanes);
#pragma GCC unroll 12
    for (int i = 0; i < kRows; ++i) {
      const F32 factor = broadcast(from[i * a.rows]);
#pragma GCC unroll 4
      for (int j = 0; j < kVectors; ++j) sums[i][j] += factor * row[j];
    }
    from += a.columns;
    panel += step;
  }
  for (int i = 0; i < kRows; ++i) {
    for (int j = 0; j < kVectors; ++j) {
      float* at = out + i * stride + j * kLanes;
      store(at, add ? load(at) + sums[i][j] : sums[i][j]);
    }
  }
}

template <int kRows, int kVectors>
inline void last_tile(int64_t rows, Strided a, const float* panel, int64_t step, float* out,
                      int64_t stride, int64_t k, bool add) {
  if (rows == kRows) {
    tile<kRows, kVectors>(a, panel, step, out, stride, k, add);
  } else if constexpr (kRows > 1) {
    last_tile<kRows - 1, kVectors>(rows, a, panel, step, out, stride, k, add);
  }
}

template <int kVectors>
inline void panel_rows(Strided a, const float* panel, int64_t step, float* out, int64_t stride,
                       int64_t m, int64_t k, bool add) {
  constexpr int kRows = tile_rows(kVectors);
  int64_t i = 0;
  for (; i + kRows <= m; i += kRows) {
    tile<kRows, kVectors>(a.from_row(i), panel, step, out + i * stride, stride, k, add);
  }
  if (i < m) {
    last_tile<kRows - 1, kVectors>(m - i, a.from_row(i), panel, step, out + i * stride, stride, k,
                                   add);
  }
}

inline void panel_product(int64_t width, Strided a, const float* panel, int64_t step, float* out,
                          int64_t stride, int64_t m, int64_t k, bool add) {
  switch (width / kLanes) {
    case 1: return panel_rows<1>(a, panel, step, out, stride, m, k, add);
    case 2: return panel_rows<2>(a, panel, step, out, stride, m, k, add);
#if defined(__AVX512F__)
    case 3: return panel_rows<3>(a, panel, step, out, stride, m, k, add);
    case 4: return panel_rows<4>(a, panel, step, out, stride, m, k, add);
#endif
  }
}

// The second factor of a product, (k, n): packed, or rows `step` floats apart that have room for n
// rounded up to vectors.
struct Factor {
  const float* data;
  int64_t step = 0;  // 0: packed
};

// out {=, +=} A (m, k) B (k, n). Rows of `out` have room for n rounded up to vectors; what lies
// beyond n is overwritten.
inline void product(Strided a, Factor b, float* out, int64_t stride, int64_t m, int64_t n,
                    int64_t k, bool add = false) {
  for (int64_t first = 0; first < n; first += kPanel) {
    const int64_t width = panel_width(n, first), step = b.step ? b.step : width;
    const float* panel = b.data + (b.step ? first : first * k);
    for (int64_t start = 0; start < k; start += kRun) {
      const Strided part = {a.data + start * a.columns, a.rows, a.columns};
      panel_product(width, part, panel + start * step, step, out + first, stride, m,
                    smaller(kRun, k - start), add || start > 0);
    }
  }
}

}  // namespace
}  // namespace gimp_fast
