// Inner loops of linear layers of few channels, compiled once for each instruction set.
#pragma once

#include <cstdint>

#include "team.h"

namespace gimp_fast {

// x (R, C), weight (O, C), out or grad (R, O); all fp32, rows contiguous.
struct LinearCall {
  int64_t rows, inputs, outputs;
  const float *x, *weight, *bias, *grad;          // bias and grad may be null
  float *out, *grad_x, *grad_weight, *grad_bias;  // each may be null
  bool adds;                                      // grad_x holds what is added to
};

struct LinearKernels {
  // Floats of room.
  int64_t (*workspace)(const LinearCall& call, int64_t workers);
  void (*forward)(const LinearCall& call, const Team& team, float* workspace);
  void (*backward)(const LinearCall& call, const Team& team, float* workspace);
};

namespace baseline {
extern const LinearKernels linear;
}
namespace avx2 {
extern const LinearKernels linear;
}
namespace avx512 {
extern const LinearKernels linear;
}

}  // namespace gimp_fast
