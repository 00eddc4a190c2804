// What the operators of Nyström attention on the CPU share: checks, and where each head of each bag
// lies in memory.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <cmath>
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

// Rows of tokens (B, H, N, D), or packed (1, H, T, D), wherever they lie.
class Tokens {
 public:
  Tokens(const Tensor& x, const char* name, const Tensor& like, int64_t length)
      : data_(static_cast<char*>(const_cast<void*>(x.const_data_ptr()))) {
    STD_TORCH_CHECK(x.is_cpu() && x.dim() == 4 && x.scalar_type() == like.scalar_type(),
                    "nystrom_attention: ", name, " must be a 4-D CPU tensor like q");
    STD_TORCH_CHECK(x.size(0) == like.size(0) && x.size(1) == like.size(1) && x.size(2) == length &&
                        x.size(3) == like.size(3),
                    "nystrom_attention: ", name, " has another shape");
    STD_TORCH_CHECK(x.numel() == 0 || x.size(3) == 1 || x.stride(3) == 1,
                    "nystrom_attention: the channels of ", name, " must be contiguous");
    for (int dim = 0; dim < 3; ++dim) strides_[dim] = x.stride(dim);
    element_size_ = static_cast<int64_t>(x.element_size());
  }
  // fp32 rows `stride` floats apart, in which the heads lie side by side.
  Tokens(const float* data, int64_t length, int64_t stride, int64_t width)
      : data_(reinterpret_cast<char*>(const_cast<float*>(data))),
        strides_{length * stride, width, stride},
        element_size_(sizeof(float)) {}

  Rows rows(const Span& span, int64_t head) const {
    return {data_ + offset(span, head), strides_[2]};
  }
  MutableRows mutable_rows(const Span& span, int64_t head) const {
    return {data_ + offset(span, head), strides_[2]};
  }

 private:
  int64_t offset(const Span& span, int64_t head) const {
    return (span.entry * strides_[0] + head * strides_[1] + span.begin * strides_[2]) *
           element_size_;
  }
  char* data_;
  int64_t strides_[3];
  int64_t element_size_;
};

inline float* floats_of(const Tensor& x) { return static_cast<float*>(x.mutable_data_ptr()); }

// A contiguous fp32 tensor with a part for each bag and head.
inline float* part_of(const Tensor& x, int64_t bag, int64_t head, int64_t heads) {
  const int64_t parts = x.size(0) * heads, size = parts ? x.numel() / parts : 0;
  return floats_of(x) + (bag * heads + head) * size;
}

inline void check_part(const Tensor& x, const char* name, const std::vector<int64_t>& sizes) {
  bool fits = x.is_cpu() && x.is_contiguous() && x.scalar_type() == ScalarType::Float &&
              x.dim() == static_cast<int64_t>(sizes.size());
  for (std::size_t i = 0; fits && i < sizes.size(); ++i) fits = x.size(i) == sizes[i];
  STD_TORCH_CHECK(fits, "nystrom_attention: ", name, " has another shape, dtype or layout");
}

inline void check_filter(const Tensor& filter, int64_t heads) {
  STD_TORCH_CHECK(filter.dim() == 4 && filter.size(2) % 2 == 1,
                  "nystrom_attention: the filter must be (H, 1, K, 1) with K odd");
  check_part(filter, "the filter", {heads, 1, filter.size(2), 1});
}

// Rows of x lie along `dim`.
inline void check_bounds(const std::vector<int64_t>& bounds, const Tensor& x, int64_t dim) {
  STD_TORCH_CHECK(
      bounds.empty() || (x.size(0) == 1 && bounds.front() == 0 && bounds.back() == x.size(dim) &&
                         std::is_sorted(bounds.begin(), bounds.end())),
      "nystrom_attention: bounds must rise from 0 to the number of rows");
}

// What the forward pass leaves for the backward pass, fp32: see Head. Each has a part for each bag
// and head, of `count` landmarks.
struct Marks {
  float *q_marks, *k_marks, *mark_lse, *values, *mixed, *factors;
  int64_t count;
};

// Sizes of the operands, and where they lie.
struct Call {
  int64_t entries, heads, queries, tokens, width, num_landmarks, iterations;
  double scale;
  Element element;
  Tokens q, k, v;
  const std::vector<int64_t>&token_bounds, &query_bounds;  // empty: every entry is a bag
  Marks marks;
  bool marks_given;
  const float* filter;
  int64_t filter_length;
  const int64_t* positions;

  int64_t bags() const {
    return token_bounds.empty() ? entries : static_cast<int64_t>(token_bounds.size()) - 1;
  }
  int64_t longest() const {
    if (token_bounds.empty()) return tokens;
    int64_t longest = 0;
    for (int64_t bag = 0; bag < bags(); ++bag) {
      longest = std::max(longest, token_bounds[bag + 1] - token_bounds[bag]);
    }
    return longest;
  }
  // Every head of every bag that is not empty; place(head, bag, h, span of queries, span of tokens)
  // sets what only one pass has.
  template <typename Place>
  std::vector<Head> place_heads(const Place& place) const {
    std::vector<Head> placed;
    placed.reserve(bags() * heads);
    for (int64_t bag = 0; bag < bags(); ++bag) {
      const Span of_tokens = span(token_bounds, bag, tokens);
      const Span of_queries = span(query_bounds, bag, queries);
      if (of_tokens.length() == 0) continue;
      const int64_t* places = nullptr;
      if (positions != nullptr) {
        places = positions + of_queries.entry * queries + of_queries.begin;
        check_positions(places, of_queries.length(), of_tokens.length());
      }
      for (int64_t h = 0; h < heads; ++h) {
        const int64_t part = bag * heads + h, size = marks.count * width;
        Head head{};
        head.tokens = of_tokens.length();
        head.queries = of_queries.length();
        head.width = width;
        head.landmarks = num_landmarks;
        head.iterations = iterations;
        head.marks_given = marks_given;
        head.scale = static_cast<float>(scale);
        head.element = element;
        head.q = q.rows(of_queries, h);
        head.k = k.rows(of_tokens, h);
        head.v = v.rows(of_tokens, h);
        head.q_marks = marks.q_marks + part * size;
        head.k_marks = marks.k_marks + part * size;
        head.values = marks.values + part * size;
        head.mixed = marks.mixed + part * size;
        head.mark_lse = marks.mark_lse + part * marks.count;
        head.factors = marks.factors + part * 2;
        if (filter != nullptr) {
          head.filter_length = filter_length;
          head.filter = filter + h * filter_length;
        }
        head.positions = places;
        place(head, bag, h, of_queries, of_tokens);
        placed.push_back(head);
      }
    }
    return placed;
  }
  // Adds up the filters of each bag and head, in the order of the bags, (H, 1, K, 1).
  void sum_over_bags(const std::vector<double>& of_filters, float* sums) const {
    for (int64_t at = 0; at < heads * filter_length; ++at) {
      double sum = 0;
      for (int64_t bag = 0; bag < bags(); ++bag) {
        sum += of_filters[bag * heads * filter_length + at];
      }
      sums[at] = static_cast<float>(sum);
    }
  }

 private:
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

// The arguments that the operators of single tensors share, in their order.
struct Arguments {
  const Tensor &q, &k, &v;
  const std::vector<int64_t>&token_bounds, &query_bounds;
  const Tensor &q_marks, &k_marks, &mark_lse, &values, &mixed, &factors;
  const std::optional<Tensor>&filter, &positions;
  bool marks_given;
  int64_t num_landmarks, iterations;
  double scale;

  Call checked() const {
    check_sizes();
    const Marks marks = {floats_of(q_marks), floats_of(k_marks), floats_of(mark_lse),
                         floats_of(values),  floats_of(mixed),   floats_of(factors),
                         q_marks.size(2)};
    const Call call = {
        q.size(0),
        q.size(1),
        q.size(2),
        k.size(2),
        q.size(3),
        num_landmarks,
        iterations,
        scale,
        element_of(q.scalar_type()),
        Tokens(q, "q", q, q.size(2)),
        Tokens(k, "k", q, k.size(2)),
        Tokens(v, "v", q, k.size(2)),
        token_bounds,
        query_bounds,
        marks,
        marks_given,
        filter ? static_cast<const float*>(filter->const_data_ptr()) : nullptr,
        filter ? filter->size(2) : 0,
        positions ? static_cast<const int64_t*>(positions->const_data_ptr()) : nullptr,
    };
    check_parts(call);
    return call;
  }
  // The gradient of the filter, (H, 1, K, 1), or an empty tensor.
  Tensor sum_over_bags(const Call& call, const std::vector<double>& of_filters) const {
    Tensor of_filter = torch::stable::new_empty(q_marks, {call.heads, 1, call.filter_length, 1},
                                                ScalarType::Float);
    call.sum_over_bags(of_filters, floats_of(of_filter));
    return of_filter;
  }

 private:
  void check_sizes() const {
    STD_TORCH_CHECK(q.dim() == 4 && k.dim() == 4, "nystrom_attention: q and k must be 4-D");
    STD_TORCH_CHECK(q_marks.dim() == 4, "nystrom_attention: the landmarks must be 4-D");
    STD_TORCH_CHECK(num_landmarks > 0 && iterations >= 0, "nystrom_attention: counts are wrong");
    check_bounds(token_bounds, k, 2);
    check_bounds(query_bounds, q, 2);
    STD_TORCH_CHECK(
        token_bounds.empty() || query_bounds.empty() || token_bounds.size() == query_bounds.size(),
        "nystrom_attention: bags of queries and of tokens differ");
    STD_TORCH_CHECK(marks_given || q.size(2) == k.size(2),
                    "nystrom_attention: q and k differ in length");
  }
  void check_parts(const Call& call) const {
    const int64_t bags = call.bags(), h = call.heads, m = call.marks.count;
    for (const Tensor* x : {&q_marks, &k_marks, &values, &mixed}) {
      check_part(*x, "a tensor of landmarks", {bags, h, m, call.width});
    }
    check_part(mark_lse, "the log of the sums", {bags, h, m});
    check_part(factors, "factors", {bags, h, 2});
    STD_TORCH_CHECK(m >= num_landmarks || call.longest() <= m,
                    "nystrom_attention: too few landmarks");
    if (filter) check_filter(*filter, h);
    if (positions) {
      STD_TORCH_CHECK(positions->is_cpu() && positions->scalar_type() == ScalarType::Long &&
                          positions->is_contiguous() && positions->dim() == 1 &&
                          positions->size(0) == q.size(0) * q.size(2),
                      "nystrom_attention: positions must be one int64 number for each query");
    }
    STD_TORCH_CHECK(!filter || !marks_given || positions,
                    "nystrom_attention: the convolution needs the positions of the queries");
  }
};

}  // namespace
}  // namespace gimp_fast
