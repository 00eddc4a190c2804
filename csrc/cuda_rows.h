// What the CUDA operators over rows share: types, grids, the current stream.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/macros.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/shim_utils.h>

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>

namespace gimp_fast {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

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

inline int64_t blocks_for(int64_t rows, int lanes, int64_t most) {
  const int64_t block_rows = kThreads / lanes;
  return std::min((rows + block_rows - 1) / block_rows, most);
}

inline cudaStream_t current_stream(const Tensor& tensor) {
  void* stream = nullptr;
  // The newer check with a longer message is missing in the oldest supported torch.
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

// Calls body(T{}) with the CUDA type of `dtype`; `op` is for the message.
template <typename Body>
void with_type(const char* op, ScalarType dtype, const Body& body) {
  switch (dtype) {
    case ScalarType::Float: return body(float{});
    case ScalarType::Double: return body(double{});
    case ScalarType::BFloat16: return body(__nv_bfloat16{});
    case ScalarType::Half: return body(__half{});
    default: STD_TORCH_CHECK(false, op, ": dtype must be float32, float64, bfloat16 or float16");
  }
}

}  // namespace gimp_fast
