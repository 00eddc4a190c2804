// The items of a team's work. Only for files that are compiled for an instruction set.
#pragma once

#include "team.h"

namespace gimp_fast {
namespace {

template <typename Body>
inline void for_each(const Team& team, int64_t count, const Body& body) {
  if (team.threads == nullptr) {
    for (int64_t item = 0; item < count; ++item) body(item, 0);
    return;
  }
  team.run(team.threads, count, const_cast<void*>(static_cast<const void*>(&body)),
           [](void* data, int64_t item, int64_t worker) {
             (*static_cast<const Body*>(data))(item, worker);
           });
}

}  // namespace
}  // namespace gimp_fast
