// Operators of the weights that one query of each bag gives to the tokens of the bag, on the CPU.

#include <numeric>

#include "instruction_sets.h"
#include "nystrom_call.h"
#include "nystrom_threads.h"

namespace gimp_fast {
namespace {

// One query for each bag.
std::vector<int64_t> bounds_of_queries(const std::vector<int64_t>& token_bounds) {
  std::vector<int64_t> bounds(token_bounds.size());
  std::iota(bounds.begin(), bounds.end(), 0);
  return bounds;
}

Call checked(const Arguments& arguments, const Tensor& x, const char* name, const Tensor& mixed) {
  STD_TORCH_CHECK(!arguments.token_bounds.empty(), "nystrom_attention: the bags have no bounds");
  const Call call = arguments.checked();
  STD_TORCH_CHECK(call.element == Element::kFloat32,
                  "nystrom_attention: the weights of one query take float32");
  check_part(x, name, {call.tokens, call.heads});
  check_part(mixed, "a of the landmarks", {call.bags(), call.heads, call.marks.count});
  return call;
}

// Writes the weights (T, H), to which the filter is added around the position of the query.
void nystrom_weights_fwd(const Tensor& q, const Tensor& k, std::vector<int64_t> token_bounds,
                         const Tensor& q_marks, const Tensor& k_marks, const Tensor& mark_lse,
                         const Tensor& mixed, const Tensor& factors, std::optional<Tensor> filter,
                         std::optional<Tensor> positions, int64_t num_landmarks, int64_t iterations,
                         double scale, const Tensor& out) {
  const std::vector<int64_t> query_bounds = bounds_of_queries(token_bounds);
  // V, W and Y take no part: K and K̃ stand in for them, and nothing reads them.
  const Arguments arguments = {q,          k,       k,         token_bounds, query_bounds,
                               q_marks,    k_marks, mark_lse,  k_marks,      k_marks,
                               factors,    filter,  positions, true,         num_landmarks,
                               iterations, scale};
  const Call call = checked(arguments, out, "out", mixed);
  const int64_t heads = call.heads;
  auto* weights = static_cast<float*>(out.mutable_data_ptr());
  run_heads(
      call.place_heads([&](Head& head, int64_t bag, int64_t h, const Span&, const Span& tokens) {
        head.mixed = part_of(mixed, bag, h, heads);
        head.out = {weights + tokens.begin * heads + h, heads};
      }),
      GIMP_FAST_TABLE(nystrom_weights), false);
}

// Returns the gradient of the filter, (H, 1, K, 1), or an empty tensor; writes the others.
Tensor nystrom_weights_bwd(const Tensor& grad, const Tensor& q, const Tensor& k,
                           std::vector<int64_t> token_bounds, const Tensor& q_marks,
                           const Tensor& k_marks, const Tensor& mark_lse, const Tensor& mixed,
                           const Tensor& factors, std::optional<Tensor> filter,
                           std::optional<Tensor> positions, int64_t num_landmarks,
                           int64_t iterations, double scale, const Tensor& grad_q,
                           const Tensor& grad_k, const Tensor& grad_q_marks) {
  const std::vector<int64_t> query_bounds = bounds_of_queries(token_bounds);
  const Arguments arguments = {q,          k,       k,         token_bounds, query_bounds,
                               q_marks,    k_marks, mark_lse,  k_marks,      k_marks,
                               factors,    filter,  positions, true,         num_landmarks,
                               iterations, scale};
  const Call call = checked(arguments, grad, "grad", mixed);
  const Tokens of_q(grad_q, "grad_q", q, q.size(2)), of_k(grad_k, "grad_k", q, k.size(2));
  const int64_t heads = call.heads, length = call.filter_length;
  check_part(grad_q_marks, "grad_q_marks", {call.bags(), heads, call.marks.count, call.width});
  const auto* grads = static_cast<const float*>(grad.const_data_ptr());
  std::vector<double> of_filters(call.bags() * heads * length);
  run_heads(call.place_heads(
                [&](Head& head, int64_t bag, int64_t h, const Span& queries, const Span& tokens) {
                  head.mixed = part_of(mixed, bag, h, heads);
                  head.grad = {grads + tokens.begin * heads + h, heads};
                  head.grad_q = of_q.mutable_rows(queries, h);
                  head.grad_k = of_k.mutable_rows(tokens, h);
                  head.grad_q_marks = part_of(grad_q_marks, bag, h, heads);
                  head.grad_filter = of_filters.data() + (bag * heads + h) * length;
                }),
            GIMP_FAST_TABLE(nystrom_weights), true);
  return arguments.sum_over_bags(call, of_filters);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(gimp_fast, m) {
  m.def(
      "nystrom_weights_fwd(Tensor q, Tensor k, int[] token_bounds, Tensor(a!) q_marks,"
      " Tensor(b!) k_marks, Tensor(c!) mark_lse, Tensor(d!) mixed, Tensor(e!) factors,"
      " Tensor? filter, Tensor? positions, int num_landmarks, int iterations, float scale,"
      " Tensor(f!) out) -> ()");
  m.def(
      "nystrom_weights_bwd(Tensor grad, Tensor q, Tensor k, int[] token_bounds, Tensor q_marks,"
      " Tensor k_marks, Tensor mark_lse, Tensor mixed, Tensor factors, Tensor? filter,"
      " Tensor? positions, int num_landmarks, int iterations, float scale, Tensor(a!) grad_q,"
      " Tensor(b!) grad_k, Tensor(c!) grad_q_marks) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(gimp_fast, CPU, m) {
  m.impl("nystrom_weights_fwd", TORCH_BOX(&nystrom_weights_fwd));
  m.impl("nystrom_weights_bwd", TORCH_BOX(&nystrom_weights_bwd));
}

}  // namespace gimp_fast
