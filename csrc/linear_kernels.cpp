// Linear layers of few channels. CMake compiles this file once for each instruction set, into the
// namespace that GIMP_FAST_ISA names.
//
// Threads share rows, or columns of the weight's gradient: every sum has one order, whoever adds
// up.

#include "linear_kernels.h"

#include "cpu_products.h"
#include "cpu_team.h"

namespace gimp_fast {
namespace {

// Rows that are computed at a time, at most: a multiple of the rows of every tile.
constexpr int64_t kRows = 144;
// Rows of the weight's gradient that a thread computes at a time, at most.
constexpr int64_t kMost = 48;
// Rows of x and grad that are added up apart.
constexpr int64_t kSumRows = 10 * kRun;

int64_t blocks_of(int64_t count, int64_t length) { return (count + length - 1) / length; }

template <typename Body>
void for_blocks(const Team& team, int64_t count, int64_t length, const Body& body) {
  for_each(team, blocks_of(count, length), [&](int64_t item, int64_t worker) {
    body(item * length, smaller(length, count - item * length), worker);
  });
}

// The length of blocks, a multiple of `step` up to `most`, so that no thread waits long for
// another.
int64_t block_length(const Team& team, int64_t count, int64_t step, int64_t most) {
  const int64_t wanted = 4 * team.workers;
  return smaller(most, round_up(count / wanted + 1, step));
}

// Up to so many rows, packing the weight takes longer than what it saves: it is read as it is, and
// the rows are packed. Both ways add up the same products in the same order.
constexpr int64_t kFewRows = 128, kFewOutputs = 48;

struct Room {
  float *packed, *tiles;
  int64_t wide_in, wide_out, tile_size;

  Room(const LinearCall& call, float* block)
      : wide_in(round_up(call.inputs, kLanes)), wide_out(round_up(call.outputs, kLanes)) {
    packed = block;
    const int64_t larger = wide_in > wide_out ? wide_in : wide_out;
    tile_size = 2 * larger * kRows + kRun * wide_in + kFewOutputs * kFewRows;
    const int64_t longest = call.inputs > call.outputs ? call.inputs : call.outputs;
    tiles = block + round_up(larger * (longest > kFewRows ? longest : kFewRows), 16);
  }
};

int64_t workspace(const LinearCall& call, int64_t workers) {
  const Room room(call, nullptr);
  return (room.tiles - static_cast<float*>(nullptr)) + workers * room.tile_size;
}

// out (count, n) {=, +=} rows · packed + bias, by way of `tile` where rows of `out` have no spare
// room.
void multiply_rows(const float* rows, int64_t k, const float* packed, int64_t n, int64_t count,
                   const float* bias, bool adds, float* tile, float* out) {
  const int64_t wide = round_up(n, kLanes);
  float* to = wide == n ? out : tile;
  product({rows, k, 1}, {packed}, to, wide, count, n, k, adds && to == out);
  for (int64_t i = 0; i < count && (bias != nullptr || to != out); ++i) {
    for (int64_t j = 0; j < n; ++j) {
      const float before = bias ? bias[j] : adds ? out[i * n + j] : 0;
      out[i * n + j] = to[i * wide + j] + before;
    }
  }
}

// outᵀ = weight · rowsᵀ, some outputs at a time.
void forward_few(const LinearCall& call, const Team& team, const Room& room) {
  const int64_t wide = round_up(call.rows, kLanes);
  pack({call.x, 1, call.inputs}, call.inputs, call.rows, room.packed);
  for_blocks(team, call.outputs, kFewOutputs, [&](int64_t first, int64_t count, int64_t worker) {
    float* tile = room.tiles + worker * room.tile_size;
    product({call.weight + first * call.inputs, call.inputs, 1}, {room.packed}, tile, wide, count,
            call.rows, call.inputs);
    for (int64_t i = 0; i < call.rows; ++i) {
      float* out = call.out + i * call.outputs + first;
      for (int64_t j = 0; j < count; ++j) {
        out[j] = tile[j * wide + i] + (call.bias ? call.bias[first + j] : 0);
      }
    }
  });
}

void forward(const LinearCall& call, const Team& team, float* block) {
  const Room room(call, block);
  if (call.rows <= kFewRows) return forward_few(call, team, room);
  pack({call.weight, 1, call.inputs}, call.inputs, call.outputs, room.packed);
  const int64_t length = block_length(team, call.rows, 24, kRows);
  for_blocks(team, call.rows, length, [&](int64_t row, int64_t count, int64_t worker) {
    multiply_rows(call.x + row * call.inputs, call.inputs, room.packed, call.outputs, count,
                  call.bias, false, room.tiles + worker * room.tile_size,
                  call.out + row * call.outputs);
  });
}

// Some rows of gradᵀ x, (count, C): the sums of kSumRows rows are added to the rest as a whole.
void sum_weight_grad(const LinearCall& call, int64_t first, int64_t count, const Room& room,
                     float* room_of_worker) {
  const int64_t wide = room.wide_in;
  float *total = room_of_worker, *part = total + kMost * wide, *padded = part + kMost * wide;
  for (int64_t i = 0; i < count * wide; ++i) total[i] = 0;
  for (int64_t start = 0; start < call.rows; start += kSumRows) {
    const int64_t end = smaller(call.rows, start + kSumRows);
    for (int64_t row = start; row < end; row += kRun) {
      const int64_t some = smaller(kRun, end - row);
      Factor x = {call.x + row * call.inputs, call.inputs};
      if (wide != call.inputs) {
        for (int64_t i = 0; i < some; ++i) {
          for (int64_t j = 0; j < wide; ++j) {
            padded[i * wide + j] = j < call.inputs ? x.data[i * call.inputs + j] : 0;
          }
        }
        x = {padded, wide};
      }
      const Strided grads = {call.grad + row * call.outputs + first, 1, call.outputs};
      product(grads, x, part, wide, count, call.inputs, some, row > start);
    }
    for (int64_t i = 0; i < count * wide; i += kLanes) {
      store(total + i, load(total + i) + load(part + i));
    }
  }
  for (int64_t i = 0; i < count; ++i) {
    std::memcpy(call.grad_weight + (first + i) * call.inputs, total + i * wide,
                call.inputs * sizeof(float));
  }
}

void sum_bias_grad(const LinearCall& call, int64_t first, int64_t count) {
  double sums[kMost] = {};
  for (int64_t row = 0; row < call.rows; ++row) {
    for (int64_t j = 0; j < count; ++j) sums[j] += call.grad[row * call.outputs + first + j];
  }
  for (int64_t j = 0; j < count; ++j) call.grad_bias[first + j] = static_cast<float>(sums[j]);
}

void backward(const LinearCall& call, const Team& team, float* block) {
  const Room room(call, block);
  const bool sums = call.grad_weight != nullptr || call.grad_bias != nullptr;
  const int64_t some_outputs = block_length(team, call.outputs, 8, kMost);
  const int64_t of_weight = sums ? blocks_of(call.outputs, some_outputs) : 0;
  const int64_t some_rows = block_length(team, call.rows, 24, kRows);
  const int64_t of_rows = call.grad_x != nullptr ? blocks_of(call.rows, some_rows) : 0;
  if (of_rows > 0) pack({call.weight, call.inputs, 1}, call.outputs, call.inputs, room.packed);
  for_each(team, of_weight + of_rows, [&](int64_t item, int64_t worker) {
    float* tile = room.tiles + worker * room.tile_size;
    if (item < of_weight) {
      const int64_t first = item * some_outputs;
      const int64_t count = smaller(some_outputs, call.outputs - first);
      if (call.grad_weight != nullptr) sum_weight_grad(call, first, count, room, tile);
      if (call.grad_bias != nullptr) sum_bias_grad(call, first, count);
      return;
    }
    const int64_t row = (item - of_weight) * some_rows;
    multiply_rows(call.grad + row * call.outputs, call.outputs, room.packed, call.inputs,
                  smaller(some_rows, call.rows - row), nullptr, call.adds, tile,
                  call.grad_x + row * call.inputs);
  });
}

}  // namespace

const LinearKernels GIMP_FAST_ISA::linear = {workspace, forward, backward};

}  // namespace gimp_fast
