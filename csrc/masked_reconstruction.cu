// Distances and signs of decoded rows on CUDA, in one pass over memory. A group of lanes walks a
// row and adds up in a fixed order, without atomics: the result is bitwise reproducible.

#include "cuda_rows.h"
#include "masked_reconstruction.h"

#include <torch/headeronly/macros/Macros.h>

#include <tuple>
#include <type_traits>

namespace gimp_fast {
namespace {

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
__device__ double group_sum(double value, int lanes) {
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

std::tuple<Tensor, Tensor> masked_reconstruction_rows(const Tensor& decoded, const Tensor& target,
                                                      const Tensor& index, bool sum_signs) {
  check_rows(decoded, target, index);
  const torch::stable::accelerator::DeviceGuard guard(decoded.get_device_index());
  Tensor sums = new_row_sums(decoded);
  const int64_t rows = decoded.size(0), channels = decoded.size(1);
  const cudaStream_t stream = current_stream(decoded);
  const auto* i = static_cast<const int64_t*>(index.const_data_ptr());
  with_type("masked_reconstruction", decoded.scalar_type(), [&]<typename Decoded>(Decoded) {
    with_type("masked_reconstruction", target.scalar_type(), [&]<typename Target>(Target) {
      if (decoded.numel() == 0) return;
      auto* d = static_cast<Decoded*>(decoded.mutable_data_ptr());
      const auto* t = static_cast<const Target*>(target.const_data_ptr());
      const bool four = takes_four(channels, d) && takes_four(channels, t);
      const int lanes = lanes_for(four ? channels / kFour : channels);
      const auto kernel = four ? masked_reconstruction_rows_kernel<Decoded, Target, kFour>
                               : masked_reconstruction_rows_kernel<Decoded, Target, 1>;
      kernel<<<blocks_for(rows, lanes, kMaxWriteBlocks), kThreads, 0, stream>>>(
          d, t, i, rows, target.size(0), channels, lanes,
          static_cast<Accumulator<Decoded>*>(sums.mutable_data_ptr()));
      STD_CUDA_KERNEL_LAUNCH_CHECK();
    });
  });
  if (!sum_signs) return {sums, torch::stable::new_empty(decoded, {0}, ScalarType::Long)};
  const int64_t over_rows[] = {0};
  return {sums, torch::stable::sum(decoded, over_rows, false, ScalarType::Long)};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gimp_fast, CUDA, m) {
  m.impl("masked_reconstruction_rows", TORCH_BOX(&masked_reconstruction_rows));
}

}  // namespace gimp_fast
