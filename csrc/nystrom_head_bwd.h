// Backward pass of one head of one bag. Only for files that are compiled for an instruction set.
#pragma once

#include "nystrom_head.h"

namespace gimp_fast {
namespace {

// Add the sums of all ranges, in order, to those of the first.
inline void add_slots(const Room& room, const Team& team, int64_t ranges, float* slots) {
  if (room.merges_at_once(team)) return;
  const int64_t size = room.m * room.wide;
  for (int64_t range = 1; range < ranges; ++range) {
    for (int64_t i = 0; i < size; i += kLanes) {
      store(slots + i, load(slots + i) + load(slots + range * size + i));
    }
  }
}

// The slot of a range, set to zero.
inline float* clear_slot(const Room& room, int64_t range, float* slots) {
  float* slot = slots + room.slot(range) * room.m * room.wide;
  std::memset(slot, 0, room.m * room.wide * sizeof(float));
  return slot;
}

inline void end_slot(const Room& room, const Team& team, int64_t range, float* slots) {
  if (!room.merges_at_once(team) || range == 0) return;
  const int64_t size = room.m * room.wide;
  for (int64_t i = 0; i < size; i += kLanes) {
    store(slots + i, load(slots + i) + load(slots + size + i));
  }
}

inline void add_filter_grads(const Head& head, const Room& room, const Scratch& s, Strided grads,
                             int64_t begin, int64_t count, double* sums) {
  if (head.positions == nullptr) {
    const Strided window = window_at(head, head.v, begin, count, s.window, room.wide);
    add_filter_grad(head, grads, window, count, sums);
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    const Strided window =
        window_at(head, head.v, head.positions[begin + i], 1, s.window, room.wide);
    add_filter_grad(head, grads.from_row(i), window, 1, sums);
  }
}

// Writes the gradient of q, without the share of the landmarks; sums those of Y and K̃ in slots 0
// and 1, the latter without the scale. Packed are K̃ᵀ, Yᵀ and K̃.
inline void backward_queries(const Head& head, const Room& room, const Team& team) {
  double* filters = room.filter_slots;
  if (room.queries.count == 0) {
    clear_slot(room, 0, room.slots[0]);
    clear_slot(room, 0, room.slots[1]);
  }
  for_each(team, room.queries.count, [&](int64_t range, int64_t worker) {
    const Scratch s = room.of_worker(head, worker);
    float *grad_y = clear_slot(room, range, room.slots[0]),
          *grad_marks = clear_slot(room, range, room.slots[1]);
    double* filter = filters + range * head.filter_length;
    for (int64_t t = 0; t < head.filter_length; ++t) filter[t] = 0;
    for (int64_t at = room.queries.begin(range); at < room.queries.end(range); at += kChunk) {
      const int64_t count = smaller(kChunk, room.queries.end(range) - at), d = head.width;
      const Strided queries = rows_at(head, head.q, at, count, head.factors[0], s.first, room.wide);
      const Strided grads = rows_at(head, head.grad, at, count, 1, s.second, room.wide);
      const Strided scores = rows_of(s.scores, room.side), others = rows_of(s.others, room.side);
      product(queries, {room.packed[0]}, s.scores, room.side, count, room.m, d);
      softmax_rows(s.scores, room.side, count, room.m);
      product(grads, {room.packed[1]}, s.others, room.side, count, room.m, d);
      softmax_rows_bwd(s.scores, s.others, room.side, count, room.m);
      product(scores.transposed(), as_factor(grads), grad_y, room.wide, room.m, d, count, true);
      product(others.transposed(), as_factor(queries), grad_marks, room.wide, room.m, d, count,
              true);
      product(others, {room.packed[2]}, s.result, room.wide, count, d, room.m);
      write_rows(head, head.grad_q, at, count, s.result, room.wide, head.factors[0]);
      if (head.filter != nullptr) add_filter_grads(head, room, s, grads, at, count, filter);
    }
    end_slot(room, team, range, room.slots[0]);
    end_slot(room, team, range, room.slots[1]);
  });
  add_slots(room, team, room.queries.count, room.slots[0]);
  add_slots(room, team, room.queries.count, room.slots[1]);
  for (int64_t t = 0; t < head.filter_length; ++t) {
    head.grad_filter[t] = 0;
    for (int64_t range = 0; range < room.queries.count; ++range) {
      head.grad_filter[t] += filters[range * head.filter_length + t];
    }
  }
}

// Add the convolution's gradient to the rows [begin, begin + count) of the gradient of v.
inline void add_convolution_grad(const Head& head, const Room& room, const Scratch& s,
                                 int64_t begin, int64_t count) {
  if (head.positions == nullptr) {
    const Strided window = window_at(head, head.grad, begin, count, s.window, room.wide);
    add_convolution(head, room.flipped_taps, window, room.wide, count, s.result);
    return;
  }
  const int64_t reach = reach_of(head), first = begin - reach, last = begin + count + reach;
  int64_t low = 0, high = head.queries;  // the first query at `first` or after it
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    (head.positions[middle] < first ? low : high) =
        head.positions[middle] < first ? middle + 1 : middle;
  }
  for (int64_t i = low; i < head.queries && head.positions[i] < last; ++i) {
    const int64_t position = head.positions[i];
    read_rows(head, head.grad, i, 1, 1, s.window, room.wide);
    for (int64_t t = 0; t < head.filter_length; ++t) {
      const int64_t row = position + t - reach - begin;
      if (row < 0 || row >= count) continue;
      float* to = s.result + row * room.wide;
      for (int64_t d = 0; d < room.wide; d += kLanes) {
        store(to + d, load(to + d) + load(s.window + d) * head.filter[t]);
      }
    }
  }
}

// Writes the gradients of a chunk of keys from those of their scores; adds to the gradient of Q̃,
// without the scale. Packed in 3 is Q̃.
inline void write_key_grads(const Head& head, const Room& room, const Scratch& s, Strided keys,
                            Strided grads, int64_t at, int64_t count, const float* shares,
                            float* grad_marks) {
  product(grads.transposed(), as_factor(keys), grad_marks, room.wide, room.m, head.width, count,
          true);
  product(grads, {room.packed[3]}, s.result, room.wide, count, head.width, room.m);
  for_segments(head, at, count, [&](int64_t i, int64_t segment) {
    add_row(shares + segment * room.wide, room.wide, 1, s.result + i * room.wide);
  });
  write_rows(head, head.grad_k, at, count, s.result, room.wide, head.factors[1]);
}

// Writes the gradients of k and v; sums that of Q̃ in slot 0, without the scale. Packed are Q̃ᵀ, the
// gradient of W, its transpose, and Q̃; the statistics hold the log of each sum. `shares` (M, D) are
// what each token of a segment gets of K̃'s gradient.
inline void backward_keys(const Head& head, const Room& room, const Team& team,
                          const float* shares) {
  for_each(team, room.tokens.count, [&](int64_t range, int64_t worker) {
    const Scratch s = room.of_worker(head, worker);
    float* grad_marks = clear_slot(room, range, room.slots[0]);
    for (int64_t at = room.tokens.begin(range); at < room.tokens.end(range); at += kChunk) {
      const int64_t count = smaller(kChunk, room.tokens.end(range) - at), d = head.width;
      const Strided keys = score_keys(head, room, s, at, count);
      const Strided values = rows_at(head, head.v, at, count, 1, s.second, room.wide);
      const Strided scores = rows_of(s.scores, room.side), others = rows_of(s.others, room.side);
      product(values, {room.packed[2]}, s.others, room.side, count, room.m, d);
      for (int64_t i = 0; i < count; ++i) {
        float *p = s.scores + i * room.side, *g = s.others + i * room.side;
        for (int64_t j = 0; j < room.m; j += kLanes) {
          const F32 attention = exp2_of(load(p + j) - load(room.statistics.peaks + j));
          store(p + j, attention);
          store(g + j, (load(g + j) - load(room.delta + j)) * attention);
        }
      }
      product(scores, {room.packed[1]}, s.result, room.wide, count, d, room.m);
      if (head.filter != nullptr) add_convolution_grad(head, room, s, at, count);
      write_rows(head, head.grad_v, at, count, s.result, room.wide);
      write_key_grads(head, room, s, keys, others, at, count, shares, grad_marks);
    }
    end_slot(room, team, range, room.slots[0]);
  });
  add_slots(room, team, room.tokens.count, room.slots[0]);
}

// Divide each landmark's gradient among the tokens of its segment.
inline void divide_among_tokens(const Head& head, const Room& room, float* grad) {
  for (int64_t i = 0; i < room.m; ++i) {
    const float length = static_cast<float>(segment_begin(head, i + 1) - segment_begin(head, i));
    for (int64_t d = 0; d < room.wide; ++d) grad[i * room.wide + d] *= 1 / length;
  }
}

// Add what each token gets of Q̃'s gradient to the gradient of q.
inline void add_shares(const Head& head, const Room& room, const Team& team, const float* shares) {
  const Rows grads = {head.grad_q.data, head.grad_q.stride};
  for_each(team, room.tokens.count, [&](int64_t range, int64_t worker) {
    float* rows = room.of_worker(head, worker).first;
    for (int64_t at = room.tokens.begin(range); at < room.tokens.end(range); at += kChunk) {
      const int64_t count = smaller(kChunk, room.tokens.end(range) - at);
      read_rows(head, grads, at, count, 1, rows, room.wide);
      for_segments(head, at, count, [&](int64_t i, int64_t segment) {
        add_row(shares + segment * room.wide, room.wide, head.factors[0], rows + i * room.wide);
      });
      write_rows(head, head.grad_q, at, count, rows, room.wide);
    }
  });
}

// Writes the gradient of a given Q̃.
inline void write_mark_grads(const Head& head, const Room& room, const float* grad) {
  for (int64_t i = 0; i < room.m; ++i) {
    for (int64_t d = 0; d < head.width; ++d) {
      head.grad_q_marks[i * head.width + d] = grad[i * room.wide + d] * head.factors[0];
    }
  }
}

inline void backward_nystrom(const Head& head, const Room& room, const Team& team) {
  Pinv pinv(head, team, head.width);
  pinv.packed = room.product;
  const int64_t d = head.width, m = room.m, wide = room.wide;
  const Strided q_marks = {head.q_marks, d, 1}, k_marks = {head.k_marks, d, 1};
  const float log_scale = head.scale * kLog2e;
  pack(k_marks.transposed(), d, m, room.packed[0], log_scale);
  pack({head.mixed, 1, d}, d, m, room.packed[1]);
  pack(k_marks, m, d, room.packed[2], head.scale);
  backward_queries(head, room, team);

  float *w = room.wide_sums[0], *grad_k_marks = room.wide_sums[1],
        *grad_q_marks = room.wide_sums[2];
  copy_rows(head.values, d, m, d, w, wide);
  const PinvGradients& gradients = room.gradients;
  pinv.combine(room.slots[0], 1, nullptr, 0, gradients.grad_y, wide);
  pinv.combine(room.slots[1], head.scale, nullptr, 0, grad_k_marks, wide);
  score_landmarks(head, room, pinv);
  pinv_backward(pinv, gradients, room.chain, room.a, w, room.grad_a);
  softmax_rows_bwd(room.a, room.grad_a, room.side, m, m, head.scale);
  pinv.multiply(pinv.of(room.grad_a).transposed(), q_marks, m, d, grad_k_marks, wide, true);
  pinv.multiply(pinv.of(room.grad_a), k_marks, m, d, grad_q_marks, wide);

  const float* grad_w = gradients.grad_w;
  for (int64_t i = 0; i < m; ++i) {
    F32 sum = {};
    for (int64_t at = i * wide; at < (i + 1) * wide; at += kLanes) {
      sum += load(grad_w + at) * load(w + at);
    }
    room.delta[i] = sum_of(sum);
  }
  fill(room.delta, m, round_up(m, kLanes), 0);
  fill(room.statistics.peaks, m, round_up(m, kLanes), 0);
  std::memcpy(room.statistics.peaks, head.mark_lse, m * sizeof(float));
  divide_among_tokens(head, room, grad_k_marks);
  pack(q_marks.transposed(), d, m, room.packed[0], log_scale);
  pack({grad_w, wide, 1}, m, d, room.packed[1]);
  pack({grad_w, 1, wide}, d, m, room.packed[2]);
  pack(q_marks, m, d, room.packed[3], head.scale);
  if (head.filter != nullptr) place_taps(head, true, room.flipped_taps);
  backward_keys(head, room, team, grad_k_marks);
  pinv.combine(room.slots[0], head.scale, grad_q_marks, 1, grad_q_marks, wide);
  if (head.marks_given) return write_mark_grads(head, room, grad_q_marks);
  divide_among_tokens(head, room, grad_q_marks);
  add_shares(head, room, team, grad_q_marks);
}

inline void backward_exact(const Head& head, const Room& room, const Team& team) {
  float *keys = room.wide_sums[0], *values = room.wide_sums[1];
  const int64_t wide = room.wide, d = head.width, m = room.m;
  read_rows(head, head.k, 0, m, head.factors[1], keys, wide);
  read_rows(head, head.v, 0, m, 1, values, wide);
  pack({keys, 1, wide}, d, m, room.packed[0], head.scale * kLog2e);
  pack({values, 1, wide}, d, m, room.packed[1]);
  pack({keys, wide, 1}, m, d, room.packed[2], head.scale);
  backward_queries(head, room, team);
  write_rows(head, head.grad_k, 0, m, room.slots[1], wide, head.scale * head.factors[1]);
  if (head.filter != nullptr) place_taps(head, true, room.flipped_taps);
  const Scratch s = room.of_worker(head, 0);
  for (int64_t at = 0; at < m; at += kChunk) {
    const int64_t count = smaller(kChunk, m - at);
    std::memcpy(s.result, room.slots[0] + at * wide, count * wide * sizeof(float));
    if (head.filter != nullptr) add_convolution_grad(head, room, s, at, count);
    write_rows(head, head.grad_v, at, count, s.result, wide);
  }
}

}  // namespace
}  // namespace gimp_fast
