// The inner loops of the CPU Nyström attention. CMake compiles this file once for each instruction
// set, into the namespace that GIMP_FAST_ISA names.

#include "nystrom_head_bwd.h"

namespace gimp_fast {
namespace {

int64_t workspace(const Head& head, int64_t workers, bool backward) {
  Arena arena = {nullptr};
  Team team;
  team.workers = workers;
  team.threads = workers > 1 ? &team : nullptr;  // only asked whether there are threads
  const Room room(head, team, backward, arena);
  return arena.used;
}

bool is_finite(float x) { return x - x == 0; }

// The largest size of an entry; NaN is left out.
float largest_entry(const Head& head, Rows rows, int64_t count, float* scratch, int64_t stride) {
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
float shrinking(float largest) {
  float factor = 1;
  while (is_finite(largest) && largest * factor > 0x1p56f) factor *= 0.5f;
  return factor;
}

bool forward_once(const Head& head, const Room& room, const Team& team) {
  return head.tokens <= head.landmarks ? forward_exact(head, room, team)
                                       : forward_nystrom(head, room, team);
}

void forward(const Head& head, const Team& team, float* block) {
  Arena arena = {block};
  const Room room(head, team, false, arena);
  head.factors[0] = head.factors[1] = 1;
  if (forward_once(head, room, team)) return;
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
  forward_once(head, room, team);
}

void backward(const Head& head, const Team& team, float* block) {
  Arena arena = {block};
  const Room room(head, team, true, arena);
  if (head.tokens <= head.landmarks) {
    backward_exact(head, room, team);
  } else {
    backward_nystrom(head, room, team);
  }
}

}  // namespace

const NystromKernels GIMP_FAST_ISA::nystrom = {workspace, forward, backward};

}  // namespace gimp_fast
