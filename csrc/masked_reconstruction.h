// What the CPU and the CUDA masked reconstruction share: the checks that memory safety needs.
#pragma once

#include "masked_l1.h"

namespace gimp_fast {

// decoded: (R, C); target: (T, C), each of any of the dtypes; index: (R,) int64, rows of target.
// All are contiguous and on one device. Whether an index is a row of target is checked as it is
// read.
inline void check_rows(const Tensor& decoded, const Tensor& target, const Tensor& index) {
  STD_TORCH_CHECK(decoded.dim() == 2 && target.dim() == 2 && index.dim() == 1,
                  "masked_reconstruction: expected decoded (R, C), target (T, C), index (R,)");
  STD_TORCH_CHECK(decoded.size(0) == index.size(0) && decoded.size(1) == target.size(1),
                  "masked_reconstruction: shapes differ");
  STD_TORCH_CHECK(index.scalar_type() == ScalarType::Long,
                  "masked_reconstruction: index must be int64");
  STD_TORCH_CHECK(decoded.is_contiguous() && target.is_contiguous() && index.is_contiguous(),
                  "masked_reconstruction: tensors must be contiguous");
  STD_TORCH_CHECK(decoded.is_cuda() == target.is_cuda() && target.is_cuda() == index.is_cuda() &&
                      decoded.get_device_index() == target.get_device_index() &&
                      target.get_device_index() == index.get_device_index(),
                  "masked_reconstruction: tensors are on different devices");
}

// (R,) fp32, or fp64 for fp64.
inline Tensor new_row_sums(const Tensor& decoded) {
  const bool is_double = decoded.scalar_type() == ScalarType::Double;
  return torch::stable::new_zeros(decoded, {decoded.size(0)},
                                  is_double ? ScalarType::Double : ScalarType::Float);
}

}  // namespace gimp_fast
