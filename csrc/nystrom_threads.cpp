// Heads are computed side by side by different threads where there are enough of them. Otherwise
// all threads share each head. A result is bitwise the same either way: see nystrom_rows.h.

#include "nystrom_threads.h"

#include <algorithm>
#include <numeric>

#include "threads.h"

namespace gimp_fast {
namespace {

double work_of(const Head& head) {
  const double m = static_cast<double>(std::min(head.tokens, head.landmarks));
  const double inverse = head.tokens > head.landmarks ? 12 * m * m * m : 0;
  return static_cast<double>(head.tokens + head.queries) * m * head.width * 2 + inverse;
}

}  // namespace

void run_heads(const std::vector<Head>& heads, const NystromKernels& inner, bool backward) {
  if (heads.empty()) return;
  const auto run = backward ? inner.backward : inner.forward;
  std::vector<double> work(heads.size());
  std::transform(heads.begin(), heads.end(), work.begin(), work_of);
  const double total = std::accumulate(work.begin(), work.end(), 0.0);
  int64_t threads = threads_for(total);
  const auto count = static_cast<int64_t>(heads.size());
  const bool alike = std::all_of(work.begin(), work.end(), [&](double w) { return w == work[0]; });
  const bool apart = threads > 1 && (count >= 4 * threads || (alike && count % threads == 0));
  const int64_t side_by_side = apart ? threads : 1, team_size = apart ? 1 : threads;
  int64_t room = 0;
  for (const Head& head : heads) room = std::max(room, inner.workspace(head, team_size, backward));
  const Block block = allocate(room * side_by_side);
  if (!apart) {
    const Team team = team_of(threads);
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
