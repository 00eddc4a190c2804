// Masked L1 on CUDA: the operators. Their kernels are in masked_l1.cuh.

#include "cuda_rows.h"
#include "masked_l1.cuh"
#include "masked_l1.h"

#include <tuple>

namespace gimp_fast {
namespace {

std::tuple<Tensor, Tensor> masked_l1_fwd(const Tensor& prediction, const Tensor& target,
                                         const Tensor& mask, bool save_signs) {
  const int64_t channels = check_forward(prediction, target, mask);
  const torch::stable::accelerator::DeviceGuard guard(mask.get_device_index());
  Tensor sum = new_sum(prediction);
  Tensor signs = new_signs(mask, channels, save_signs);
  if (prediction.numel() == 0) return {sum, signs};

  const int64_t rows = mask.numel();
  const Launch launch(mask);
  const auto* counted = static_cast<const bool*>(mask.const_data_ptr());
  auto* s = save_signs ? static_cast<uint8_t*>(signs.mutable_data_ptr()) : nullptr;
  with_type("masked_l1", prediction.scalar_type(), [&]<typename T>(T) {
    const auto* p = static_cast<const T*>(prediction.const_data_ptr());
    const auto* t = static_cast<const T*>(target.const_data_ptr());
    const RowGrid grid = masked_l1_fwd_grid(p, t, rows, channels);
    Tensor partial = torch::stable::new_empty(mask, {grid.blocks}, ScalarType::Double);
    launch_masked_l1_fwd(launch, grid, p, t, counted, rows, channels, s,
                         static_cast<double*>(partial.mutable_data_ptr()),
                         static_cast<Accumulator<T>*>(sum.mutable_data_ptr()));
  });
  return {sum, signs};
}

Tensor masked_l1_bwd(const Tensor& grad, const Tensor& signs, const Tensor& mask, int64_t channels,
                     ScalarType dtype) {
  check_backward(grad, signs, mask, channels);
  const ScalarType expected = dtype == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  STD_TORCH_CHECK(grad.scalar_type() == expected,
                  "masked_l1: the gradient of the sum must be float32, or float64 for float64");
  const torch::stable::accelerator::DeviceGuard guard(mask.get_device_index());
  Tensor out = torch::stable::new_empty(mask, with_last(mask, channels), dtype);
  if (out.numel() == 0) return out;

  const int64_t rows = mask.numel();
  const Launch launch(mask);
  const auto* s = static_cast<const uint8_t*>(signs.const_data_ptr());
  const auto* counted = static_cast<const bool*>(mask.const_data_ptr());
  with_type("masked_l1", dtype, [&]<typename T>(T) {
    const auto* g = static_cast<const Accumulator<T>*>(grad.const_data_ptr());
    auto* o = static_cast<T*>(out.mutable_data_ptr());
    launch_masked_l1_bwd(launch, masked_l1_bwd_grid(o, rows, channels), g, s, counted, rows,
                         channels, o);
  });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(gimp_fast, CUDA, m) {
  m.impl("masked_l1_fwd", TORCH_BOX(&masked_l1_fwd));
  m.impl("masked_l1_bwd", TORCH_BOX(&masked_l1_bwd));
}

}  // namespace gimp_fast
