// What the CUDA operators over rows share: how they launch kernels, and the types of tensors.
#pragma once

#include "cuda_rows.cuh"

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/macros.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/shim_utils.h>

#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

namespace gimp_fast {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline cudaStream_t current_stream(const Tensor& tensor) {
  void* stream = nullptr;
  // The newer check with a longer message is missing in the oldest supported torch.
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

// Runs kernels on the stream of a tensor. The tests have another one, which runs them on a CPU.
class Launch {
 public:
  explicit Launch(const Tensor& tensor) : stream_(current_stream(tensor)) {}

  template <typename... Parameters>
  void operator()(void (*kernel)(Parameters...), int64_t blocks,
                  std::type_identity_t<Parameters>... arguments) const {
    kernel<<<blocks, kThreads, 0, stream_>>>(arguments...);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

 private:
  cudaStream_t stream_;
};

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
