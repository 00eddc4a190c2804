// The inner loops of the CPU Nyström attention. CMake compiles this file once for each instruction
// set, into the namespace that GIMP_FAST_ISA names.

#include "nystrom_head_bwd.h"
#include "nystrom_overflow.h"

namespace gimp_fast {
namespace {

int64_t workspace(const Head& head, int64_t workers, bool backward) {
  Arena arena = {nullptr};
  Team team;
  team.workers = workers;
  team.threads = workers > 1 ? &team : nullptr;  // only asked whether there are threads
  const Room room(head, team, backward, arena, head.width);
  return arena.used;
}

bool forward_once(const Head& head, const Room& room, const Team& team) {
  return head.tokens <= head.landmarks ? forward_exact(head, room, team)
                                       : forward_nystrom(head, room, team);
}

void forward(const Head& head, const Team& team, float* block) {
  Arena arena = {block};
  const Room room(head, team, false, arena, head.width);
  forward_without_overflow(head, room, [&] { return forward_once(head, room, team); });
}

void backward(const Head& head, const Team& team, float* block) {
  Arena arena = {block};
  const Room room(head, team, true, arena, head.width);
  if (head.tokens <= head.landmarks) {
    backward_exact(head, room, team);
  } else {
    backward_nystrom(head, room, team);
  }
}

}  // namespace

const NystromKernels GIMP_FAST_ISA::nystrom = {workspace, forward, backward};

}  // namespace gimp_fast
