// The inner loop of the CPU masked reconstruction, compiled once for any processor and once for
// AVX2.
#pragma once

#include <cstdint>

namespace gimp_fast {

// Sum of |decoded - target| over one row of `channels`. The signs of the differences replace
// `decoded` and are added to `sign_sums`, unless that is null.
using SignRow = double (*)(void* decoded, const void* target, int64_t channels, int32_t* sign_sums);

// Indexed by the dtype of decoded, then of target: float32, float64, bfloat16, float16.
struct SignRowFunctions {
  SignRow of[4][4];
};

namespace baseline {
extern const SignRowFunctions sign_rows;
}
namespace avx2 {
extern const SignRowFunctions sign_rows;
}

}  // namespace gimp_fast
