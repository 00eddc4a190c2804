// torch's threads, and memory that they work in.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

#include "team.h"

namespace gimp_fast {

// Below so many multiply-adds, threads take longer to start than to compute.
constexpr double kSmallestShared = 1 << 18;

inline int64_t threads_for(double multiply_adds) {
  if (multiply_adds < kSmallestShared) return 1;
  return static_cast<int64_t>(torch::stable::get_num_threads());
}

// Calls body(item, worker) for every item. A worker takes the next item when it has ended one.
template <typename Body>
void share(int64_t count, int64_t workers, const Body& body) {
  workers = std::min(workers, count);
  if (workers <= 1) {
    for (int64_t item = 0; item < count; ++item) body(item, int64_t{0});
    return;
  }
  std::atomic<int64_t> next{0};
  torch::stable::parallel_for(0, workers, 1, [&](int64_t begin, int64_t end) {
    for (int64_t worker = begin; worker < end; ++worker) {
      for (int64_t item = next++; item < count; item = next++) body(item, worker);
    }
  });
}

// A team of `threads`, which must outlive it.
inline Team team_of(int64_t& threads) {
  Team team;
  if (threads <= 1) return team;
  team.threads = &threads;
  team.workers = threads;
  team.run = [](void* workers, int64_t count, void* data,
                void (*body)(void* data, int64_t item, int64_t worker)) {
    share(count, *static_cast<int64_t*>(workers),
          [&](int64_t item, int64_t worker) { body(data, item, worker); });
  };
  return team;
}

struct AlignedFree {
  void operator()(float* block) const { operator delete[](block, std::align_val_t{64}); }
};
using Block = std::unique_ptr<float[], AlignedFree>;

inline Block allocate(int64_t floats) {
  const auto bytes = static_cast<std::size_t>(floats) * sizeof(float);
  return Block(static_cast<float*>(operator new[](bytes, std::align_val_t{64})));
}

}  // namespace gimp_fast
