// What the CPU and the CUDA masked L1 share: the checks that memory safety needs.
#pragma once

#include "masked_l1_signs.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstdint>
#include <vector>

namespace gimp_fast {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline void check_mask(const Tensor& mask) {
  STD_TORCH_CHECK(mask.scalar_type() == ScalarType::Bool, "masked_l1: mask must be bool");
  STD_TORCH_CHECK(mask.is_contiguous(), "masked_l1: mask must be contiguous");
}

// prediction, target: (..., N, C); mask: (..., N), all contiguous and on one device. Returns C.
inline int64_t check_forward(const Tensor& prediction, const Tensor& target, const Tensor& mask) {
  check_mask(mask);
  STD_TORCH_CHECK(prediction.scalar_type() == target.scalar_type(), "masked_l1: dtypes differ");
  STD_TORCH_CHECK(prediction.is_contiguous() && target.is_contiguous(),
                  "masked_l1: prediction and target must be contiguous");
  STD_TORCH_CHECK(prediction.is_cuda() == target.is_cuda() && target.is_cuda() == mask.is_cuda() &&
                      prediction.get_device_index() == target.get_device_index() &&
                      target.get_device_index() == mask.get_device_index(),
                  "masked_l1: tensors are on different devices");
  STD_TORCH_CHECK(prediction.dim() == mask.dim() + 1, "masked_l1: mask must lack the channels");
  const int64_t channels = prediction.size(prediction.dim() - 1);
  STD_TORCH_CHECK(
      prediction.numel() == target.numel() && prediction.numel() == mask.numel() * channels,
      "masked_l1: shapes differ");
  return channels;
}

// grad: one element; signs: (..., N, ceil(C / 4)) uint8; mask: (..., N).
inline void check_backward(const Tensor& grad, const Tensor& signs, const Tensor& mask,
                           int64_t channels) {
  check_mask(mask);
  STD_TORCH_CHECK(grad.numel() == 1, "masked_l1: the gradient of the sum must be one number");
  STD_TORCH_CHECK(signs.scalar_type() == ScalarType::Byte && signs.is_contiguous() &&
                      channels >= 0 && signs.numel() == mask.numel() * sign_bytes(channels),
                  "masked_l1: signs do not belong to this mask; was the forward run without them?");
  STD_TORCH_CHECK(signs.is_cuda() == mask.is_cuda() && grad.is_cuda() == mask.is_cuda() &&
                      signs.get_device_index() == mask.get_device_index() &&
                      grad.get_device_index() == mask.get_device_index(),
                  "masked_l1: tensors are on different devices");
}

inline std::vector<int64_t> with_last(const Tensor& mask, int64_t last) {
  std::vector<int64_t> sizes;
  for (int64_t i = 0; i < mask.dim(); ++i) sizes.push_back(mask.size(i));
  sizes.push_back(last);
  return sizes;
}

// (..., N, ceil(C / 4)) uint8, or (0,) when no gradient is needed.
inline Tensor new_signs(const Tensor& mask, int64_t channels, bool save_signs) {
  const auto sizes = save_signs ? with_last(mask, sign_bytes(channels)) : std::vector<int64_t>{0};
  return torch::stable::new_empty(mask, sizes, ScalarType::Byte);
}

inline Tensor new_sum(const Tensor& prediction) {
  const bool is_double = prediction.scalar_type() == ScalarType::Double;
  return torch::stable::new_zeros(prediction, {},
                                  is_double ? ScalarType::Double : ScalarType::Float);
}

}  // namespace gimp_fast
