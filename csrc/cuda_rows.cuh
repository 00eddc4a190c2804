// What the CUDA kernels over rows share: types and grids. Kernels, and what chooses their launch,
// know nothing of tensors, so that the tests can compile them for a CPU.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>

namespace gimp_fast {

constexpr int kThreads = 256;
constexpr int kWarp = 32;
// A grid of this size fills the largest card several times over.
constexpr int64_t kMaxWriteBlocks = 8192;

template <typename T>
using Accumulator = std::conditional_t<std::is_same_v<T, double>, double, float>;

template <typename T>
__device__ Accumulator<T> widen(T value) {
  return static_cast<Accumulator<T>>(value);
}

// The smallest power of two that covers `groups`, a warp at most: short rows share a warp.
inline int lanes_for(int64_t groups) {
  int lanes = 1;
  while (lanes < kWarp && lanes < groups) lanes *= 2;
  return lanes;
}

// How a kernel goes over rows. Aligned: every row starts where a vector may, and holds whole ones.
struct RowGrid {
  bool aligned;
  int lanes;
  int64_t blocks;
};

inline int64_t blocks_for(int64_t rows, int lanes, int64_t most) {
  const int64_t block_rows = kThreads / lanes;
  return std::min((rows + block_rows - 1) / block_rows, most);
}

}  // namespace gimp_fast
