// Heads are computed side by side by different threads where there are enough of them. Otherwise
// all threads share each head. A result is bitwise the same either way: see nystrom_rows.h.

#include "nystrom_threads.h"

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <memory>
#include <new>
#include <numeric>
#include <stdexcept>

namespace gimp_fast {
namespace {

// Below so many multiply-adds, threads take longer to start than to compute.
constexpr int64_t kSmallestShared = 1 << 18;

std::vector<const NystromKernels*> supported_kernels() {
  std::vector<const NystromKernels*> kernels;
#if defined(GIMP_FAST_HAS_AVX2)
  const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                        __builtin_cpu_supports("f16c");
  if (has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    kernels.push_back(&avx512::nystrom);
  }
  if (has_avx2) kernels.push_back(&avx2::nystrom);
#endif
  kernels.push_back(&baseline::nystrom);
  return kernels;
}

const NystromKernels*& kernels_in_use() {
  static const NystromKernels* chosen = supported_kernels().front();
  return chosen;
}

// What worker `w` of `workers` does until no item is left.
template <typename Body>
void share(int64_t count, int64_t workers, const Body& body) {
  std::atomic<int64_t> next{0};
  torch::stable::parallel_for(0, workers, 1, [&](int64_t begin, int64_t end) {
    for (int64_t worker = begin; worker < end; ++worker) {
      for (int64_t item = next++; item < count; item = next++) body(item, worker);
    }
  });
}

void run_on_threads(void* threads, int64_t count, void* data,
                    void (*body)(void* data, int64_t item, int64_t worker)) {
  const int64_t workers = std::min(count, *static_cast<int64_t*>(threads));
  if (workers == 1) {
    for (int64_t item = 0; item < count; ++item) body(data, item, 0);
    return;
  }
  share(count, workers, [&](int64_t item, int64_t worker) { body(data, item, worker); });
}

struct AlignedFree {
  void operator()(float* block) const { operator delete[](block, std::align_val_t{64}); }
};
using Block = std::unique_ptr<float[], AlignedFree>;

Block allocate(int64_t floats) {
  const auto bytes = static_cast<std::size_t>(floats) * sizeof(float);
  return Block(static_cast<float*>(operator new[](bytes, std::align_val_t{64})));
}

double work_of(const Head& head) {
  const double m = static_cast<double>(std::min(head.tokens, head.landmarks));
  const double inverse = head.tokens > head.landmarks ? 12 * m * m * m : 0;
  return static_cast<double>(head.tokens + head.queries) * m * head.width * 2 + inverse;
}

}  // namespace

std::vector<std::string> nystrom_instruction_sets() {
  std::vector<std::string> names;
  for (const NystromKernels* kernels : supported_kernels()) names.emplace_back(kernels->name);
  return names;
}

std::string nystrom_instruction_set() { return kernels_in_use()->name; }

void use_nystrom_instruction_set(const std::string& name) {
  for (const NystromKernels* kernels : supported_kernels()) {
    if (name == kernels->name) {
      kernels_in_use() = kernels;
      return;
    }
  }
  throw std::invalid_argument("this processor has no instruction set '" + name + "'");
}

void run_heads(const std::vector<Head>& heads, bool backward) {
  if (heads.empty()) return;
  const NystromKernels& inner = *kernels_in_use();
  const auto run = backward ? inner.backward : inner.forward;
  std::vector<double> work(heads.size());
  std::transform(heads.begin(), heads.end(), work.begin(), work_of);
  const double total = std::accumulate(work.begin(), work.end(), 0.0);
  int64_t threads = total < kSmallestShared ? 1 : torch::stable::get_num_threads();

  const auto count = static_cast<int64_t>(heads.size());
  const bool alike = std::all_of(work.begin(), work.end(), [&](double w) { return w == work[0]; });
  const bool apart = threads > 1 && (count >= 4 * threads || (alike && count % threads == 0));
  const int64_t side_by_side = apart ? threads : 1, team_size = apart ? 1 : threads;
  int64_t room = 0;
  for (const Head& head : heads) room = std::max(room, inner.workspace(head, team_size, backward));
  const Block block = allocate(room * side_by_side);
  if (!apart) {
    Team team;
    team.threads = threads > 1 ? &threads : nullptr;
    team.workers = threads;
    team.run = run_on_threads;
    for (const Head& head : heads) run(head, team, block.get());
    return;
  }
  std::vector<int64_t> order(count);  // the longest first, so that threads end together
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return work[a] > work[b]; });
  share(count, threads, [&](int64_t item, int64_t worker) {
    run(heads[order[item]], Team{}, block.get() + worker * room);
  });
}

}  // namespace gimp_fast
