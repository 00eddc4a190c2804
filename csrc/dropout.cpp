// Operator of dropout on the CPU, in fp32.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include "dropout_kernels.h"
#include "instruction_sets.h"
#include "threads.h"

namespace gimp_fast {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr int64_t kLevels = 1 << 16;
// Elements that a thread computes at a time: whole blocks.
constexpr int64_t kShare = 256 * kDropoutBlock;

// x, where each element is zero with probability `dropped` / 2^16 and else grows by the inverse of
// the others' probability. The same seed drops the same elements.
Tensor dropout(const Tensor& x, int64_t seed, int64_t dropped) {
  STD_TORCH_CHECK(x.is_cpu() && x.scalar_type() == ScalarType::Float && x.is_contiguous(),
                  "dropout: expected a contiguous float32 CPU tensor");
  STD_TORCH_CHECK(dropped >= 0 && dropped < kLevels, "dropout: expected 0 to 65535 levels, got ",
                  dropped);
  Tensor out = torch::stable::empty_like(x);
  const auto* from = static_cast<const float*>(x.const_data_ptr());
  auto* to = static_cast<float*>(out.mutable_data_ptr());
  const float scale = static_cast<float>(kLevels) / static_cast<float>(kLevels - dropped);
  const int64_t count = x.numel(), shares = (count + kShare - 1) / kShare;
  const DropoutRange range = GIMP_FAST_TABLE(dropout_range);
  share(shares, threads_for(static_cast<double>(count)), [&](int64_t item, int64_t) {
    const int64_t begin = item * kShare;
    range(static_cast<uint64_t>(seed), static_cast<uint64_t>(begin / kDropoutBlock),
          static_cast<uint32_t>(dropped), scale, from + begin, std::min(kShare, count - begin),
          to + begin);
  });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(gimp_fast, m) {
  m.def("dropout(Tensor x, int seed, int dropped) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(gimp_fast, CPU, m) { m.impl("dropout", TORCH_BOX(&dropout)); }

}  // namespace gimp_fast
