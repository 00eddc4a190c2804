// Inner loop of dropout on the CPU. CMake compiles this file once for each instruction set, into
// the namespace that GIMP_FAST_ISA names. All give the same bits.
//
// Random numbers are Philox4x32-10 (Salmon et al., SC 2011,
// https://doi.org/10.1145/2063384.2063405) with the seed as key. The counter is (block, lane, 0),
// so any element's number can be computed from its place, and the backward pass needs nothing but
// the seed.

#include "dropout_kernels.h"

namespace gimp_fast {
namespace {

constexpr int kWords = 4, kCounters = 16, kRounds = 10;
static_assert(kDropoutBlock == 2 * kWords * kCounters);

// Loops over counters are vectors of the instruction set.
inline void draw(uint64_t seed, uint64_t block, uint32_t (&words)[kWords][kCounters]) {
  uint32_t key[2] = {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)};
  for (int i = 0; i < kCounters; ++i) {
    words[0][i] = static_cast<uint32_t>(block);
    words[1][i] = static_cast<uint32_t>(block >> 32);
    words[2][i] = static_cast<uint32_t>(i);
    words[3][i] = 0;
  }
  for (int round = 0; round < kRounds; ++round) {
    for (int i = 0; i < kCounters; ++i) {
      const uint64_t first = uint64_t{0xD2511F53} * words[0][i];
      const uint64_t second = uint64_t{0xCD9E8D57} * words[2][i];
      words[0][i] = static_cast<uint32_t>(second >> 32) ^ words[1][i] ^ key[0];
      words[1][i] = static_cast<uint32_t>(second);
      words[2][i] = static_cast<uint32_t>(first >> 32) ^ words[3][i] ^ key[1];
      words[3][i] = static_cast<uint32_t>(first);
    }
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
}

// What the elements of a block are multiplied by: low halves of all words, then high halves.
inline void find_factors(uint64_t seed, uint64_t block, uint32_t dropped, float scale,
                         float* factors) {
  uint32_t words[kWords][kCounters];
  draw(seed, block, words);
  for (int half = 0; half < 2; ++half) {
    for (int word = 0; word < kWords; ++word) {
      for (int i = 0; i < kCounters; ++i) {
        const uint32_t number = words[word][i] >> 16 * half & 0xffff;
        *factors++ = number >= dropped ? scale : 0.0f;
      }
    }
  }
}

void range(uint64_t seed, uint64_t block, uint32_t dropped, float scale, const float* x,
           int64_t count, float* out) {
  float factors[kDropoutBlock];
  for (int64_t at = 0; at < count; at += kDropoutBlock, ++block) {
    find_factors(seed, block, dropped, scale, factors);
    const int64_t some = count - at < kDropoutBlock ? count - at : kDropoutBlock;
    for (int64_t i = 0; i < some; ++i) out[at + i] = x[at + i] * factors[i];
  }
}

}  // namespace

const DropoutRange GIMP_FAST_ISA::dropout_range = range;

}  // namespace gimp_fast
