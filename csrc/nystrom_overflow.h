// Scores that would overflow are computed from smaller q and k. Only for files that are compiled
// for an instruction set.
#pragma once

#include "nystrom_head.h"

namespace gimp_fast {
namespace {

// The largest size of an entry; NaN is left out.
inline float largest_entry(const Head& head, Rows rows, int64_t count, float* scratch,
                           int64_t stride) {
  float largest = 0;
  for (int64_t at = 0; at < count; at += kChunk) {
    const int64_t some = smaller(kChunk, count - at);
    read_rows(head, rows, at, some, 1, scratch, stride);
    for (int64_t i = 0; i < some * stride; ++i) {
      const float size = scratch[i] < 0 ? -scratch[i] : scratch[i];
      largest = size > largest ? size : largest;
    }
  }
  return largest;
}

// 2^(56 − ⌈log2 largest⌉), at most 1: sums of D ≤ 4096 products of two numbers up to 2^56 are below
// the largest fp32.
inline float shrinking(float largest) {
  float factor = 1;
  while (is_finite(largest) && largest * factor > 0x1p56f) factor *= 0.5f;
  return factor;
}

// Calls once(), which returns whether its results are finite; once more with smaller q and k if
// they are not.
template <typename Once>
inline void forward_without_overflow(const Head& head, const Room& room, const Once& once) {
  head.factors[0] = head.factors[1] = 1;
  if (once()) return;
  float* scratch = room.of_worker(head, 0).first;
  float largest = largest_entry(head, head.q, head.queries, scratch, room.wide);
  const int64_t marks = head.marks_given && head.tokens > head.landmarks ? room.m * head.width : 0;
  for (int64_t i = 0; i < marks; ++i) {
    const float size = head.q_marks[i] < 0 ? -head.q_marks[i] : head.q_marks[i];
    largest = size > largest ? size : largest;
  }
  head.factors[0] = shrinking(largest);
  head.factors[1] = shrinking(largest_entry(head, head.k, head.tokens, scratch, room.wide));
  if (head.factors[0] == 1 && head.factors[1] == 1) return;
  for (int64_t i = 0; i < marks; ++i) head.q_marks[i] *= head.factors[0];
  once();
}

}  // namespace
}  // namespace gimp_fast
