// Work that several threads share.
#pragma once

#include <cstdint>

namespace gimp_fast {

// Runs body(data, item, worker) for every item; no two at the same time have the same worker. Plain
// data, because files that are compiled for an instruction set must not have inline code in common.
struct Team {
  void* threads = nullptr;  // null: one after the other
  int64_t workers = 1;
  void (*run)(void* threads, int64_t count, void* data,
              void (*body)(void* data, int64_t item, int64_t worker)) = nullptr;
};

}  // namespace gimp_fast
