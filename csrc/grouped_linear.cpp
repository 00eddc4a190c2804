// Linear layers whose rows come in groups, each with a weight of its own, on the CPU in fp32. Few
// groups share all threads; many are computed side by side. The results are the same either way.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <vector>

#include "instruction_sets.h"
#include "linear_kernels.h"
#include "threads.h"

namespace gimp_fast {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Bounds = std::vector<int64_t>;

void check(const Tensor& x, int64_t dim) {
  STD_TORCH_CHECK(
      x.is_cpu() && x.scalar_type() == ScalarType::Float && x.is_contiguous() && x.dim() == dim,
      "grouped_linear: expected a contiguous float32 CPU tensor of ", dim, " dimensions");
}

int64_t groups_of(const Bounds& bounds, const Tensor& rows) {
  STD_TORCH_CHECK(!bounds.empty() && bounds.front() == 0 && bounds.back() == rows.size(0) &&
                      std::is_sorted(bounds.begin(), bounds.end()),
                  "grouped_linear: bounds must rise from 0 to the number of rows");
  return static_cast<int64_t>(bounds.size()) - 1;
}

void check_weight(const Tensor& weight, const Bounds& bounds, const Tensor& rows, int64_t channel) {
  check(weight, 3);
  STD_TORCH_CHECK(weight.size(0) == groups_of(bounds, rows),
                  "grouped_linear: expected one weight for each group");
  STD_TORCH_CHECK(weight.size(channel) == rows.size(1),
                  "grouped_linear: the weights have another number of channels");
}

// Runs a pass for every group; place(call, group, first row) sets its pointers.
template <typename Place>
void run(const Bounds& bounds, int64_t inputs, int64_t outputs, bool backward, const Place& place) {
  STD_TORCH_CHECK(inputs > 0 && outputs > 0, "grouped_linear: there are no channels");
  const LinearKernels& kernels = GIMP_FAST_TABLE(linear);
  const auto pass = backward ? kernels.backward : kernels.forward;
  const auto groups = static_cast<int64_t>(bounds.size()) - 1;
  const auto call_of = [&](int64_t group) {
    LinearCall call{};
    call.rows = bounds[group + 1] - bounds[group];
    call.inputs = inputs;
    call.outputs = outputs;
    place(call, group, bounds[group]);
    return call;
  };
  int64_t threads = threads_for(static_cast<double>(bounds.back()) * inputs * outputs);
  const bool apart = threads > 1 && groups >= 4 * threads;
  const Team team = apart ? Team{} : team_of(threads);
  int64_t room = 0;
  for (int64_t group = 0; group < groups; ++group) {
    room = std::max(room, kernels.workspace(call_of(group), team.workers));
  }
  const Block block = allocate(room * (apart ? threads : 1));
  share(groups, apart ? threads : 1, [&](int64_t group, int64_t worker) {
    pass(call_of(group), team, block.get() + worker * room);
  });
}

// x (T, C), weight (G, O, C) -> (T, O)
Tensor grouped_linear_fwd(const Tensor& x, const Tensor& weight, Bounds bounds) {
  check(x, 2);
  check_weight(weight, bounds, x, 2);
  const int64_t inputs = weight.size(2), outputs = weight.size(1);
  Tensor out = torch::stable::new_empty(x, {x.size(0), outputs});
  auto* to = static_cast<float*>(out.mutable_data_ptr());
  const auto* rows = static_cast<const float*>(x.const_data_ptr());
  const auto* weights = static_cast<const float*>(weight.const_data_ptr());
  run(bounds, inputs, outputs, false, [&](LinearCall& call, int64_t group, int64_t row) {
    call.x = rows + row * inputs;
    call.weight = weights + group * outputs * inputs;
    call.out = to + row * outputs;
  });
  return out;
}

// Adds to the gradient of x.
void grouped_linear_bwd_x(const Tensor& grad, const Tensor& weight, Bounds bounds,
                          const Tensor& grad_x) {
  check(grad, 2);
  check(grad_x, 2);
  check_weight(weight, bounds, grad, 1);
  const int64_t inputs = weight.size(2), outputs = weight.size(1);
  STD_TORCH_CHECK(grad_x.size(0) == grad.size(0) && grad_x.size(1) == inputs,
                  "grouped_linear: grad_x has another shape");
  auto* to = static_cast<float*>(grad_x.mutable_data_ptr());
  const auto* grads = static_cast<const float*>(grad.const_data_ptr());
  const auto* weights = static_cast<const float*>(weight.const_data_ptr());
  run(bounds, inputs, outputs, true, [&](LinearCall& call, int64_t group, int64_t row) {
    call.grad = grads + row * outputs;
    call.weight = weights + group * outputs * inputs;
    call.grad_x = to + row * inputs;
    call.adds = true;
  });
}

// The gradient of the weight, (G, O, C).
Tensor grouped_linear_bwd_weight(const Tensor& grad, const Tensor& x, Bounds bounds) {
  check(grad, 2);
  check(x, 2);
  const int64_t groups = groups_of(bounds, x), inputs = x.size(1), outputs = grad.size(1);
  STD_TORCH_CHECK(grad.size(0) == x.size(0), "grouped_linear: grad and x differ in rows");
  Tensor out = torch::stable::new_empty(x, {groups, outputs, inputs});
  auto* to = static_cast<float*>(out.mutable_data_ptr());
  const auto* grads = static_cast<const float*>(grad.const_data_ptr());
  const auto* rows = static_cast<const float*>(x.const_data_ptr());
  run(bounds, inputs, outputs, true, [&](LinearCall& call, int64_t group, int64_t row) {
    call.grad = grads + row * outputs;
    call.x = rows + row * inputs;
    call.grad_weight = to + group * outputs * inputs;
  });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(gimp_fast, m) {
  m.def("grouped_linear_fwd(Tensor x, Tensor weight, int[] bounds) -> Tensor");
  m.def("grouped_linear_bwd_x(Tensor grad, Tensor weight, int[] bounds, Tensor(a!) grad_x) -> ()");
  m.def("grouped_linear_bwd_weight(Tensor grad, Tensor x, int[] bounds) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(gimp_fast, CPU, m) {
  m.impl("grouped_linear_fwd", TORCH_BOX(&grouped_linear_fwd));
  m.impl("grouped_linear_bwd_x", TORCH_BOX(&grouped_linear_bwd_x));
  m.impl("grouped_linear_bwd_weight", TORCH_BOX(&grouped_linear_bwd_weight));
}

}  // namespace gimp_fast
