// Masked L1 on the CPU: each counted element is read once, in one pass that sums and packs the
// signs.
//
// Rows are cut into chunks whose size depends on the channels alone, and a chunk is summed by fixed
// lanes: the result is bitwise the same for every number of threads.

#include "masked_l1.h"
#include "cpu_rows.h"
#include "instruction_sets.h"
#include "masked_l1_rows.h"

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <tuple>

namespace gimp_fast {
namespace {

using torch::headeronly::BFloat16;
using torch::headeronly::Half;

const RowFunctions& row_functions() {
#if defined(GIMP_FAST_X86)
  if (instruction_set() != InstructionSet::kBaseline) return avx2::rows;
#endif
  return baseline::rows;
}

double sum_rows(AddRow add_row, const Tensor& prediction, const Tensor& target, const Tensor& mask,
                int64_t channels, uint8_t* signs) {
  const auto* p = static_cast<const char*>(prediction.const_data_ptr());
  const auto* t = static_cast<const char*>(target.const_data_ptr());
  const auto* counted = static_cast<const bool*>(mask.const_data_ptr());
  const int64_t rows = mask.numel(), bytes = sign_bytes(channels);
  const int64_t row_size = channels * static_cast<int64_t>(prediction.element_size());
  const int64_t chunk_rows = rows_of_chunk(channels);
  std::vector<double> partial((rows + chunk_rows - 1) / chunk_rows);
  for_chunks(rows, channels, [&](int64_t chunk, int64_t first, int64_t last) {
    double total = 0;
    for (int64_t row = first; row < last; ++row) {
      uint8_t* row_signs = signs ? signs + row * bytes : nullptr;
      if (counted[row]) {
        total += add_row(p + row * row_size, t + row * row_size, channels, row_signs);
      } else if (row_signs) {
        std::memset(row_signs, 0, bytes);
      }
    }
    partial[chunk] = total;
  });
  double total = 0;
  for (const double part : partial) total += part;
  return total;
}

AddRow add_row_of(ScalarType dtype) {
  switch (dtype) {
    case ScalarType::Float: return row_functions().float32;
    case ScalarType::Double: return row_functions().float64;
    case ScalarType::BFloat16: return row_functions().bfloat16;
    case ScalarType::Half: return row_functions().float16;
    default:
      STD_TORCH_CHECK(false, "masked_l1: dtype must be float32, float64, bfloat16 or float16");
  }
}

// One look-up gives the four gradients of a byte of signs.
template <typename T>
std::array<std::array<T, kChannelsPerByte>, 256> gradients_of_bytes(T positive, T negative) {
  std::array<std::array<T, kChannelsPerByte>, 256> table{};
  for (int byte = 0; byte < 256; ++byte) {
    for (int i = 0; i < kChannelsPerByte; ++i) {
      if (byte >> i & 1) table[byte][i] = positive;
      if (byte >> (i + 4) & 1) table[byte][i] = negative;
    }
  }
  return table;
}

template <typename T>
void write_gradient(const Tensor& signs, const Tensor& mask, int64_t channels, double grad,
                    const Tensor& out) {
  const auto table = gradients_of_bytes(static_cast<T>(grad), static_cast<T>(-grad));
  const auto* s = static_cast<const uint8_t*>(signs.const_data_ptr());
  const auto* counted = static_cast<const bool*>(mask.const_data_ptr());
  auto* g = static_cast<T*>(out.mutable_data_ptr());
  const int64_t bytes = sign_bytes(channels), whole = channels / kChannelsPerByte;
  for_chunks(mask.numel(), channels, [&](int64_t, int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      T* row_out = g + row * channels;
      if (!counted[row]) {
        std::memset(static_cast<void*>(row_out), 0, channels * sizeof(T));
        continue;
      }
      const uint8_t* row_signs = s + row * bytes;
      for (int64_t i = 0; i < whole; ++i) {
        std::memcpy(row_out + i * kChannelsPerByte, table[row_signs[i]].data(),
                    kChannelsPerByte * sizeof(T));
      }
      const int64_t at = whole * kChannelsPerByte;
      if (at < channels) {
        std::copy_n(table[row_signs[whole]].begin(), channels - at, row_out + at);
      }
    }
  });
}

std::tuple<Tensor, Tensor> masked_l1_fwd(const Tensor& prediction, const Tensor& target,
                                         const Tensor& mask, bool save_signs) {
  const int64_t channels = check_forward(prediction, target, mask);
  Tensor sum = new_sum(prediction);
  Tensor signs = new_signs(mask, channels, save_signs);
  auto* s = save_signs ? static_cast<uint8_t*>(signs.mutable_data_ptr()) : nullptr;
  if (prediction.numel() == 0) return {sum, signs};

  const ScalarType dtype = prediction.scalar_type();
  const double total = sum_rows(add_row_of(dtype), prediction, target, mask, channels, s);
  if (dtype == ScalarType::Double) {
    *static_cast<double*>(sum.mutable_data_ptr()) = total;
  } else {
    *static_cast<float*>(sum.mutable_data_ptr()) = static_cast<float>(total);
  }
  return {sum, signs};
}

Tensor masked_l1_bwd(const Tensor& grad, const Tensor& signs, const Tensor& mask, int64_t channels,
                     ScalarType dtype) {
  check_backward(grad, signs, mask, channels);
  Tensor out = torch::stable::new_empty(mask, with_last(mask, channels), dtype);
  if (out.numel() == 0) return out;

  const bool is_double = grad.scalar_type() == ScalarType::Double;
  STD_TORCH_CHECK(is_double || grad.scalar_type() == ScalarType::Float,
                  "masked_l1: the gradient of the sum must be float32 or float64");
  const double g = is_double ? *static_cast<const double*>(grad.const_data_ptr())
                             : *static_cast<const float*>(grad.const_data_ptr());
  switch (dtype) {
    case ScalarType::Float: write_gradient<float>(signs, mask, channels, g, out); break;
    case ScalarType::BFloat16: write_gradient<BFloat16>(signs, mask, channels, g, out); break;
    case ScalarType::Half: write_gradient<Half>(signs, mask, channels, g, out); break;
    case ScalarType::Double: write_gradient<double>(signs, mask, channels, g, out); break;
    default:
      STD_TORCH_CHECK(false, "masked_l1: dtype must be float32, float64, bfloat16 or float16");
  }
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(gimp_fast, m) {
  m.def(
      "masked_l1_fwd(Tensor prediction, Tensor target, Tensor mask, bool save_signs)"
      " -> (Tensor sum, Tensor signs)");
  m.def(
      "masked_l1_bwd(Tensor grad, Tensor signs, Tensor mask, int channels, ScalarType dtype)"
      " -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(gimp_fast, CPU, m) {
  m.impl("masked_l1_fwd", TORCH_BOX(&masked_l1_fwd));
  m.impl("masked_l1_bwd", TORCH_BOX(&masked_l1_bwd));
}

}  // namespace gimp_fast
