// Vectors as wide as the registers of the instruction set that a file is compiled for, and the
// element types of tensors. Only for files that are compiled once for each instruction set.
//
// Everything is static, and no header of the standard library with inline code is included: the
// linker could keep the copy of one instruction set for processors without it.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__F16C__)
#include <immintrin.h>
#endif

namespace gimp_fast {
namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float F32 __attribute__((vector_size(4 * kLanes)));
typedef uint32_t U32 __attribute__((vector_size(4 * kLanes)));
// Four lanes are there on every processor; blocks of 4 × 4 are transposed in them.
typedef float Four __attribute__((vector_size(16)));
typedef int32_t FourIndices __attribute__((vector_size(16)));
#if defined(__clang__)
#define GIMP_FAST_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define GIMP_FAST_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, FourIndices{__VA_ARGS__})
#endif

template <typename Vector>
inline Vector load(const float* source) {
  Vector vector;
  std::memcpy(&vector, source, sizeof(vector));
  return vector;
}

inline F32 load(const float* source) { return load<F32>(source); }

template <typename Vector>
inline void store(float* target, Vector vector) {
  std::memcpy(target, &vector, sizeof(vector));
}

// Not by adding to zero: compilers would add, because the sum with −0 is not −0.
inline F32 broadcast(float value) {
#if defined(__AVX512F__)
  return (F32)_mm512_set1_ps(value);
#elif defined(__AVX2__)
  return (F32)_mm256_set1_ps(value);
#else
  return F32{value, value, value, value};
#endif
}

inline F32 larger(F32 a, F32 b) { return a > b ? a : b; }

inline float sum_of(F32 x) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_ps((__m512)x);
#else
  float lanes[kLanes];
  store(lanes, x);
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  }
  return lanes[0];
#endif
}

inline float largest_of(F32 x) {
#if defined(__AVX512F__)
  return _mm512_reduce_max_ps((__m512)x);
#else
  float lanes[kLanes];
  store(lanes, x);
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) {
      lanes[i] = lanes[i] > lanes[i + width] ? lanes[i] : lanes[i + width];
    }
  }
  return lanes[0];
#endif
}

inline int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

inline float infinity() { return __builtin_inff(); }

inline bool is_finite(float x) { return x - x == 0; }

// 2^x for x ≤ 0, to about one rounding; 0 where it would be below 2^-126. NaN stays NaN.
inline F32 exp2_of(F32 x) {
  // Adding 1.5 · 2^23 rounds to a whole number and leaves it in the low bits.
  const F32 magic = broadcast(12582912.0f);
  const F32 shifted = x + magic;
  const F32 f = x - (shifted - magic);  // -1/2 … 1/2
  // Minimax polynomial of 2^f.
  F32 p = broadcast(1.535336188319500e-4f);
  p = p * f + 1.339887440266574e-3f;
  p = p * f + 9.618437357674640e-3f;
  p = p * f + 5.550332471162809e-2f;
  p = p * f + 2.402264791363012e-1f;
  p = p * f + 6.931472028550421e-1f;
  p = p * f + 1.0f;
  U32 bits;  // unsigned, because the sum wraps around where the result becomes 0
  std::memcpy(&bits, &shifted, sizeof(bits));
  U32 result;
  std::memcpy(&result, &p, sizeof(result));
  result += bits << 23;
  result &= ~(U32)(x < -126.0f);
  F32 out;
  std::memcpy(&out, &result, sizeof(out));
  return out;
}

struct BFloat16 {
  uint16_t bits;
};
struct Half {
  uint16_t bits;
};

inline float from_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

inline uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

inline float widen(float x) { return x; }

inline float widen(BFloat16 x) { return from_bits(static_cast<uint32_t>(x.bits) << 16); }

inline float widen(Half x) {
#if defined(__F16C__)
  return _cvtsh_ss(x.bits);
#else
  // Exponent and mantissa in their fp32 places, then 2^112 corrects the bias; subnormals are exact.
  const float scaled = from_bits((x.bits & 0x7fffu) << 13) * 0x1p112f;
  const uint32_t infinite = scaled >= 65536.0f ? 0x7f800000u : 0u;
  return from_bits(bits_of(scaled) | infinite | ((x.bits & 0x8000u) << 16));
#endif
}

inline void narrow(float value, float* out) { *out = value; }

inline void narrow(float value, BFloat16* out) {
  const uint32_t bits = bits_of(value);
  const uint32_t even = bits + 0x7fffu + (bits >> 16 & 1u);
  out->bits = static_cast<uint16_t>((value != value ? bits | 0x400000u : even) >> 16);
}

inline void narrow(float value, Half* out) {
#if defined(__F16C__)
  out->bits = static_cast<uint16_t>(_cvtss_sh(value, 0));
#else
  const uint32_t bits = bits_of(value), sign = bits >> 16 & 0x8000u, size = bits & 0x7fffffffu;
  uint32_t half;
  if (size > 0x7f800000u) {
    half = 0x7e00u;
  } else if (size >= 0x477ff000u) {  // rounds beyond the largest
    half = 0x7c00u;
  } else if (size < 0x38800000u) {  // subnormal: the addition rounds at the last bit of a half
    half = bits_of(from_bits(size) + 0.5f) - 0x3f000000u;
  } else {
    half = (size - 0x38000000u + 0xfffu + (size >> 13 & 1u)) >> 13;
  }
  out->bits = static_cast<uint16_t>(sign | half);
#endif
}

}  // namespace
}  // namespace gimp_fast
