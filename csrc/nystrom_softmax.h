// Softmax of scores by rows, and of the landmarks' scores over chunks of keys. Only for files that
// are compiled for an instruction set. Scores are in base 2: they were multiplied by log2(e).
#pragma once

#include "cpu_vectors.h"

namespace gimp_fast {
namespace {

constexpr float kLog2e = 1.4426950408889634f;

// Rows of scores are a little longer than their vectors, because rows a power of two apart would
// share few places of a cache.
inline int64_t scores_stride(int64_t columns) { return round_up(columns, kLanes) + 16; }

inline void fill(float* from, int64_t begin, int64_t end, float value) {
  for (int64_t j = begin; j < end; ++j) from[j] = value;
}

// Replaces a row by 2^(score − largest) and returns their sum. Room beyond the columns becomes 0.
inline float exponentials_of_row(float* row, int64_t columns) {
  const int64_t padded = round_up(columns, kLanes);
  fill(row, columns, padded, -infinity());
  F32 peaks = load(row);
  for (int64_t j = kLanes; j < padded; j += kLanes) peaks = larger(load(row + j), peaks);
  const F32 peak = broadcast(largest_of(peaks));
  F32 sums = {};
  for (int64_t j = 0; j < padded; j += kLanes) {
    const F32 value = exp2_of(load(row + j) - peak);
    store(row + j, value);
    sums += value;
  }
  return sum_of(sums);
}

// Softmax of every row, times `factor` before; natural scores.
inline void softmax_rows(float* scores, int64_t stride, int64_t rows, int64_t columns) {
  for (int64_t i = 0; i < rows; ++i) {
    float* row = scores + i * stride;
    const float inverse = 1 / exponentials_of_row(row, columns);
    for (int64_t j = 0; j < columns; j += kLanes) store(row + j, load(row + j) * inverse);
  }
}

// grad ← softmax · (grad − ⟨grad, softmax⟩) for every row, times `factor`.
inline void softmax_rows_bwd(const float* softmax, float* grad, int64_t stride, int64_t rows,
                             int64_t columns, float factor = 1.0f) {
  for (int64_t i = 0; i < rows; ++i) {
    const float* p = softmax + i * stride;
    float* g = grad + i * stride;
    F32 sums = {};
    for (int64_t j = 0; j < columns; j += kLanes) sums += load(p + j) * load(g + j);
    const F32 sum = broadcast(sum_of(sums));
    for (int64_t j = 0; j < columns; j += kLanes) {
      store(g + j, load(p + j) * (load(g + j) - sum) * factor);
    }
  }
}

// Largest score, and sum of 2^(score − largest), of each landmark so far.
struct Statistics {
  float *peaks, *sums;

  void reset(int64_t landmarks) const {
    fill(peaks, 0, round_up(landmarks, kLanes), -infinity());
    fill(sums, 0, round_up(landmarks, kLanes), 0);
  }
};

// Scores (rows, landmarks) become 2^(score − peak) for the peaks so far. `change` gets the factors
// that earlier sums must be multiplied by.
inline void exponentials_of_chunk(float* scores, int64_t stride, int64_t rows, int64_t landmarks,
                                  Statistics so_far, float* change) {
  for (int64_t j = 0; j < landmarks; j += kLanes) {
    const F32 before = load(so_far.peaks + j);
    F32 peak = before;
    for (int64_t i = 0; i < rows; ++i) peak = larger(load(scores + i * stride + j), peak);
    F32 sum = {};
    for (int64_t i = 0; i < rows; ++i) {
      float* at = scores + i * stride + j;
      const F32 value = exp2_of(load(at) - peak);
      store(at, value);
      sum += value;
    }
    const F32 factor = exp2_of(before - peak);
    store(change + j, factor);
    store(so_far.peaks + j, peak);
    store(so_far.sums + j, load(so_far.sums + j) * factor + sum);
  }
}

// Multiply the rows of `sums` (landmarks, stride) by the factors, where they are not 1.
inline void multiply_rows(float* sums, int64_t stride, int64_t landmarks, const float* factors) {
  for (int64_t i = 0; i < landmarks; ++i) {
    if (factors[i] == 1) continue;
    float* row = sums + i * stride;
    for (int64_t d = 0; d < stride; d += kLanes) store(row + d, load(row + d) * factors[i]);
  }
}

// Add the sums of a later range to those of earlier ones.
inline void merge(Statistics total, float* sums, Statistics part, const float* part_sums,
                  int64_t landmarks, int64_t stride) {
  for (int64_t i = 0; i < landmarks; ++i) {
    const float a = total.peaks[i], b = part.peaks[i], peak = b > a ? b : a;
    const float of_total = exp2_of(broadcast(a - peak))[0],
                of_part = exp2_of(broadcast(b - peak))[0];
    total.peaks[i] = peak;
    total.sums[i] = total.sums[i] * of_total + part.sums[i] * of_part;
    for (int64_t d = i * stride; d < (i + 1) * stride; d += kLanes) {
      store(sums + d, load(sums + d) * of_total + load(part_sums + d) * of_part);
    }
  }
}

}  // namespace
}  // namespace gimp_fast
