// How the CPU operators share rows among threads.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstdint>

namespace gimp_fast {

constexpr int64_t kChunkElements = 32768;

inline int64_t rows_of_chunk(int64_t channels) {
  return std::max<int64_t>(1, kChunkElements / std::max<int64_t>(1, channels));
}

// Calls body(chunk, first_row, last_row) for every chunk of rows, on all threads.
template <typename Body>
void for_chunks(int64_t rows, int64_t channels, const Body& body) {
  const int64_t chunk_rows = rows_of_chunk(channels);
  const int64_t chunks = (rows + chunk_rows - 1) / chunk_rows;
  torch::stable::parallel_for(0, chunks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      body(chunk, chunk * chunk_rows, std::min(rows, (chunk + 1) * chunk_rows));
    }
  });
}

}  // namespace gimp_fast
