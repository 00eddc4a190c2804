// What the operators of the CPU Nyström attention give to their inner loops, which are compiled
// once for each instruction set.
//
// Letters as everywhere: N tokens, M landmarks, D width of a head; R queries, which are all tokens
// or a few of them.
#pragma once

#include <cstdint>

#include "team.h"

namespace gimp_fast {

enum class Element { kFloat32, kBFloat16, kFloat16 };

// Rows of `width` elements, `stride` elements apart.
struct Rows {
  const void* data = nullptr;
  int64_t stride = 0;
};
struct MutableRows {
  void* data = nullptr;
  int64_t stride = 0;
};

// One head of one bag. Pointers without a type point to elements of q's type, others to fp32.
struct Head {
  int64_t tokens, queries, width, landmarks, iterations;
  bool marks_given;  // Q̃ is an input, and the queries are not all tokens
  float scale;
  Element element;
  Rows q, k, v;
  // Q̃ and K̃ (M, D), W and Y (M, D), log2 Σ exp of the landmarks' scores (M,): written by the
  // forward pass, read by the backward pass.
  float *q_marks, *k_marks, *values, *mixed, *mark_lse;
  // Powers of two by which q and k are multiplied, so that no score overflows.
  float* factors;
  // The residual convolution over v, or null; `positions` holds the token of each query, rising, or
  // null if query i is token i.
  const float* filter;
  int64_t filter_length;
  const int64_t* positions;
  // A row for each query; for the weights of one query, a number for each token. `mixed` then holds
  // one number for each landmark.
  MutableRows out;
  Rows grad;
  MutableRows grad_q, grad_k, grad_v;
  float* grad_q_marks;
  double* grad_filter;  // (filter_length,)
};

// The inner loops for one instruction set. Results do not depend on the team.
struct NystromKernels {
  // Floats that one head needs.
  int64_t (*workspace)(const Head& head, int64_t workers, bool backward);
  void (*forward)(const Head& head, const Team& team, float* workspace);
  void (*backward)(const Head& head, const Team& team, float* workspace);
};

namespace baseline {
extern const NystromKernels nystrom, nystrom_weights;
}
namespace avx2 {
extern const NystromKernels nystrom, nystrom_weights;
}
namespace avx512 {
extern const NystromKernels nystrom, nystrom_weights;
}

}  // namespace gimp_fast
