// Operators of Nyström attention on the CPU.

#include "instruction_sets.h"
#include "nystrom_call.h"
#include "nystrom_threads.h"

namespace gimp_fast {
namespace {

void nystrom_native_fwd(const Tensor& q, const Tensor& k, const Tensor& v,
                        std::vector<int64_t> token_bounds, std::vector<int64_t> query_bounds,
                        const Tensor& q_marks, const Tensor& k_marks, const Tensor& mark_lse,
                        const Tensor& values, const Tensor& mixed, const Tensor& factors,
                        std::optional<Tensor> filter, std::optional<Tensor> positions,
                        bool marks_given, int64_t num_landmarks, int64_t iterations, double scale,
                        const Tensor& out) {
  const Arguments arguments = {q,          k,       v,         token_bounds, query_bounds,
                               q_marks,    k_marks, mark_lse,  values,       mixed,
                               factors,    filter,  positions, marks_given,  num_landmarks,
                               iterations, scale};
  const Call call = arguments.checked();
  const Tokens outs(out, "out", q, q.size(2));
  run_heads(call.place_heads([&](Head& head, int64_t, int64_t h, const Span& queries, const Span&) {
    head.out = outs.mutable_rows(queries, h);
  }),
            GIMP_FAST_TABLE(nystrom), false);
}

// Returns the gradient of the filter, (H, 1, K, 1), or an empty tensor; writes the others.
Tensor nystrom_native_bwd(const Tensor& grad, const Tensor& q, const Tensor& k, const Tensor& v,
                          std::vector<int64_t> token_bounds, std::vector<int64_t> query_bounds,
                          const Tensor& q_marks, const Tensor& k_marks, const Tensor& mark_lse,
                          const Tensor& values, const Tensor& mixed, const Tensor& factors,
                          std::optional<Tensor> filter, std::optional<Tensor> positions,
                          bool marks_given, int64_t num_landmarks, int64_t iterations, double scale,
                          const Tensor& grad_q, const Tensor& grad_k, const Tensor& grad_v,
                          std::optional<Tensor> grad_q_marks) {
  const Arguments arguments = {q,          k,       v,         token_bounds, query_bounds,
                               q_marks,    k_marks, mark_lse,  values,       mixed,
                               factors,    filter,  positions, marks_given,  num_landmarks,
                               iterations, scale};
  const Call call = arguments.checked();
  const Tokens grads(grad, "grad", q, q.size(2)), of_q(grad_q, "grad_q", q, q.size(2)),
      of_k(grad_k, "grad_k", q, k.size(2)), of_v(grad_v, "grad_v", q, k.size(2));
  STD_TORCH_CHECK(!marks_given || grad_q_marks, "nystrom_attention: grad_q_marks is missing");
  const int64_t heads = call.heads, length = call.filter_length;
  if (grad_q_marks) {
    check_part(*grad_q_marks, "grad_q_marks", {call.bags(), heads, call.marks.count, call.width});
  }
  std::vector<double> of_filters(call.bags() * heads * length);
  run_heads(call.place_heads(
                [&](Head& head, int64_t bag, int64_t h, const Span& queries, const Span& tokens) {
                  head.grad = grads.rows(queries, h);
                  head.grad_q = of_q.mutable_rows(queries, h);
                  head.grad_k = of_k.mutable_rows(tokens, h);
                  head.grad_v = of_v.mutable_rows(tokens, h);
                  if (grad_q_marks) head.grad_q_marks = part_of(*grad_q_marks, bag, h, heads);
                  head.grad_filter = of_filters.data() + (bag * heads + h) * length;
                }),
            GIMP_FAST_TABLE(nystrom), true);
  return arguments.sum_over_bags(call, of_filters);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(gimp_fast, m) {
  m.def(
      "nystrom_native_fwd(Tensor q, Tensor k, Tensor v, int[] token_bounds, int[] query_bounds,"
      " Tensor(a!) q_marks, Tensor(b!) k_marks, Tensor(c!) mark_lse, Tensor(d!) values,"
      " Tensor(e!) mixed, Tensor(f!) factors, Tensor? filter, Tensor? positions, bool marks_given,"
      " int num_landmarks, int iterations, float scale, Tensor(g!) out) -> ()");
  m.def(
      "nystrom_native_bwd(Tensor grad, Tensor q, Tensor k, Tensor v, int[] token_bounds,"
      " int[] query_bounds, Tensor q_marks, Tensor k_marks, Tensor mark_lse, Tensor values,"
      " Tensor mixed, Tensor factors, Tensor? filter, Tensor? positions, bool marks_given,"
      " int num_landmarks, int iterations, float scale, Tensor(a!) grad_q, Tensor(b!) grad_k,"
      " Tensor(c!) grad_v, Tensor(d!)? grad_q_marks) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(gimp_fast, CPU, m) {
  m.impl("nystrom_native_fwd", TORCH_BOX(&nystrom_native_fwd));
  m.impl("nystrom_native_bwd", TORCH_BOX(&nystrom_native_bwd));
}

}  // namespace gimp_fast
