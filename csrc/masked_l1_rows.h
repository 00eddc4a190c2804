// The inner loop of the CPU masked L1, compiled once for any processor and once for AVX2.
#pragma once

#include <cstdint>

namespace gimp_fast {

// Sum of |prediction - target| over one row of `channels`; its packed signs go to `signs`, unless
// that is null.
using AddRow = double (*)(const void* prediction, const void* target, int64_t channels,
                          uint8_t* signs);

struct RowFunctions {
  AddRow float32, float64, bfloat16, float16;
};

namespace baseline {
extern const RowFunctions rows;
}
namespace avx2 {
extern const RowFunctions rows;
}

}  // namespace gimp_fast
