// Vectors for the inner loops of the CPU, which CMake compiles once for each instruction set.
//
// All is in an anonymous namespace: the linker must not keep the AVX2 copy of an inline function
// for machines without AVX2. For the same reason no other header with inline code is included.
#pragma once

#include <cstdint>
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

}  // namespace
}  // namespace gimp_fast
