// A layer of Nyström attention on the CPU in fp32, with both of its projections, in one call. Of a
// small layer, separate calls take longer than their work. The results are bitwise the same.

#include <tuple>

#include "instruction_sets.h"
#include "linear.h"
#include "nystrom_call.h"
#include "nystrom_threads.h"

namespace gimp_fast {
namespace {

const float* read(const Tensor& x, const char* name, const std::vector<int64_t>& sizes) {
  check_part(x, name, sizes);
  return static_cast<const float*>(x.const_data_ptr());
}

// x (B, N, C), weight_in (3 H D, C), weight_out (O, H D), filter (H, 1, K, 1).
struct Layer {
  const Tensor &x, &weight_in, &weight_out;
  const std::optional<Tensor>& filter;
  const std::vector<int64_t>& bounds;
  int64_t heads, num_landmarks, iterations;

  int64_t rows() const { return x.size(0) * x.size(1); }
  int64_t channels() const { return x.size(2); }
  int64_t inner() const { return weight_in.size(0) / 3; }
  int64_t outputs() const { return weight_out.size(0); }
  int64_t bags() const {
    return bounds.empty() ? x.size(0) : static_cast<int64_t>(bounds.size()) - 1;
  }
  // Floats of Marks.
  int64_t marks_size() const { return bags() * (marks() * (4 * inner() + heads) + 2 * heads); }

  void check() const {
    STD_TORCH_CHECK(x.dim() == 3 && weight_in.dim() == 2 && weight_out.dim() == 2,
                    "nystrom_layer: x must be 3-D and the weights 2-D");
    STD_TORCH_CHECK(heads > 0 && num_landmarks > 0 && iterations >= 0,
                    "nystrom_layer: counts are wrong");
    STD_TORCH_CHECK(channels() > 0 && outputs() > 0 && inner() > 0 && inner() % heads == 0,
                    "nystrom_layer: the channels do not fit the heads");
    check_bounds(bounds, x, 1);
    check_part(x, "x", {x.size(0), x.size(1), channels()});
    check_part(weight_in, "the first weight", {3 * inner(), channels()});
    check_part(weight_out, "the second weight", {outputs(), inner()});
    if (filter) check_filter(*filter, heads);
  }
  LinearCall projection_in() const { return linear_call(x, weight_in, 3 * inner(), channels()); }
  LinearCall projection_out(const Tensor& attended) const {
    return linear_call(attended, weight_out, outputs(), inner());
  }
  // The attention; qkv (B, N, 3, H, D), marks of marks_size() floats.
  Call attention(const float* qkv, float* of_marks) const {
    const int64_t n = x.size(1), d = inner() / heads, size = bags() * heads * marks();
    float* next = of_marks;
    const auto take = [&](int64_t count) {
      next += count;
      return next - count;
    };
    const Marks parts = {take(size * d), take(size * d),           take(size), take(size * d),
                         take(size * d), take(bags() * heads * 2), marks()};
    return {x.size(0),
            heads,
            n,
            n,
            d,
            num_landmarks,
            iterations,
            std::pow(static_cast<double>(d), -0.5),
            Element::kFloat32,
            part(qkv, 0),
            part(qkv, 1),
            part(qkv, 2),
            bounds,
            bounds,
            parts,
            false,
            filter ? static_cast<const float*>(filter->const_data_ptr()) : nullptr,
            filter ? filter->size(2) : 0,
            nullptr};
  }
  // q, k or v within the projection.
  Tokens part(const float* qkv, int64_t i) const {
    return Tokens(qkv + i * inner(), x.size(1), 3 * inner(), inner() / heads);
  }
  Tokens merged(const float* rows) const {
    return Tokens(rows, x.size(1), inner(), inner() / heads);
  }

 private:
  int64_t marks() const {
    return bounds.empty() ? std::min(num_landmarks, x.size(1)) : num_landmarks;
  }
  LinearCall linear_call(const Tensor& from, const Tensor& weight, int64_t to,
                         int64_t channels) const {
    LinearCall call{};
    call.x = static_cast<const float*>(from.const_data_ptr());
    call.weight = static_cast<const float*>(weight.const_data_ptr());
    call.rows = rows();
    call.inputs = channels;
    call.outputs = to;
    return call;
  }
};

// The output (B, N, O), and what the backward pass needs: the projection (B, N, 3 H D), what was
// attended to (B, N, H D), and the marks. Without `keeps` the last three are of no use.
std::tuple<Tensor, Tensor, Tensor, Tensor> nystrom_layer_fwd(
    const Tensor& x, const Tensor& weight_in, const Tensor& weight_out, std::optional<Tensor> bias,
    std::optional<Tensor> filter, std::vector<int64_t> bounds, int64_t heads, int64_t num_landmarks,
    int64_t iterations, bool keeps) {
  const Layer layer = {x, weight_in, weight_out, filter, bounds, heads, num_landmarks, iterations};
  layer.check();
  const int64_t b = x.size(0), n = x.size(1), inner = layer.inner();
  Tensor qkv = torch::stable::new_empty(x, {b, n, 3 * inner});
  Tensor marks = torch::stable::new_empty(x, {layer.marks_size()});
  Tensor attended = torch::stable::new_empty(x, {b, n, inner});
  LinearCall first = layer.projection_in();
  first.out = floats_of(qkv);
  if (first.rows > 0) run_linear(first, false);
  const Call call = layer.attention(first.out, floats_of(marks));
  const Tokens outs = layer.merged(floats_of(attended));
  run_heads(call.place_heads([&](Head& head, int64_t, int64_t h, const Span& span, const Span&) {
    head.out = outs.mutable_rows(span, h);
  }),
            GIMP_FAST_TABLE(nystrom), false);
  if (!keeps) qkv = torch::stable::new_empty(x, {0});
  Tensor out = torch::stable::new_empty(x, {b, n, layer.outputs()});
  LinearCall last = layer.projection_out(attended);
  last.out = floats_of(out);
  if (bias) last.bias = read(*bias, "the bias", {layer.outputs()});
  if (last.rows > 0) run_linear(last, false);
  return {out, qkv, attended, marks};
}

// Gradients of x, both weights, the bias and the filter; those that are not wanted are empty, in
// the order of `wants`.
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> nystrom_layer_bwd(
    const Tensor& grad, const Tensor& x, const Tensor& qkv, const Tensor& attended,
    const Tensor& marks, const Tensor& weight_in, const Tensor& weight_out,
    std::optional<Tensor> filter, std::vector<int64_t> bounds, int64_t heads, int64_t num_landmarks,
    int64_t iterations, std::vector<int64_t> wants) {
  const Layer layer = {x, weight_in, weight_out, filter, bounds, heads, num_landmarks, iterations};
  layer.check();
  const int64_t b = x.size(0), n = x.size(1), inner = layer.inner();
  STD_TORCH_CHECK(wants.size() == 5, "nystrom_layer: five gradients may be wanted");
  check_part(qkv, "the projection", {b, n, 3 * inner});
  check_part(attended, "what was attended to", {b, n, inner});
  check_part(marks, "the marks", {layer.marks_size()});
  const auto grad_of = [&](int i, const std::vector<int64_t>& sizes) {
    return torch::stable::new_empty(x, wants[i] ? sizes : std::vector<int64_t>{0});
  };
  Tensor grad_x = grad_of(0, {b, n, layer.channels()});
  Tensor grad_weight_in = grad_of(1, {3 * inner, layer.channels()});
  Tensor grad_weight_out = grad_of(2, {layer.outputs(), inner});
  Tensor grad_bias = grad_of(3, {layer.outputs()});
  Tensor grad_attended = torch::stable::new_empty(x, {b, n, inner});
  LinearCall last = layer.projection_out(attended);
  last.grad = read(grad, "the gradient", {b, n, layer.outputs()});
  last.grad_x = floats_of(grad_attended);
  if (wants[2]) last.grad_weight = floats_of(grad_weight_out);
  if (wants[3]) last.grad_bias = floats_of(grad_bias);
  run_linear(last, true);

  const Call call =
      layer.attention(static_cast<const float*>(qkv.const_data_ptr()), floats_of(marks));
  Tensor grad_filter = grad_of(4, {heads, 1, call.filter_length, 1});
  Tensor grad_qkv = torch::stable::new_empty(x, {b, n, 3 * inner});
  const float* of_qkv = floats_of(grad_qkv);
  const Tokens grads = layer.merged(last.grad_x), of_q = layer.part(of_qkv, 0),
               of_k = layer.part(of_qkv, 1), of_v = layer.part(of_qkv, 2);
  std::vector<double> of_filters(call.bags() * heads * call.filter_length);
  run_heads(
      call.place_heads([&](Head& head, int64_t bag, int64_t h, const Span& span, const Span&) {
        head.grad = grads.rows(span, h);
        head.grad_q = of_q.mutable_rows(span, h);
        head.grad_k = of_k.mutable_rows(span, h);
        head.grad_v = of_v.mutable_rows(span, h);
        head.grad_filter = of_filters.data() + (bag * heads + h) * call.filter_length;
      }),
      GIMP_FAST_TABLE(nystrom), true);
  if (wants[4]) call.sum_over_bags(of_filters, floats_of(grad_filter));

  LinearCall first = layer.projection_in();
  first.grad = of_qkv;
  if (wants[0]) first.grad_x = floats_of(grad_x);
  if (wants[1]) first.grad_weight = floats_of(grad_weight_in);
  if (wants[0] || wants[1]) run_linear(first, true);
  return {grad_x, grad_weight_in, grad_weight_out, grad_bias, grad_filter};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(gimp_fast, m) {
  m.def(
      "nystrom_layer_fwd(Tensor x, Tensor weight_in, Tensor weight_out, Tensor? bias,"
      " Tensor? filter, int[] bounds, int heads, int num_landmarks, int iterations, bool keeps)"
      " -> (Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "nystrom_layer_bwd(Tensor grad, Tensor x, Tensor qkv, Tensor attended, Tensor marks,"
      " Tensor weight_in, Tensor weight_out, Tensor? filter, int[] bounds, int heads,"
      " int num_landmarks, int iterations, int[] wants)"
      " -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(gimp_fast, CPU, m) {
  m.impl("nystrom_layer_fwd", TORCH_BOX(&nystrom_layer_fwd));
  m.impl("nystrom_layer_bwd", TORCH_BOX(&nystrom_layer_bwd));
}

}  // namespace gimp_fast
