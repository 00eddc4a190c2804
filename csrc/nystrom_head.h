// Forward and backward pass of one head of one bag. Only for files that are compiled for an
// instruction set.
//
// A bag of N ≤ M tokens gets exact attention: its keys and values take the places of K̃ and Y.
#pragma once

#include "nystrom_pinv_bwd.h"

namespace gimp_fast {
namespace {

// What one worker needs for a chunk of tokens.
struct Scratch {
  float *first, *second, *result, *window, *scores, *others, *inverse;
};

// The shape of a head, and its room. `m` landmarks, or tokens of an exact head.
struct Room {
  int64_t m, wide, side;
  Ranges queries, tokens;
  float* scratch;
  int64_t scratch_size;
  float* packed[4];  // factors of the products of a chunk, (D, m) or (m, D)
  float* product;    // room of Pinv::packed
  float *a, *grad_a;
  float* slots[2];  // sums of each range (m, wide)
  Statistics statistics;
  float* change;        // (workers, side)
  float* wide_sums[3];  // (m, wide): W; gradients of Y and K̃, later of Q̃
  float *taps, *flipped_taps, *checks, *delta;
  double* filter_slots;  // a filter for each range
  double* doubles;
  int64_t num_slots;
  PinvChain chain;
  PinvGradients gradients;

  // The pseudo-inverse is multiplied by `inverse_width` columns.
  Room(const Head& head, const Team& team, bool backward, Arena& arena, int64_t inverse_width)
      : m(smaller(head.tokens, head.landmarks)),
        wide(round_up(head.width, kLanes)),
        side(scores_stride(m)),
        queries(head.queries),
        tokens(head.tokens) {
    const int64_t window = kChunk + head.filter_length;
    Arena one = {nullptr};
    place(one, window);
    scratch_size = one.used;
    scratch = arena.take(scratch_size * team.workers);
    for (float*& factor : packed) factor = arena.take((m + kLanes) * (wide + kLanes));
    const int64_t ranges = queries.count > tokens.count ? queries.count : tokens.count;
    num_slots = team.threads == nullptr ? 2 : ranges > 0 ? ranges : 1;
    for (float*& slot : slots) slot = arena.take(num_slots * m * wide);
    statistics = {arena.take(num_slots * side), arena.take(num_slots * side)};
    change = arena.take(team.workers * side);
    for (float*& sums : wide_sums) sums = arena.take(m * wide);
    taps = arena.take(taps_size(head));
    flipped_taps = arena.take(taps_size(head));
    checks = arena.take(ranges);
    delta = arena.take(side);
    filter_slots = arena.take_doubles(ranges * head.filter_length);
    doubles = arena.take_doubles(m);
    product = a = grad_a = nullptr;
    if (head.tokens <= head.landmarks) return;
    const Pinv pinv(head, team, inverse_width);
    const int64_t rows = m > head.width ? m : head.width;
    product = arena.take(packed_size(rows, rows));
    a = pinv.square(arena);
    chain.lay_out(pinv, arena, backward);
    if (!backward) return;
    grad_a = pinv.square(arena);
    gradients.lay_out(pinv, arena);
  }

  Scratch place(Arena& arena, int64_t window) const {
    Scratch s;
    s.first = arena.take(kChunk * wide);
    s.second = arena.take(kChunk * wide);
    s.result = arena.take(kChunk * wide);
    s.window = arena.take(window * wide);
    s.scores = arena.take(kChunk * side);
    s.others = arena.take(kChunk * side);
    s.inverse = arena.take(kChunk);
    return s;
  }

  Scratch of_worker(const Head& head, int64_t worker) const {
    Arena arena = {scratch + worker * scratch_size};
    return place(arena, kChunk + head.filter_length);
  }

  // With one thread there are two slots: the sums so far, and those of the present range.
  int64_t slot(int64_t range) const { return smaller(range, num_slots - 1); }
  bool merges_at_once(const Team& team) const { return team.threads == nullptr; }
  Statistics statistics_of(int64_t slot) const {
    return {statistics.peaks + slot * side, statistics.sums + slot * side};
  }
  bool checks_are_finite(int64_t ranges) const {
    bool finite = true;
    for (int64_t range = 0; range < ranges; ++range) finite = finite && is_finite(checks[range]);
    return finite;
  }
};

inline Strided rows_of(const float* data, int64_t stride) { return {data, stride, 1}; }

// As the second factor of a product.
inline Factor as_factor(Strided rows) { return {rows.data, rows.rows}; }

// A chunk of keys, and their scores against the landmarks of the queries into s.scores; Q̃ᵀ is
// packed in 0.
inline Strided score_keys(const Head& head, const Room& room, const Scratch& s, int64_t at,
                          int64_t count) {
  const Strided keys = rows_at(head, head.k, at, count, head.factors[1], s.first, room.wide);
  product(keys, {room.packed[0]}, s.scores, room.side, count, room.m, head.width);
  return keys;
}

// ---- Forward ----

inline void add_convolution_of(const Head& head, const Room& room, const Scratch& s, int64_t begin,
                               int64_t count) {
  if (head.positions == nullptr) {
    const Strided window = window_at(head, head.v, begin, count, s.window, room.wide);
    add_convolution(head, room.taps, window, room.wide, count, s.result);
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    const Strided window =
        window_at(head, head.v, head.positions[begin + i], 1, s.window, room.wide);
    add_convolution(head, room.taps, window, room.wide, 1, s.result + i * room.wide);
  }
}

// out = softmax(Q K̃ᵀ) Y + convolution; K̃ᵀ and Y are packed. Returns whether all of it is finite.
inline bool forward_queries(const Head& head, const Room& room, const Team& team) {
  if (head.filter != nullptr) place_taps(head, false, room.taps);
  for_each(team, room.queries.count, [&](int64_t range, int64_t worker) {
    const Scratch s = room.of_worker(head, worker);
    float check = 0;
    for (int64_t at = room.queries.begin(range); at < room.queries.end(range); at += kChunk) {
      const int64_t count = smaller(kChunk, room.queries.end(range) - at);
      const Strided queries = rows_at(head, head.q, at, count, head.factors[0], s.first, room.wide);
      product(queries, {room.packed[0]}, s.scores, room.side, count, room.m, head.width);
      for (int64_t i = 0; i < count; ++i) {
        s.inverse[i] = 1 / exponentials_of_row(s.scores + i * room.side, room.m);
      }
      product(rows_of(s.scores, room.side), {room.packed[1]}, s.result, room.wide, count,
              head.width, room.m);
      F32 sums = {};
      for (int64_t i = 0; i < count; ++i) {
        for (int64_t d = i * room.wide; d < (i + 1) * room.wide; d += kLanes) {
          const F32 value = load(s.result + d) * s.inverse[i];
          sums += value;
          store(s.result + d, value);
        }
      }
      check += sum_of(sums);
      if (head.filter != nullptr) add_convolution_of(head, room, s, at, count);
      write_rows(head, head.out, at, count, s.result, room.wide);
    }
    room.checks[range] = check;
  });
  return room.checks_are_finite(room.queries.count);
}

// W = softmax(Q̃ Kᵀ) V into `values`, rows `wide` apart, and the log of each sum; Q̃ᵀ is packed.
inline void forward_keys(const Head& head, const Room& room, const Team& team, float* values) {
  const int64_t sums_size = room.m * room.wide;
  for_each(team, room.tokens.count, [&](int64_t range, int64_t worker) {
    const Scratch s = room.of_worker(head, worker);
    const int64_t slot = room.slot(range);
    float *sums = room.slots[0] + slot * sums_size, *change = room.change + worker * room.side;
    room.statistics_of(slot).reset(room.m);
    std::memset(sums, 0, sums_size * sizeof(float));
    for (int64_t at = room.tokens.begin(range); at < room.tokens.end(range); at += kChunk) {
      const int64_t count = smaller(kChunk, room.tokens.end(range) - at);
      score_keys(head, room, s, at, count);
      const Strided token_values = rows_at(head, head.v, at, count, 1, s.second, room.wide);
      exponentials_of_chunk(s.scores, room.side, count, room.m, room.statistics_of(slot), change);
      multiply_rows(sums, room.wide, room.m, change);
      product(rows_of(s.scores, room.side).transposed(), as_factor(token_values), sums, room.wide,
              room.m, head.width, count, true);
    }
    if (room.merges_at_once(team) && range > 0) {
      merge(room.statistics, room.slots[0], room.statistics_of(slot), sums, room.m, room.wide);
    }
  });
  for (int64_t range = 1; range < room.tokens.count && !room.merges_at_once(team); ++range) {
    merge(room.statistics, room.slots[0], room.statistics_of(range),
          room.slots[0] + range * sums_size, room.m, room.wide);
  }
  for (int64_t i = 0; i < room.m; ++i) {
    const float inverse = 1 / room.statistics.sums[i];
    head.mark_lse[i] = room.statistics.peaks[i] + __builtin_log2f(room.statistics.sums[i]);
    for (int64_t d = 0; d < room.wide; ++d) {
      values[i * room.wide + d] = room.slots[0][i * room.wide + d] * inverse;
    }
  }
}

inline void find_landmarks(const Head& head, const Room& room, const Team& team) {
  const int64_t blocks = (room.m + kBlock - 1) / kBlock;
  for_each(team, blocks, [&](int64_t block, int64_t worker) {
    float* scratch = room.of_worker(head, worker).first;
    for (int64_t i = block * kBlock; i < smaller(room.m, (block + 1) * kBlock); ++i) {
      const int64_t at = i * head.width;
      average_segment(head, head.k, head.factors[1], i, head.k_marks + at, scratch, room.wide);
      if (head.marks_given) continue;
      average_segment(head, head.q, head.factors[0], i, head.q_marks + at, scratch, room.wide);
    }
  });
}

// A = softmax(Q̃ K̃ᵀ).
inline void score_landmarks(const Head& head, const Room& room, const Pinv& pinv) {
  pinv.multiply({head.q_marks, head.width, 1}, {head.k_marks, 1, head.width}, head.width, room.m,
                room.a, room.side, false, head.scale * kLog2e);
  softmax_rows(room.a, room.side, room.m, room.m);
}

inline void copy_rows(const float* from, int64_t from_stride, int64_t rows, int64_t width,
                      float* to, int64_t stride) {
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t d = 0; d < stride; ++d)
      to[i * stride + d] = d < width ? from[i * from_stride + d] : 0;
  }
}

// Whether the output is finite.
inline bool forward_nystrom(const Head& head, const Room& room, const Team& team) {
  Pinv pinv(head, team, head.width);
  pinv.packed = room.product;
  const int64_t d = head.width;
  find_landmarks(head, room, team);
  score_landmarks(head, room, pinv);
  pack({head.q_marks, 1, d}, d, room.m, room.packed[0], head.scale * kLog2e);
  float* w = room.wide_sums[0];
  forward_keys(head, room, team, w);
  float row_max, column_max;
  const float factor = pinv.start_factor(room.a, room.statistics.peaks, room.statistics.sums,
                                         room.doubles, &row_max, &column_max);
  const float* z = run_chain(pinv, room.chain, false, room.a, factor, w);
  float* y = room.wide_sums[1];
  pinv.multiply(pinv.of(z), {room.chain.u, room.wide, 1}, room.m, d, y, room.wide);
  pinv.combine(y, 1 / kSigma, nullptr, 0, y, room.wide);
  copy_rows(w, room.wide, room.m, d, head.values, d);
  copy_rows(y, room.wide, room.m, d, head.mixed, d);
  pack({head.k_marks, 1, d}, d, room.m, room.packed[0], head.scale * kLog2e);
  pack({y, room.wide, 1}, room.m, d, room.packed[1]);
  return forward_queries(head, room, team);
}

inline bool forward_exact(const Head& head, const Room& room, const Team& team) {
  float *keys = room.wide_sums[0], *values = room.wide_sums[1];
  read_rows(head, head.k, 0, room.m, head.factors[1], keys, room.wide);
  read_rows(head, head.v, 0, room.m, 1, values, room.wide);
  pack({keys, 1, room.wide}, head.width, room.m, room.packed[0], head.scale * kLog2e);
  pack({values, room.wide, 1}, room.m, head.width, room.packed[1]);
  return forward_queries(head, room, team);
}

}  // namespace
}  // namespace gimp_fast
