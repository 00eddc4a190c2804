// What the operators of Nyström attention on the CPU share: checks, and where each head of each bag
// lies in memory.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "nystrom_attention.h"

namespace gimp_fast {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline Element element_of(ScalarType dtype) {
  switch (dtype) {
    case ScalarType::Float: return Element::kFloat32;
    case ScalarType::BFloat16: return Element::kBFloat16;
    case ScalarType::Half: return Element::kFloat16;
    default:
      STD_TORCH_CHECK(false, "nystrom_attention: dtype must be float32, bfloat16 or float16");
  }
}

// The rows of a bag in a tensor: entry of the batch, first and last row.
struct Span {
  int64_t entry, begin, end;

  int64_t length() const { return end - begin; }
};

// A tensor (B, H, N, D), or packed (1, H, T, D).
class Tokens {
 public:
  Tokens(const Tensor& x, const char* name, const Tensor& like, int64_t length) : x_(x) {
    STD_TORCH_CHECK(x.is_cpu() && x.dim() == 4 && x.scalar_type() == like.scalar_type(),
                    "nystrom_attention: ", name, " must be a 4-D CPU tensor like q");
    STD_TORCH_CHECK(x.size(0) == like.size(0) && x.size(1) == like.size(1) && x.size(2) == length &&
                        x.size(3) == like.size(3),
                    "nystrom_attention: ", name, " has another shape");
    STD_TORCH_CHECK(x.numel() == 0 || x.size(3) == 1 || x.stride(3) == 1,
                    "nystrom_attention: the channels of ", name, " must be contiguous");
  }
  Rows rows(const Span& span, int64_t head) const {
    return {static_cast<const char*>(x_.const_data_ptr()) + offset(span, head), x_.stride(2)};
  }
  MutableRows mutable_rows(const Span& span, int64_t head) const {
    return {static_cast<char*>(x_.mutable_data_ptr()) + offset(span, head), x_.stride(2)};
  }

 private:
  int64_t offset(const Span& span, int64_t head) const {
    return (span.entry * x_.stride(0) + head * x_.stride(1) + span.begin * x_.stride(2)) *
           static_cast<int64_t>(x_.element_size());
  }
  Tensor x_;
};

// A contiguous fp32 tensor with a part for each bag and head.
inline float* part_of(const Tensor& x, int64_t bag, int64_t head, int64_t heads) {
  const int64_t parts = x.size(0) * heads, size = parts ? x.numel() / parts : 0;
  return static_cast<float*>(x.mutable_data_ptr()) + (bag * heads + head) * size;
}

inline void check_part(const Tensor& x, const char* name, const std::vector<int64_t>& sizes) {
  bool fits = x.is_cpu() && x.is_contiguous() && x.scalar_type() == ScalarType::Float &&
              x.dim() == static_cast<int64_t>(sizes.size());
  for (std::size_t i = 0; fits && i < sizes.size(); ++i) fits = x.size(i) == sizes[i];
  STD_TORCH_CHECK(fits, "nystrom_attention: ", name, " has another shape, dtype or layout");
}

inline void check_bounds(const std::vector<int64_t>& bounds, const Tensor& x) {
  STD_TORCH_CHECK(
      bounds.empty() || (x.size(0) == 1 && bounds.front() == 0 && bounds.back() == x.size(2) &&
                         std::is_sorted(bounds.begin(), bounds.end())),
      "nystrom_attention: bounds must rise from 0 to the number of rows");
}

// What both passes take, in the order of their arguments.
struct Call {
  const Tensor &q, &k, &v;
  const std::vector<int64_t>&token_bounds, &query_bounds;
  const Tensor &q_marks, &k_marks, &mark_lse, &values, &mixed, &factors;
  const std::optional<Tensor>&filter, &positions;
  bool marks_given;
  int64_t num_landmarks, iterations;
  double scale;

  void check() const {
    STD_TORCH_CHECK(q.dim() == 4 && k.dim() == 4, "nystrom_attention: q and k must be 4-D");
    STD_TORCH_CHECK(num_landmarks > 0 && iterations >= 0, "nystrom_attention: counts are wrong");
    check_bounds(token_bounds, k);
    check_bounds(query_bounds, q);
    STD_TORCH_CHECK(
        token_bounds.empty() || query_bounds.empty() || token_bounds.size() == query_bounds.size(),
        "nystrom_attention: bags of queries and of tokens differ");
    STD_TORCH_CHECK(marks_given || q.size(2) == k.size(2),
                    "nystrom_attention: q and k differ in length");
    const int64_t h = q.size(1), d = q.size(3), m = marks();
    for (const Tensor* x : {&q_marks, &k_marks, &values, &mixed}) {
      check_part(*x, "a tensor of landmarks", {bags(), h, m, d});
    }
    check_part(mark_lse, "the log of the sums", {bags(), h, m});
    check_part(factors, "factors", {bags(), h, 2});
    STD_TORCH_CHECK(q_marks.size(2) >= num_landmarks || longest() <= q_marks.size(2),
                    "nystrom_attention: too few landmarks");
    if (filter) {
      STD_TORCH_CHECK(filter->dim() == 4 && filter->size(2) % 2 == 1,
                      "nystrom_attention: the filter must be (H, 1, K, 1) with K odd");
      check_part(*filter, "the filter", {h, 1, filter->size(2), 1});
    }
    if (positions) {
      STD_TORCH_CHECK(positions->is_cpu() && positions->scalar_type() == ScalarType::Long &&
                          positions->is_contiguous() && positions->dim() == 1 &&
                          positions->size(0) == q.size(0) * q.size(2),
                      "nystrom_attention: positions must be one int64 number for each query");
    }
    STD_TORCH_CHECK(!filter || !marks_given || positions,
                    "nystrom_attention: the convolution needs the positions of the queries");
  }
  int64_t bags() const {
    return token_bounds.empty() ? q.size(0) : static_cast<int64_t>(token_bounds.size()) - 1;
  }
  int64_t marks() const { return q_marks.dim() == 4 ? q_marks.size(2) : -1; }
  int64_t filter_length() const { return filter ? filter->size(2) : 0; }
  int64_t longest() const {
    if (token_bounds.empty()) return k.size(2);
    int64_t longest = 0;
    for (int64_t bag = 0; bag < bags(); ++bag) {
      longest = std::max(longest, token_bounds[bag + 1] - token_bounds[bag]);
    }
    return longest;
  }
  // Every head of every bag that is not empty; place(head, bag, h, span of queries, span of tokens)
  // sets what only one pass has.
  template <typename Place>
  std::vector<Head> heads(const Place& place) const {
    const Tokens queries(q, "q", q, q.size(2)), keys(k, "k", q, k.size(2)),
        token_values(v, "v", q, k.size(2));
    std::vector<Head> heads;
    heads.reserve(bags() * q.size(1));
    for (int64_t bag = 0; bag < bags(); ++bag) {
      const Span of_tokens = span(token_bounds, bag, k.size(2));
      const Span of_queries = span(query_bounds, bag, q.size(2));
      if (of_tokens.length() == 0) continue;
      const int64_t* places = nullptr;
      if (positions) {
        places = static_cast<const int64_t*>(positions->const_data_ptr()) +
                 of_queries.entry * q.size(2) + of_queries.begin;
        check_positions(places, of_queries.length(), of_tokens.length());
      }
      for (int64_t h = 0; h < q.size(1); ++h) {
        Head head{};
        head.tokens = of_tokens.length();
        head.queries = of_queries.length();
        head.width = q.size(3);
        head.landmarks = num_landmarks;
        head.iterations = iterations;
        head.marks_given = marks_given;
        head.scale = static_cast<float>(scale);
        head.element = element_of(q.scalar_type());
        head.q = queries.rows(of_queries, h);
        head.k = keys.rows(of_tokens, h);
        head.v = token_values.rows(of_tokens, h);
        head.q_marks = part_of(q_marks, bag, h, q.size(1));
        head.k_marks = part_of(k_marks, bag, h, q.size(1));
        head.values = part_of(values, bag, h, q.size(1));
        head.mixed = part_of(mixed, bag, h, q.size(1));
        head.mark_lse = part_of(mark_lse, bag, h, q.size(1));
        head.factors = part_of(factors, bag, h, q.size(1));
        if (filter) {
          head.filter_length = filter->size(2);
          head.filter =
              static_cast<const float*>(filter->const_data_ptr()) + h * head.filter_length;
        }
        head.positions = places;
        place(head, bag, h, of_queries, of_tokens);
        heads.push_back(head);
      }
    }
    return heads;
  }
  // The sums of the filters of each bag and head, in the order of the bags, (H, 1, K, 1).
  Tensor sum_over_bags(const std::vector<double>& of_filters) const {
    const int64_t heads = q.size(1), length = filter_length();
    Tensor of_filter = torch::stable::new_zeros(q_marks, {heads, 1, length, 1}, ScalarType::Float);
    auto* sums = static_cast<float*>(of_filter.mutable_data_ptr());
    for (int64_t at = 0; at < heads * length; ++at) {
      double sum = 0;  // over the bags, in their order
      for (int64_t bag = 0; bag < bags(); ++bag) sum += of_filters[bag * heads * length + at];
      sums[at] = static_cast<float>(sum);
    }
    return of_filter;
  }
  static Span span(const std::vector<int64_t>& bounds, int64_t bag, int64_t length) {
    if (bounds.empty()) return {bag, 0, length};
    return {0, bounds[bag], bounds[bag + 1]};
  }
  static void check_positions(const int64_t* places, int64_t count, int64_t length) {
    for (int64_t i = 0; i < count; ++i) {
      STD_TORCH_CHECK(places[i] >= (i ? places[i - 1] + 1 : 0) && places[i] < length,
                      "nystrom_attention: positions must rise within their bag");
    }
  }
};

}  // namespace
}  // namespace gimp_fast
