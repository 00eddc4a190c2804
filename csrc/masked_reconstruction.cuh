// The kernel of the masked reconstruction: distances and signs of decoded rows, in one pass over
// memory. A group of lanes walks a row and adds up in a fixed order, without atomics: the result is
// bitwise reproducible.
#pragma once

#include "cuda_rows.cuh"

#include <torch/headeronly/macros/Macros.h>

#include <cstdint>
#include <type_traits>

namespace gimp_fast {

// Channels that a lane takes at once, where rows allow it.
constexpr int kFour = 4;

template <typename T, int Width>
struct alignas(sizeof(T) * Width > 16 ? 16 : sizeof(T) * Width) Channels {
  T value[Width];
};

// As torch does it: in fp64 if one of them is, then rounded to the dtype of the sum.
template <typename Decoded, typename Target>
__device__ Accumulator<Decoded> subtract(Decoded decoded, Target target) {
  if constexpr (std::is_same_v<Target, double>) {
    return static_cast<Accumulator<Decoded>>(static_cast<double>(widen(decoded)) - target);
  } else {
    return widen(decoded) - static_cast<Accumulator<Decoded>>(widen(target));
  }
}

// The lanes of a group must all be there. The sum is that of the first.
inline __device__ double group_sum(double value, int lanes) {
  for (int step = lanes / 2; step > 0; step /= 2) {
    value += __shfl_down_sync(0xffffffffu, value, step, lanes);
  }
  return value;
}

template <typename Decoded, typename Target, int Width>
__global__ void masked_reconstruction_rows_kernel(Decoded* decoded, const Target* target,
                                                  const int64_t* index, int64_t rows,
                                                  int64_t targets, int64_t channels, int lanes,
                                                  Accumulator<Decoded>* sums) {
  const int64_t block_rows = kThreads / lanes;
  const int lane = threadIdx.x % lanes;
  // Every thread goes round as often as the others of its block, so that all can exchange sums.
  for (int64_t first = blockIdx.x * block_rows; first < rows; first += gridDim.x * block_rows) {
    const int64_t row = first + threadIdx.x / lanes;
    Accumulator<Decoded> sum = 0;
    if (row < rows) {
      const int64_t source = index[row];
      CUDA_KERNEL_ASSERT(source >= 0 && source < targets);
      auto* d = reinterpret_cast<Channels<Decoded, Width>*>(decoded + row * channels);
      const auto* t = reinterpret_cast<const Channels<Target, Width>*>(target + source * channels);
#pragma unroll 4
      for (int64_t i = lane; i < channels / Width; i += lanes) {
        auto values = d[i];
        const auto expected = t[i];
#pragma unroll
        for (int j = 0; j < Width; ++j) {
          const Accumulator<Decoded> difference = subtract(values.value[j], expected.value[j]);
          sum += difference < 0 ? -difference : difference;
          const float sign = static_cast<float>((difference > 0) - (difference < 0));
          values.value[j] = static_cast<Decoded>(sign);
        }
        d[i] = values;
      }
    }
    const double total = group_sum(sum, lanes);
    if (row < rows && lane == 0) sums[row] = static_cast<Accumulator<Decoded>>(total);
  }
}

template <typename T>
bool takes_four(int64_t channels, const T* pointer) {
  return channels % kFour == 0 && reinterpret_cast<uintptr_t>(pointer) % 16 == 0;
}

template <typename Decoded, typename Target>
RowGrid masked_reconstruction_grid(const Decoded* decoded, const Target* target, int64_t rows,
                                   int64_t channels) {
  const bool four = takes_four(channels, decoded) && takes_four(channels, target);
  const int lanes = lanes_for(four ? channels / kFour : channels);
  return {four, lanes, blocks_for(rows, lanes, kMaxWriteBlocks)};
}

template <typename Launch, typename Decoded, typename Target>
void launch_masked_reconstruction(const Launch& launch, const RowGrid& grid, Decoded* decoded,
                                  const Target* target, const int64_t* index, int64_t rows,
                                  int64_t targets, int64_t channels, Accumulator<Decoded>* sums) {
  launch(grid.aligned ? masked_reconstruction_rows_kernel<Decoded, Target, kFour>
                      : masked_reconstruction_rows_kernel<Decoded, Target, 1>,
         grid.blocks, decoded, target, index, rows, targets, channels, grid.lanes, sums);
}

}  // namespace gimp_fast
