// The inner loops of the weights that one query of a bag gives to its keys. CMake compiles this
// file once for each instruction set, into the namespace that GIMP_FAST_ISA names.
//
// With p = softmax(q K̃ᵀ), a = p Z and P[n, m] the softmax of landmark m's scores over the keys n,
// key n has the weight tₙ = Σₘ aₘ P[n, m]. No value takes part in it. The steps of the
// pseudo-inverse give Zᵀ if they are run on Aᵀ, so aᵀ = Zᵀ pᵀ is the product of nystrom_pinv.h with
// one column. A bag of N ≤ M tokens has t = softmax(q Kᵀ).

#include "nystrom_head_bwd.h"
#include "nystrom_overflow.h"

namespace gimp_fast {
namespace {

struct WeightsRoom : Room {
  float *transposed, *grad_transposed;  // Aᵀ and its gradient
  float* column;                        // pᵀ, then room for a product with it

  WeightsRoom(const Head& head, const Team& team, bool backward, Arena& arena)
      : Room(head, team, backward, arena, 1) {
    if (head.tokens <= head.landmarks) return;
    const Pinv pinv(head, team, 1);
    transposed = pinv.square(arena);
    grad_transposed = pinv.square(arena);
    column = pinv.narrow(arena);
  }
};

inline float* weight_of(const Head& head, int64_t token) {
  return static_cast<float*>(head.out.data) + token * head.out.stride;
}

inline float weight_grad(const Head& head, int64_t token) {
  return static_cast<const float*>(head.grad.data)[token * head.grad.stride];
}

// Calls body(token, tap) for every token that the convolution of the query reads.
template <typename Body>
inline void for_taps(const Head& head, const Body& body) {
  for (int64_t tap = 0; tap < head.filter_length; ++tap) {
    const int64_t token = head.positions[0] + tap - reach_of(head);
    if (token >= 0 && token < head.tokens) body(token, tap);
  }
}

// `count` numbers, then zeros up to a whole vector.
inline void place_row(const float* from, int64_t stride, int64_t count, float* to) {
  for (int64_t i = 0; i < count; ++i) to[i] = from[i * stride];
  fill(to, count, round_up(count, kLanes), 0);
}

inline void place_column(const float* row, int64_t count, int64_t stride, float* to) {
  std::memset(to, 0, count * stride * sizeof(float));
  for (int64_t i = 0; i < count; ++i) to[i * stride] = row[i];
}

// The query into s.second, and its softmax over rows of keys, packed in `packed`, into s.scores.
inline void score_query(const Head& head, const Room& room, const Scratch& s, Strided keys,
                        float* packed) {
  read_rows(head, head.q, 0, 1, head.factors[0], s.second, room.wide);
  pack(keys.transposed(), head.width, room.m, packed, head.scale * kLog2e);
  product(rows_of(s.second, room.wide), {packed}, s.scores, room.side, 1, room.m, head.width);
  softmax_rows(s.scores, room.side, 1, room.m);
}

// ---- Forward ----

// The log of the sum of each landmark's exponentials; Q̃ᵀ is packed.
inline void find_statistics(const Head& head, const Room& room, const Team& team) {
  auto merge_from = [&](int64_t slot) {
    merge(room.statistics, nullptr, room.statistics_of(slot), nullptr, room.m, 0);
  };
  for_each(team, room.tokens.count, [&](int64_t range, int64_t worker) {
    const Scratch s = room.of_worker(head, worker);
    const int64_t slot = room.slot(range);
    room.statistics_of(slot).reset(room.m);
    for (int64_t at = room.tokens.begin(range); at < room.tokens.end(range); at += kChunk) {
      const int64_t count = smaller(kChunk, room.tokens.end(range) - at);
      score_keys(head, room, s, at, count);
      exponentials_of_chunk(s.scores, room.side, count, room.m, room.statistics_of(slot),
                            room.change + worker * room.side);
    }
    if (room.merges_at_once(team) && range > 0) merge_from(slot);
  });
  for (int64_t range = 1; range < room.tokens.count && !room.merges_at_once(team); ++range) {
    merge_from(range);
  }
  for (int64_t i = 0; i < room.m; ++i) {
    head.mark_lse[i] = room.statistics.peaks[i] + __builtin_log2f(room.statistics.sums[i]);
  }
}

// What both passes over the keys read: the log of each sum, and a.
inline void place_landmarks(const Head& head, const Room& room) {
  place_row(head.mark_lse, 1, room.m, room.statistics.peaks);
  place_row(head.mixed, 1, room.m, room.statistics.sums);
}

// Writes t; Q̃ᵀ is packed. Returns whether all of it is finite.
inline bool weigh_keys(const Head& head, const Room& room, const Team& team) {
  for_each(team, room.tokens.count, [&](int64_t range, int64_t worker) {
    const Scratch s = room.of_worker(head, worker);
    float check = 0;
    for (int64_t at = room.tokens.begin(range); at < room.tokens.end(range); at += kChunk) {
      const int64_t count = smaller(kChunk, room.tokens.end(range) - at);
      score_keys(head, room, s, at, count);
      for (int64_t i = 0; i < count; ++i) {
        const float* row = s.scores + i * room.side;
        F32 sums = {};
        for (int64_t j = 0; j < room.m; j += kLanes) {
          sums += exp2_of(load(row + j) - load(room.statistics.peaks + j)) *
                  load(room.statistics.sums + j);
        }
        const float weight = sum_of(sums);
        *weight_of(head, at + i) = weight;
        check += weight;
      }
    }
    room.checks[range] = check;
  });
  return room.checks_are_finite(room.tokens.count);
}

inline bool weigh_nystrom(const Head& head, const WeightsRoom& room, const Team& team) {
  Pinv pinv(head, team, 1);
  pinv.packed = room.product;
  const int64_t d = head.width, m = room.m;
  find_landmarks(head, room, team);
  score_landmarks(head, room, pinv);
  pinv.with_transposed(room.a, 0, 1, room.transposed);
  const Scratch s = room.of_worker(head, 0);
  score_query(head, room, s, {head.k_marks, d, 1}, room.packed[1]);
  place_column(s.scores, m, pinv.wide, room.column);
  float row_max, column_max;
  const float factor = pinv.start_factor(room.transposed, room.statistics.peaks,
                                         room.statistics.sums, room.doubles, &row_max, &column_max);
  const float* z = run_chain(pinv, room.chain, false, room.transposed, factor, room.column);
  pinv.multiply(pinv.of(z), {room.chain.u, pinv.wide, 1}, m, 1, room.column, pinv.wide);
  for (int64_t i = 0; i < m; ++i) head.mixed[i] = room.column[i * pinv.wide] * (1 / kSigma);
  pack({head.q_marks, 1, d}, d, m, room.packed[0], head.scale * kLog2e);
  find_statistics(head, room, team);
  place_landmarks(head, room);
  return weigh_keys(head, room, team);
}

inline bool weigh_exact(const Head& head, const WeightsRoom& room) {
  float* keys = room.wide_sums[0];
  const Scratch s = room.of_worker(head, 0);
  read_rows(head, head.k, 0, room.m, head.factors[1], keys, room.wide);
  score_query(head, room, s, rows_of(keys, room.wide), room.packed[0]);
  float check = 0;
  for (int64_t i = 0; i < room.m; ++i) {
    *weight_of(head, i) = s.scores[i];
    check += s.scores[i];
  }
  return is_finite(check);
}

// ---- Backward ----

// The gradient of a into the first row of slot 1; Q̃ᵀ is packed.
inline void sum_grads_of_landmarks(const Head& head, const Room& room, const Team& team) {
  for_each(team, room.tokens.count, [&](int64_t range, int64_t worker) {
    const Scratch s = room.of_worker(head, worker);
    float* sums = clear_slot(room, range, room.slots[1]);
    for (int64_t at = room.tokens.begin(range); at < room.tokens.end(range); at += kChunk) {
      const int64_t count = smaller(kChunk, room.tokens.end(range) - at);
      score_keys(head, room, s, at, count);
      for (int64_t i = 0; i < count; ++i) s.inverse[i] = weight_grad(head, at + i);
      for (int64_t j = 0; j < room.m; j += kLanes) {
        const F32 log = load(room.statistics.peaks + j);
        F32 sum = {};
        for (int64_t i = 0; i < count; ++i) {
          sum += exp2_of(load(s.scores + i * room.side + j) - log) * s.inverse[i];
        }
        store(sums + j, load(sums + j) + sum);
      }
    }
    end_slot(room, team, range, room.slots[1]);
  });
  add_slots(room, team, room.tokens.count, room.slots[1]);
}

// Writes the gradient of k; sums that of Q̃ in slot 0, without the scale. Packed are Q̃ᵀ, and Q̃ in 3;
// `delta` holds the gradient of a, `shares` what each token of a segment gets of K̃'s gradient.
inline void backward_weighed_keys(const Head& head, const Room& room, const Team& team,
                                  const float* shares) {
  for_each(team, room.tokens.count, [&](int64_t range, int64_t worker) {
    const Scratch s = room.of_worker(head, worker);
    float* grad_marks = clear_slot(room, range, room.slots[0]);
    for (int64_t at = room.tokens.begin(range); at < room.tokens.end(range); at += kChunk) {
      const int64_t count = smaller(kChunk, room.tokens.end(range) - at);
      const Strided keys = score_keys(head, room, s, at, count);
      for (int64_t i = 0; i < count; ++i) {
        float* row = s.scores + i * room.side;
        const F32 grad = broadcast(weight_grad(head, at + i));
        for (int64_t j = 0; j < room.m; j += kLanes) {
          const F32 attention = exp2_of(load(row + j) - load(room.statistics.peaks + j));
          store(row + j,
                attention * load(room.statistics.sums + j) * (grad - load(room.delta + j)));
        }
      }
      write_key_grads(head, room, s, keys, rows_of(s.scores, room.side), at, count, shares,
                      grad_marks);
    }
    end_slot(room, team, range, room.slots[0]);
  });
  add_slots(room, team, room.tokens.count, room.slots[0]);
}

inline void weigh_nystrom_bwd(const Head& head, const WeightsRoom& room, const Team& team) {
  Pinv pinv(head, team, 1);
  pinv.packed = room.product;
  const PinvGradients& gradients = room.gradients;
  const int64_t d = head.width, m = room.m, wide = room.wide;
  const Strided q_marks = {head.q_marks, d, 1}, k_marks = {head.k_marks, d, 1};
  place_landmarks(head, room);
  pack(q_marks.transposed(), d, m, room.packed[0], head.scale * kLog2e);
  sum_grads_of_landmarks(head, room, team);
  place_row(room.slots[1], 1, m, room.delta);
  place_column(room.delta, m, pinv.wide, gradients.grad_y);

  const Scratch s = room.of_worker(head, 0);
  float *grad_k_marks = room.wide_sums[0], *grad_q_marks = room.wide_sums[1];
  score_landmarks(head, room, pinv);
  pinv.with_transposed(room.a, 0, 1, room.transposed);
  score_query(head, room, s, k_marks, room.packed[1]);
  place_column(s.scores, m, pinv.wide, room.column);
  pinv_backward(pinv, gradients, room.chain, room.transposed, room.column, room.grad_transposed);
  pinv.with_transposed(room.grad_transposed, 0, 1, room.grad_a);
  softmax_rows_bwd(room.a, room.grad_a, room.side, m, m, head.scale);
  place_row(gradients.grad_w, pinv.wide, m, s.others);
  softmax_rows_bwd(s.scores, s.others, room.side, 1, m, head.scale);

  std::memset(grad_k_marks, 0, m * wide * sizeof(float));
  for (int64_t i = 0; i < m; ++i) add_row(s.second, wide, s.others[i], grad_k_marks + i * wide);
  pinv.multiply(pinv.of(room.grad_a).transposed(), q_marks, m, d, grad_k_marks, wide, true);
  pinv.multiply(pinv.of(room.grad_a), k_marks, m, d, grad_q_marks, wide);
  product(rows_of(s.others, room.side), pinv.factor_of(k_marks, m, d, 1), s.result, wide, 1, d, m);
  write_rows(head, head.grad_q, 0, 1, s.result, wide, head.factors[0]);

  divide_among_tokens(head, room, grad_k_marks);
  pack(q_marks, m, d, room.packed[3], head.scale);
  backward_weighed_keys(head, room, team, grad_k_marks);
  pinv.combine(room.slots[0], head.scale, nullptr, 0, room.slots[0], wide);
  pinv.combine(grad_q_marks, 1, room.slots[0], 1, grad_q_marks, wide);
  write_mark_grads(head, room, grad_q_marks);
}

inline void weigh_exact_bwd(const Head& head, const WeightsRoom& room) {
  float* keys = room.wide_sums[0];
  const int64_t m = room.m, wide = room.wide;
  const Scratch s = room.of_worker(head, 0);
  read_rows(head, head.k, 0, m, head.factors[1], keys, wide);
  score_query(head, room, s, rows_of(keys, wide), room.packed[0]);
  for (int64_t i = 0; i < m; ++i) s.others[i] = weight_grad(head, i);
  fill(s.others, m, round_up(m, kLanes), 0);
  softmax_rows_bwd(s.scores, s.others, room.side, 1, m, head.scale);
  product(rows_of(s.others, room.side), {keys, wide}, s.result, wide, 1, head.width, m);
  write_rows(head, head.grad_q, 0, 1, s.result, wide, head.factors[0]);
  std::memset(keys, 0, m * wide * sizeof(float));
  for (int64_t i = 0; i < m; ++i) add_row(s.second, wide, s.others[i], keys + i * wide);
  write_rows(head, head.grad_k, 0, m, keys, wide, head.factors[1]);
}

int64_t workspace(const Head& head, int64_t workers, bool backward) {
  Arena arena = {nullptr};
  Team team;
  team.workers = workers;
  team.threads = workers > 1 ? &team : nullptr;  // only asked whether there are threads
  const WeightsRoom room(head, team, backward, arena);
  return arena.used;
}

void forward(const Head& head, const Team& team, float* block) {
  Arena arena = {block};
  const WeightsRoom room(head, team, false, arena);
  forward_without_overflow(head, room, [&] {
    return head.tokens <= head.landmarks ? weigh_exact(head, room)
                                         : weigh_nystrom(head, room, team);
  });
  for_taps(head, [&](int64_t token, int64_t tap) { *weight_of(head, token) += head.filter[tap]; });
}

void backward(const Head& head, const Team& team, float* block) {
  Arena arena = {block};
  const WeightsRoom room(head, team, true, arena);
  if (head.tokens <= head.landmarks) {
    weigh_exact_bwd(head, room);
  } else {
    weigh_nystrom_bwd(head, room, team);
  }
  for_taps(head,
           [&](int64_t token, int64_t tap) { head.grad_filter[tap] = weight_grad(head, token); });
}

}  // namespace

const NystromKernels GIMP_FAST_ISA::nystrom_weights = {workspace, forward, backward};

}  // namespace gimp_fast
