// One row of the CPU masked L1. CMake compiles this file once for each instruction set, into the
// namespace that GIMP_FAST_ISA names. Both give the same bits: lanes and their order are written
// out, nothing is fused.

#include "masked_l1_rows.h"
#include "row_vectors.h"

namespace gimp_fast {
namespace {

// One bit for each true lane.
inline unsigned bits_of(I32 lanes) {
#if defined(__AVX2__)
  return _mm256_movemask_ps((__m256)lanes);
#elif defined(__SSE2__)
  __m128 halves[2];
  std::memcpy(halves, &lanes, sizeof(lanes));
  return _mm_movemask_ps(halves[0]) | _mm_movemask_ps(halves[1]) << 4;
#else
  unsigned bits = 0;
  for (int i = 0; i < 8; ++i) bits |= (lanes[i] & 1u) << i;
  return bits;
#endif
}

inline unsigned bits_of(I64 lanes) {
#if defined(__AVX2__)
  return _mm256_movemask_pd((__m256d)lanes);
#else
  unsigned bits = 0;
  for (int i = 0; i < 4; ++i) bits |= (lanes[i] & 1u) << i;
  return bits;
#endif
}

// How the signs of one vector are packed: see masked_l1_signs.h.
inline uint16_t pack(F32 difference) {
  const unsigned positive = bits_of(difference > 0), negative = bits_of(difference < 0);
  return static_cast<uint16_t>((positive & 0x0f) | (negative & 0x0f) << 4 | (positive & 0xf0) << 4 |
                               (negative & 0xf0) << 8);
}

inline uint8_t pack(F64 difference) {
  return static_cast<uint8_t>(bits_of(difference > 0) | bits_of(difference < 0) << 4);
}

template <typename T>
double add_row(const void* prediction_data, const void* target_data, int64_t channels,
               uint8_t* signs) {
  const auto* prediction = static_cast<const T*>(prediction_data);
  const auto* target = static_cast<const T*>(target_data);
  using Vector = decltype(widen(prediction));
  using Word = decltype(pack(Vector{}));
  constexpr int kWidth = sizeof(Word) * 4;
  // Four sums run side by side, so that the additions of one do not wait for each other.
  constexpr int kSums = 4;

  Vector sums[kSums] = {};
  Word words[kSums];
  int64_t at = 0;
  for (; at + kSums * kWidth <= channels; at += kSums * kWidth) {
    for (int i = 0; i < kSums; ++i) {
      const Vector difference =
          widen(prediction + at + i * kWidth) - widen(target + at + i * kWidth);
      sums[i] += magnitude(difference);
      words[i] = pack(difference);
    }
    if (signs) std::memcpy(signs + at / 4, words, sizeof(words));
  }
  for (; at < channels; at += kWidth) {
    const int64_t left = channels - at < kWidth ? channels - at : kWidth;
    T tail[2][kWidth] = {};
    std::memcpy(tail[0], prediction + at, left * sizeof(T));
    std::memcpy(tail[1], target + at, left * sizeof(T));
    const Vector difference = widen(tail[0]) - widen(tail[1]);
    sums[0] += magnitude(difference);
    words[0] = pack(difference);
    if (signs) std::memcpy(signs + at / 4, words, (left + 3) / 4);
  }
  double total = 0;
  for (const Vector& sum : sums) {
    for (int i = 0; i < kWidth; ++i) total += static_cast<double>(sum[i]);
  }
  return total;
}

}  // namespace

const RowFunctions GIMP_FAST_ISA::rows = {add_row<float>, add_row<double>, add_row<BFloat16>,
                                          add_row<Half>};

}  // namespace gimp_fast
