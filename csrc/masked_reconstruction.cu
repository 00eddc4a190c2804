// Masked reconstruction on CUDA: the operator. Its kernel is in masked_reconstruction.cuh.

#include "cuda_rows.h"
#include "masked_reconstruction.cuh"
#include "masked_reconstruction.h"

#include <tuple>

namespace gimp_fast {
namespace {

std::tuple<Tensor, Tensor> masked_reconstruction_rows(const Tensor& decoded, const Tensor& target,
                                                      const Tensor& index, bool sum_signs) {
  check_rows(decoded, target, index);
  const torch::stable::accelerator::DeviceGuard guard(decoded.get_device_index());
  Tensor sums = new_row_sums(decoded);
  const int64_t rows = decoded.size(0), channels = decoded.size(1);
  const Launch launch(decoded);
  const auto* i = static_cast<const int64_t*>(index.const_data_ptr());
  with_type("masked_reconstruction", decoded.scalar_type(), [&]<typename Decoded>(Decoded) {
    with_type("masked_reconstruction", target.scalar_type(), [&]<typename Target>(Target) {
      if (decoded.numel() == 0) return;
      auto* d = static_cast<Decoded*>(decoded.mutable_data_ptr());
      const auto* t = static_cast<const Target*>(target.const_data_ptr());
      launch_masked_reconstruction(launch, masked_reconstruction_grid(d, t, rows, channels), d, t,
                                   i, rows, target.size(0), channels,
                                   static_cast<Accumulator<Decoded>*>(sums.mutable_data_ptr()));
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
