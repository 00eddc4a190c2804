// The kernels of masked L1. A group of lanes walks a row; uncounted rows are not read. Sums are
// reduced in two stages of fixed order, without atomics: the result is bitwise reproducible.
#pragma once

#include "cuda_rows.cuh"
#include "masked_l1_signs.h"

#include <cstdint>
#include <type_traits>

namespace gimp_fast {

// Grids of this size fill the largest card several times over, and one block sums their partials.
constexpr int64_t kMaxSumBlocks = 1024;

// Sixteen bytes of channels, and at least the four channels of one byte of signs.
template <typename T>
constexpr int kGroup = sizeof(T) == 8 ? 4 : 16 / sizeof(T);

template <typename T>
struct alignas(16) Group {
  T value[kGroup<T>];
};

template <typename T>
using SignWord = std::conditional_t<kGroup<T> == 8, uint16_t, uint8_t>;

// Four channels from `at` on, fewer at the end of a row; `bits` receives their signs.
template <typename T>
__device__ Accumulator<T> add_scalars(const T* prediction, const T* target, int64_t at,
                                      int64_t channels, uint8_t& bits) {
  Accumulator<T> sum = 0;
  bits = 0;
#pragma unroll
  for (int i = 0; i < kChannelsPerByte; ++i) {
    if (at + i < channels) {
      const Accumulator<T> d = widen(prediction[at + i]) - widen(target[at + i]);
      sum += d < 0 ? -d : d;
      bits |= static_cast<uint8_t>((d > 0) << i | (d < 0) << (i + 4));
    }
  }
  return sum;
}

template <typename T>
__device__ Accumulator<T> add_group(const T* prediction, const T* target, SignWord<T>& word) {
  const auto p = *reinterpret_cast<const Group<T>*>(prediction);
  const auto t = *reinterpret_cast<const Group<T>*>(target);
  Accumulator<T> sum = 0;
  word = 0;
#pragma unroll
  for (int i = 0; i < kGroup<T>; ++i) {
    const Accumulator<T> d = widen(p.value[i]) - widen(t.value[i]);
    sum += d < 0 ? -d : d;
    const int bit = i % kChannelsPerByte + 8 * (i / kChannelsPerByte);
    word |= static_cast<SignWord<T>>((d > 0) << bit | (d < 0) << (bit + 4));
  }
  return sum;
}

// Sum of the block in thread 0, always added in the same order.
inline __device__ double block_sum(double value) {
  __shared__ double warps[kThreads / kWarp];
  for (int step = kWarp / 2; step > 0; step /= 2) {
    value += __shfl_down_sync(0xffffffffu, value, step);
  }
  if (threadIdx.x % kWarp == 0) warps[threadIdx.x / kWarp] = value;
  __syncthreads();
  if (threadIdx.x != 0) return 0;
  double total = 0;
  for (const double warp : warps) total += warp;
  return total;
}

template <typename T, bool Aligned>
__global__ void masked_l1_fwd_kernel(const T* prediction, const T* target, const bool* mask,
                                     int64_t rows, int64_t channels, int lanes, uint8_t* signs,
                                     double* partial) {
  const int64_t bytes = sign_bytes(channels);
  const int64_t block_rows = kThreads / lanes;
  const int lane = threadIdx.x % lanes;
  double total = 0;
  for (int64_t row = blockIdx.x * block_rows + threadIdx.x / lanes; row < rows;
       row += gridDim.x * block_rows) {
    uint8_t* row_signs = signs ? signs + row * bytes : nullptr;
    if (!mask[row]) {
      if (row_signs) {
        for (int64_t i = lane; i < bytes; i += lanes) row_signs[i] = 0;
      }
      continue;
    }
    const T* p = prediction + row * channels;
    const T* t = target + row * channels;
    Accumulator<T> sum = 0;
    if constexpr (Aligned) {
#pragma unroll 4
      for (int64_t i = lane; i < channels / kGroup<T>; i += lanes) {
        SignWord<T> word;
        sum += add_group(p + i * kGroup<T>, t + i * kGroup<T>, word);
        if (row_signs) reinterpret_cast<SignWord<T>*>(row_signs)[i] = word;
      }
    } else {
      for (int64_t i = lane; i < bytes; i += lanes) {
        uint8_t bits;
        sum += add_scalars(p, t, i * kChannelsPerByte, channels, bits);
        if (row_signs) row_signs[i] = bits;
      }
    }
    total += sum;
  }
  total = block_sum(total);
  if (threadIdx.x == 0) partial[blockIdx.x] = total;
}

template <typename Out>
__global__ void sum_partials_kernel(const double* partial, int64_t count, Out* sum) {
  double total = 0;
  for (int64_t i = threadIdx.x; i < count; i += kThreads) total += partial[i];
  total = block_sum(total);
  if (threadIdx.x == 0) *sum = static_cast<Out>(total);
}

template <typename T, typename Grad, bool Aligned>
__global__ void masked_l1_bwd_kernel(const Grad* grad, const uint8_t* signs, const bool* mask,
                                     int64_t rows, int64_t channels, int lanes, T* out) {
  const int64_t bytes = sign_bytes(channels);
  const int64_t block_rows = kThreads / lanes;
  const int lane = threadIdx.x % lanes;
  const T zero = static_cast<T>(0.0f);
  const T positive = static_cast<T>(static_cast<Accumulator<T>>(*grad));
  const T negative = static_cast<T>(-static_cast<Accumulator<T>>(*grad));
  for (int64_t row = blockIdx.x * block_rows + threadIdx.x / lanes; row < rows;
       row += gridDim.x * block_rows) {
    const bool counted = mask[row];
    const uint8_t* row_signs = signs + row * bytes;
    T* row_out = out + row * channels;
    if constexpr (Aligned) {
#pragma unroll 4
      for (int64_t i = lane; i < channels / kGroup<T>; i += lanes) {
        const unsigned word = counted ? reinterpret_cast<const SignWord<T>*>(row_signs)[i] : 0;
        Group<T> group;
#pragma unroll
        for (int j = 0; j < kGroup<T>; ++j) {
          const int bit = j % kChannelsPerByte + 8 * (j / kChannelsPerByte);
          group.value[j] = word >> bit & 1 ? positive : word >> (bit + 4) & 1 ? negative : zero;
        }
        *reinterpret_cast<Group<T>*>(row_out + i * kGroup<T>) = group;
      }
    } else {
      for (int64_t i = lane; i < channels; i += lanes) {
        const unsigned byte = counted ? row_signs[i / kChannelsPerByte] : 0;
        const int bit = static_cast<int>(i % kChannelsPerByte);
        row_out[i] = byte >> bit & 1 ? positive : byte >> (bit + 4) & 1 ? negative : zero;
      }
    }
  }
}

template <typename T>
bool rows_are_aligned(int64_t channels, const void* pointer) {
  return channels % kGroup<T> == 0 && reinterpret_cast<uintptr_t>(pointer) % 16 == 0;
}

template <typename T>
RowGrid masked_l1_fwd_grid(const T* prediction, const T* target, int64_t rows, int64_t channels) {
  const bool aligned =
      rows_are_aligned<T>(channels, prediction) && rows_are_aligned<T>(channels, target);
  const int lanes = lanes_for(aligned ? channels / kGroup<T> : sign_bytes(channels));
  return {aligned, lanes, blocks_for(rows, lanes, kMaxSumBlocks)};
}

// `signs` may be null; `partial` has room for one number of each block.
template <typename Launch, typename T>
void launch_masked_l1_fwd(const Launch& launch, const RowGrid& grid, const T* prediction,
                          const T* target, const bool* mask, int64_t rows, int64_t channels,
                          uint8_t* signs, double* partial, Accumulator<T>* sum) {
  launch(grid.aligned ? masked_l1_fwd_kernel<T, true> : masked_l1_fwd_kernel<T, false>, grid.blocks,
         prediction, target, mask, rows, channels, grid.lanes, signs, partial);
  launch(sum_partials_kernel<Accumulator<T>>, 1, partial, grid.blocks, sum);
}

template <typename T>
RowGrid masked_l1_bwd_grid(const T* out, int64_t rows, int64_t channels) {
  const bool aligned = rows_are_aligned<T>(channels, out);
  const int lanes = lanes_for(aligned ? channels / kGroup<T> : channels);
  return {aligned, lanes, blocks_for(rows, lanes, kMaxWriteBlocks)};
}

template <typename Launch, typename T>
void launch_masked_l1_bwd(const Launch& launch, const RowGrid& grid, const Accumulator<T>* grad,
                          const uint8_t* signs, const bool* mask, int64_t rows, int64_t channels,
                          T* out) {
  using Grad = Accumulator<T>;
  launch(grid.aligned ? masked_l1_bwd_kernel<T, Grad, true> : masked_l1_bwd_kernel<T, Grad, false>,
         grid.blocks, grad, signs, mask, rows, channels, grid.lanes, out);
}

}  // namespace gimp_fast
