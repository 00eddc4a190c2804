// One row of the CPU masked L1. CMake compiles this file once for each instruction set, into the
// namespace that GIMP_FAST_ISA names. Both give the same bits: lanes and their order are written
// out, nothing is fused.
//
// No header with inline code is included: the linker could keep its AVX2 copy for machines without.

#include "masked_l1_rows.h"

#include <cstring>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace gimp_fast {
namespace {

struct BFloat16 {
  uint16_t bits;
};
struct Half {
  uint16_t bits;
};

// GCC and Clang vectors of 32 bytes: one register with AVX2, two without.
typedef float F32 __attribute__((vector_size(32)));
typedef int32_t I32 __attribute__((vector_size(32)));
typedef uint32_t U32 __attribute__((vector_size(32)));
typedef uint16_t U16 __attribute__((vector_size(16)));
typedef double F64 __attribute__((vector_size(32)));
typedef int64_t I64 __attribute__((vector_size(32)));

template <typename Vector>
inline Vector load(const void* source) {
  Vector vector;
  std::memcpy(&vector, source, sizeof(vector));
  return vector;
}

inline F32 widen(const float* source) { return load<F32>(source); }

inline F64 widen(const double* source) { return load<F64>(source); }

inline U32 widen_bits(const void* source) {
#if defined(__AVX2__)
  return (U32)_mm256_cvtepu16_epi32(load<__m128i>(source));
#else
  return __builtin_convertvector(load<U16>(source), U32);
#endif
}

inline F32 widen(const BFloat16* source) { return (F32)(widen_bits(source) << 16); }

inline F32 widen(const Half* source) {
#if defined(__F16C__)
  return (F32)_mm256_cvtph_ps(load<__m128i>(source));
#else
  const U32 half = widen_bits(source);
  // Exponent and mantissa in their fp32 places, then 2^112 corrects the bias; subnormals are exact.
  const F32 scaled = (F32)((half & 0x7fffu) << 13) * 0x1p112f;
  const U32 infinite = (U32)(scaled >= 65536.0f) & 0x7f800000u;
  return (F32)((U32)scaled | infinite | ((half & 0x8000u) << 16));
#endif
}

inline F32 magnitude(F32 x) { return (F32)((I32)x & 0x7fffffff); }

inline F64 magnitude(F64 x) { return (F64)((I64)x & 0x7fffffffffffffff); }

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

// How the signs of one vector are packed: see masked_l1.h.
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
