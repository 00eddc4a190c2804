// Operators of linear layers of few channels on the CPU, in fp32. torch's libraries prepare longer
// than they compute there, and cut the sums of few rows differently for another number of threads.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <optional>
#include <tuple>
#include <vector>

#include "instruction_sets.h"
#include "linear.h"
#include "threads.h"

namespace gimp_fast {

void run_linear(const LinearCall& call, bool backward) {
  const LinearKernels& kernels = GIMP_FAST_TABLE(linear);
  int64_t threads = threads_for(static_cast<double>(call.rows) * call.inputs * call.outputs);
  const Team team = team_of(threads);
  const Block room = allocate(kernels.workspace(call, team.workers));
  (backward ? kernels.backward : kernels.forward)(call, team, room.get());
}

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

const float* read(const Tensor& x, int64_t dim) {
  STD_TORCH_CHECK(
      x.is_cpu() && x.scalar_type() == ScalarType::Float && x.is_contiguous() && x.dim() == dim,
      "linear: expected a contiguous float32 CPU tensor of ", dim, " dimensions");
  return static_cast<const float*>(x.const_data_ptr());
}

LinearCall call_of(const Tensor& x, const Tensor& weight) {
  LinearCall call{};
  call.x = read(x, 2);
  call.weight = read(weight, 2);
  call.rows = x.size(0);
  call.inputs = x.size(1);
  call.outputs = weight.size(0);
  STD_TORCH_CHECK(call.inputs > 0 && call.outputs > 0, "linear: the weight has no channels");
  STD_TORCH_CHECK(weight.size(1) == call.inputs, "linear: x has ", call.inputs,
                  " channels; the weight has ", weight.size(1));
  return call;
}

Tensor linear_fwd(const Tensor& x, const Tensor& weight, std::optional<Tensor> bias) {
  LinearCall call = call_of(x, weight);
  if (bias) {
    call.bias = read(*bias, 1);
    STD_TORCH_CHECK(bias->size(0) == call.outputs, "linear: bias and weight differ in length");
  }
  Tensor out = torch::stable::new_empty(x, {call.rows, call.outputs});
  call.out = static_cast<float*>(out.mutable_data_ptr());
  if (call.rows * call.outputs > 0) run_linear(call, false);
  return out;
}

std::tuple<Tensor, Tensor, Tensor> linear_bwd(const Tensor& grad, const Tensor& x,
                                              const Tensor& weight, bool wants_x, bool wants_weight,
                                              bool wants_bias) {
  LinearCall call = call_of(x, weight);
  call.grad = read(grad, 2);
  STD_TORCH_CHECK(grad.size(0) == call.rows && grad.size(1) == call.outputs,
                  "linear: the gradient has another shape than the output");
  const auto sizes = [](bool wants, std::vector<int64_t> sizes) {
    return wants ? sizes : std::vector<int64_t>{0};
  };
  Tensor grad_x = torch::stable::new_empty(x, sizes(wants_x, {call.rows, call.inputs}));
  Tensor grad_weight =
      torch::stable::new_empty(x, sizes(wants_weight, {call.outputs, call.inputs}));
  Tensor grad_bias = torch::stable::new_empty(x, sizes(wants_bias, {call.outputs}));
  if (wants_x) call.grad_x = static_cast<float*>(grad_x.mutable_data_ptr());
  if (wants_weight) call.grad_weight = static_cast<float*>(grad_weight.mutable_data_ptr());
  if (wants_bias) call.grad_bias = static_cast<float*>(grad_bias.mutable_data_ptr());
  run_linear(call, true);
  return {grad_x, grad_weight, grad_bias};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(gimp_fast, m) {
  m.def("linear_fwd(Tensor x, Tensor weight, Tensor? bias) -> Tensor");
  m.def(
      "linear_bwd(Tensor grad, Tensor x, Tensor weight, bool wants_x, bool wants_weight,"
      " bool wants_bias) -> (Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(gimp_fast, CPU, m) {
  m.impl("linear_fwd", TORCH_BOX(&linear_fwd));
  m.impl("linear_bwd", TORCH_BOX(&linear_bwd));
}

}  // namespace gimp_fast
