// Inner loop of dropout on the CPU, compiled once for each instruction set.
#pragma once

#include <cstdint>

namespace gimp_fast {

// Elements that one block of random numbers serves.
constexpr int64_t kDropoutBlock = 128;

// `count` elements from block `block` on. Each is dropped with probability `dropped` / 2^16, and
// multiplied by `scale` otherwise.
using DropoutRange = void (*)(uint64_t seed, uint64_t block, uint32_t dropped, float scale,
                              const float* x, int64_t count, float* out);

namespace baseline {
extern const DropoutRange dropout_range;
}
namespace avx2 {
extern const DropoutRange dropout_range;
}
namespace avx512 {
extern const DropoutRange dropout_range;
}

}  // namespace gimp_fast
