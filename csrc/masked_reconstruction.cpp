// Distances and signs of decoded rows on the CPU, in one pass over memory.
//
// A row is summed by fixed lanes, and sums of signs are integers: the result is bitwise the same
// for every number of threads.

#include "masked_reconstruction.h"
#include "cpu_rows.h"
#include "instruction_sets.h"
#include "masked_reconstruction_rows.h"

#include <algorithm>
#include <mutex>
#include <tuple>

namespace gimp_fast {
namespace {

int place(ScalarType dtype) {
  switch (dtype) {
    case ScalarType::Float: return 0;
    case ScalarType::Double: return 1;
    case ScalarType::BFloat16: return 2;
    case ScalarType::Half: return 3;
    default:
      STD_TORCH_CHECK(false,
                      "masked_reconstruction: dtype must be float32, float64, bfloat16 or float16");
  }
}

SignRow sign_row_of(ScalarType decoded, ScalarType target) {
#if defined(GIMP_FAST_X86)
  if (instruction_set() != InstructionSet::kBaseline)
    return avx2::sign_rows.of[place(decoded)][place(target)];
#endif
  return baseline::sign_rows.of[place(decoded)][place(target)];
}

template <typename Sum>
void sign_rows(SignRow sign_row, const Tensor& decoded, const Tensor& target, const int64_t* index,
               Sum* sums, int64_t* sign_sums) {
  auto* d = static_cast<char*>(decoded.mutable_data_ptr());
  const auto* t = static_cast<const char*>(target.const_data_ptr());
  const int64_t rows = decoded.size(0), channels = decoded.size(1);
  const int64_t decoded_size = channels * static_cast<int64_t>(decoded.element_size());
  const int64_t target_size = channels * static_cast<int64_t>(target.element_size());
  std::mutex adding;
  for_chunks(rows, channels, [&](int64_t, int64_t first, int64_t last) {
    std::vector<int32_t> chunk_sums(sign_sums ? channels : 0);
    for (int64_t row = first; row < last; ++row) {
      sums[row] = static_cast<Sum>(sign_row(d + row * decoded_size, t + index[row] * target_size,
                                            channels, sign_sums ? chunk_sums.data() : nullptr));
    }
    const std::lock_guard<std::mutex> lock(adding);
    for (size_t i = 0; i < chunk_sums.size(); ++i) sign_sums[i] += chunk_sums[i];
  });
}

std::tuple<Tensor, Tensor> masked_reconstruction_rows(const Tensor& decoded, const Tensor& target,
                                                      const Tensor& index, bool sum_signs) {
  check_rows(decoded, target, index);
  const SignRow sign_row = sign_row_of(decoded.scalar_type(), target.scalar_type());
  const auto* i = static_cast<const int64_t*>(index.const_data_ptr());
  const int64_t targets = target.size(0);
  for (int64_t row = 0; row < index.numel(); ++row) {
    STD_TORCH_CHECK(i[row] >= 0 && i[row] < targets, "masked_reconstruction: index[", row, "] is ",
                    i[row], "; expected 0 to ", targets - 1);
  }
  Tensor sums = new_row_sums(decoded);
  Tensor sign_sums =
      torch::stable::new_zeros(decoded, {sum_signs ? decoded.size(1) : 0}, ScalarType::Long);
  if (decoded.numel() == 0) return {sums, sign_sums};

  auto* s = sum_signs ? static_cast<int64_t*>(sign_sums.mutable_data_ptr()) : nullptr;
  if (decoded.scalar_type() == ScalarType::Double) {
    sign_rows(sign_row, decoded, target, i, static_cast<double*>(sums.mutable_data_ptr()), s);
  } else {
    sign_rows(sign_row, decoded, target, i, static_cast<float*>(sums.mutable_data_ptr()), s);
  }
  return {sums, sign_sums};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(gimp_fast, m) {
  // sums: (R,) of |decoded - target[index]|; sign_sums: (C,) int64, or (0,). The signs of the
  // differences replace decoded.
  m.def(
      "masked_reconstruction_rows(Tensor(a!) decoded, Tensor target, Tensor index, bool sum_signs)"
      " -> (Tensor sums, Tensor sign_sums)");
}

STABLE_TORCH_LIBRARY_IMPL(gimp_fast, CPU, m) {
  m.impl("masked_reconstruction_rows", TORCH_BOX(&masked_reconstruction_rows));
}

}  // namespace gimp_fast
