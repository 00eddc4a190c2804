// Rows of tokens for the CPU Nyström attention: read, written, averaged over segments, convolved.
// Only for files that are compiled for an instruction set.
#pragma once

#include "cpu_products.h"
#include "cpu_team.h"
#include "nystrom_attention.h"

namespace gimp_fast {
namespace {

// Tokens whose scores are in memory at a time. As many as a run of a product, which adds them up.
constexpr int64_t kChunk = kRun;
// Tokens of a range have their own sums, which are added in order. Their number depends on the bag
// alone, so that the threads do not matter.
constexpr int64_t kShortestRange = 1024, kMostRanges = 16;
// Rows of a segment are added up in blocks.
constexpr int64_t kBlock = 32;

struct Ranges {
  int64_t rows, count, length;

  explicit Ranges(int64_t rows) : rows(rows) {
    const int64_t wanted = (rows + kShortestRange - 1) / kShortestRange;
    const int64_t most = smaller(wanted, kMostRanges) > 0 ? smaller(wanted, kMostRanges) : 1;
    length = round_up((rows + most - 1) / most, kChunk);
    count = length > 0 ? (rows + length - 1) / length : 0;
  }
  int64_t begin(int64_t range) const { return range * length; }
  int64_t end(int64_t range) const { return smaller(rows, (range + 1) * length); }
};

// Room in a block of memory; without a block, only the size is counted.
struct Arena {
  float* base;
  int64_t used = 0;

  float* take(int64_t floats) {
    float* part = base == nullptr ? nullptr : base + used;
    used += round_up(floats, 16);
    return part;
  }
  double* take_doubles(int64_t count) { return reinterpret_cast<double*>(take(2 * count)); }
};

template <typename T>
inline void read_row(const T* from, int64_t width, float factor, float* to) {
  for (int64_t d = 0; d < width; ++d) to[d] = widen(from[d]) * factor;
}

template <typename T>
inline void read_rows_of(const T* from, int64_t stride, int64_t count, int64_t width, float factor,
                         float* to, int64_t to_stride) {
  for (int64_t i = 0; i < count; ++i, from += stride, to += to_stride) {
    read_row(from, width, factor, to);
    for (int64_t d = width; d < to_stride; ++d) to[d] = 0;
  }
}

// Rows [begin, begin + count) times `factor`, as fp32 rows `to_stride` apart, zero beyond the
// width.
inline void read_rows(const Head& head, Rows rows, int64_t begin, int64_t count, float factor,
                      float* to, int64_t to_stride) {
  const int64_t at = begin * rows.stride, stride = rows.stride, width = head.width;
  switch (head.element) {
    case Element::kFloat32:
      return read_rows_of(static_cast<const float*>(rows.data) + at, stride, count, width, factor,
                          to, to_stride);
    case Element::kBFloat16:
      return read_rows_of(static_cast<const BFloat16*>(rows.data) + at, stride, count, width,
                          factor, to, to_stride);
    case Element::kFloat16:
      return read_rows_of(static_cast<const Half*>(rows.data) + at, stride, count, width, factor,
                          to, to_stride);
  }
}

// Rows further apart than this share few places of a cache.
constexpr int64_t kFarApart = 512;

// Rows [begin, begin + count) times `factor`, as fp32: where they lie if that will do, else read
// into `room`, `stride` apart.
inline Strided rows_at(const Head& head, Rows rows, int64_t begin, int64_t count, float factor,
                       float* room, int64_t stride) {
  if (head.element == Element::kFloat32 && factor == 1 && head.width == stride &&
      rows.stride < kFarApart) {
    return {static_cast<const float*>(rows.data) + begin * rows.stride, rows.stride, 1};
  }
  read_rows(head, rows, begin, count, factor, room, stride);
  return {room, stride, 1};
}

template <typename T>
inline void write_rows_of(const float* from, int64_t from_stride, int64_t count, int64_t width,
                          float factor, T* to, int64_t stride) {
  for (int64_t i = 0; i < count; ++i, from += from_stride, to += stride) {
    for (int64_t d = 0; d < width; ++d) narrow(from[d] * factor, to + d);
  }
}

inline void write_rows(const Head& head, MutableRows rows, int64_t begin, int64_t count,
                       const float* from, int64_t from_stride, float factor = 1.0f) {
  const int64_t at = begin * rows.stride, stride = rows.stride, width = head.width;
  switch (head.element) {
    case Element::kFloat32:
      return write_rows_of(from, from_stride, count, width, factor,
                           static_cast<float*>(rows.data) + at, stride);
    case Element::kBFloat16:
      return write_rows_of(from, from_stride, count, width, factor,
                           static_cast<BFloat16*>(rows.data) + at, stride);
    case Element::kFloat16:
      return write_rows_of(from, from_stride, count, width, factor,
                           static_cast<Half*>(rows.data) + at, stride);
  }
}

// Segment i of the landmarks is tokens segment_begin(i) up to segment_begin(i + 1).
inline int64_t segment_begin(const Head& head, int64_t i) {
  return i * head.tokens / head.landmarks;
}

// Calls body(i, segment) for the tokens begin + i of `count`.
template <typename Body>
inline void for_segments(const Head& head, int64_t begin, int64_t count, const Body& body) {
  int64_t segment = ((begin + 1) * head.landmarks - 1) / head.tokens;
  int64_t end = segment_begin(head, segment + 1);
  for (int64_t i = 0; i < count; ++i) {
    if (begin + i == end) end = segment_begin(head, ++segment + 1);
    body(i, segment);
  }
}

inline void add_row(const float* row, int64_t width, float factor, float* to) {
  for (int64_t d = 0; d < width; ++d) to[d] += row[d] * factor;
}

// Means of the segments (M, D); `scratch` holds kBlock + 1 rows.
inline void average_segment(const Head& head, Rows rows, float factor, int64_t i, float* mean,
                            float* scratch, int64_t stride) {
  const int64_t begin = segment_begin(head, i), end = segment_begin(head, i + 1);
  float* block = scratch + kBlock * stride;
  for (int64_t d = 0; d < head.width; ++d) mean[d] = 0;
  for (int64_t start = begin; start < end; start += kBlock) {
    const int64_t count = smaller(kBlock, end - start);
    read_rows(head, rows, start, count, factor, scratch, stride);
    for (int64_t d = 0; d < stride; ++d) block[d] = 0;
    for (int64_t n = 0; n < count; ++n) add_row(scratch + n * stride, stride, 1, block);
    add_row(block, head.width, 1, mean);
  }
  const float length = static_cast<float>(end - begin);
  for (int64_t d = 0; d < head.width; ++d) mean[d] /= length;
}

// ---- The residual convolution: out[n] += Σₜ filter[t] · rows[n + t − reach] ----

inline int64_t reach_of(const Head& head) { return (head.filter_length - 1) / 2; }

// Zeros before and after the taps that a tile of rows reads.
constexpr int64_t kTapMargin = 16;

inline int64_t taps_size(const Head& head) { return head.filter_length + 2 * kTapMargin; }

// The filter between zeros.
inline void place_taps(const Head& head, bool flipped, float* to) {
  const int64_t length = head.filter_length;
  for (int64_t i = 0; i < taps_size(head); ++i) to[i] = 0;
  for (int64_t t = 0; t < length; ++t) {
    to[kTapMargin + t] = head.filter[flipped ? length - 1 - t : t];
  }
}

// Rows [begin − reach, begin + count + reach), zeros beyond the ends of the bag: where they lie if
// that will do, else read into `room`, `stride` apart.
inline Strided window_at(const Head& head, Rows rows, int64_t begin, int64_t count, float* room,
                         int64_t stride) {
  const int64_t reach = reach_of(head), last = begin + count + reach;
  int64_t first = begin - reach;
  if (first >= 0 && last <= head.tokens) {
    return rows_at(head, rows, first, last - first, 1, room, stride);
  }
  float* to = room;
  for (; first < 0; ++first, to += stride) std::memset(to, 0, stride * sizeof(float));
  const int64_t inside = smaller(last, head.tokens) - first;
  read_rows(head, rows, first, inside, 1, to, stride);
  std::memset(to + inside * stride, 0, (last - first - inside) * stride * sizeof(float));
  return {room, stride, 1};
}

// Add the convolution of a window to `count` rows, `stride` apart; `taps` are those of place_taps.
inline void add_convolution(const Head& head, const float* taps, Strided window, int64_t stride,
                            int64_t count, float* out) {
  for (int64_t first = 0; first < head.width; first += kPanel) {
    const int64_t width = panel_width(head.width, first);
    const int64_t rows = tile_rows(static_cast<int>(width / kLanes));
    for (int64_t i = 0; i < count; i += rows) {
      const int64_t some = smaller(rows, count - i);
      // Row r of the tile reads tap j − r for row j of the window.
      panel_product(width, {taps + kTapMargin, -1, 1}, window.from_row(i).data + first, window.rows,
                    out + i * stride + first, stride, some, head.filter_length + some - 1, true);
    }
  }
}

// Add to `sums` (filter_length,) the products of `count` rows of grad with the window around them.
inline void add_filter_grad(const Head& head, Strided grad, Strided window, int64_t count,
                            double* sums) {
  constexpr int kTaps = 8;
  const int64_t length = head.filter_length;
  int64_t t = 0;
  for (; t + kTaps <= length; t += kTaps) {
    F32 totals[kTaps] = {};
    for (int64_t i = 0; i < count; ++i) {
      const float *row = grad.from_row(i).data, *rows = window.from_row(i + t).data;
      for (int64_t d = 0; d < head.width; d += kLanes) {
        const F32 g = load(row + d);
        for (int u = 0; u < kTaps; ++u) totals[u] += g * load(rows + u * window.rows + d);
      }
    }
    for (int u = 0; u < kTaps; ++u) sums[t + u] += sum_of(totals[u]);
  }
  for (; t < length; ++t) {
    F32 total = {};
    for (int64_t i = 0; i < count; ++i) {
      const float *row = grad.from_row(i).data, *other = window.from_row(i + t).data;
      for (int64_t d = 0; d < head.width; d += kLanes) total += load(row + d) * load(other + d);
    }
    sums[t] += sum_of(total);
  }
}

}  // namespace
}  // namespace gimp_fast
