// One row of the CPU masked reconstruction. CMake compiles this file once for each instruction set,
// into the namespace that GIMP_FAST_ISA names. Both give the same bits: lanes and their order are
// written out, nothing is fused.

#include "masked_reconstruction_rows.h"
#include "row_vectors.h"

namespace gimp_fast {
namespace {

constexpr int kWidth = 8;

typedef double F64x8 __attribute__((vector_size(64)));
typedef int64_t I64x8 __attribute__((vector_size(64)));

template <typename T>
constexpr bool kIsDouble = false;
template <>
constexpr bool kIsDouble<double> = true;

template <typename T>
inline auto widen8(const T* source) {
  if constexpr (kIsDouble<T>) {
    return load<F64x8>(source);
  } else {
    return widen(source);
  }
}

// As torch does it: in fp64 if one of them is, then rounded to the dtype of the sum.
template <typename Decoded, typename Target>
inline auto subtract(const Decoded* decoded, const Target* target) {
  if constexpr (kIsDouble<Decoded>) {
    return widen8(decoded) - __builtin_convertvector(widen8(target), F64x8);
  } else if constexpr (kIsDouble<Target>) {
    return __builtin_convertvector(__builtin_convertvector(widen8(decoded), F64x8) - widen8(target),
                                   F32);
  } else {
    return widen(decoded) - widen(target);
  }
}

inline F64x8 magnitude(F64x8 x) { return (F64x8)((I64x8)x & 0x7fffffffffffffff); }

// 1, -1 or 0 (of a zero or NaN) from the lanes where a difference is positive and negative.
inline void write(float* out, I32 positive, I32 negative) {
  const I32 bits = (positive & 0x3f800000) | (negative & static_cast<int32_t>(0xbf800000));
  std::memcpy(out, &bits, sizeof(bits));
}

inline void write(double* out, I64x8 positive, I64x8 negative) {
  const I64x8 bits =
      (positive & 0x3ff0000000000000) | (negative & static_cast<int64_t>(0xbff0000000000000));
  std::memcpy(out, &bits, sizeof(bits));
}

inline void write_bits(void* out, I32 positive, I32 negative, uint16_t one) {
  const uint16_t minus_one = one | 0x8000;
  const U16 bits = (__builtin_convertvector(positive, U16) & one) |
                   (__builtin_convertvector(negative, U16) & minus_one);
  std::memcpy(out, &bits, sizeof(bits));
}

inline void write(BFloat16* out, I32 positive, I32 negative) {
  write_bits(out, positive, negative, 0x3f80);
}

inline void write(Half* out, I32 positive, I32 negative) {
  write_bits(out, positive, negative, 0x3c00);
}

template <typename Lanes>
inline void add_signs(int32_t* sign_sums, Lanes positive, Lanes negative) {
  const I32 sums = load<I32>(sign_sums) + __builtin_convertvector(negative - positive, I32);
  std::memcpy(sign_sums, &sums, sizeof(sums));
}

template <typename Decoded, typename Target>
double sign_row(void* decoded_data, const void* target_data, int64_t channels, int32_t* sign_sums) {
  auto* decoded = static_cast<Decoded*>(decoded_data);
  const auto* target = static_cast<const Target*>(target_data);
  using Vector = decltype(subtract(decoded, target));
  // Four sums run side by side, so that the additions of one do not wait for each other.
  constexpr int kSums = 4;

  Vector sums[kSums] = {};
  int64_t at = 0;
  for (; at + kSums * kWidth <= channels; at += kSums * kWidth) {
    for (int i = 0; i < kSums; ++i) {
      const int64_t here = at + i * kWidth;
      const Vector difference = subtract(decoded + here, target + here);
      sums[i] += magnitude(difference);
      const auto positive = difference > 0, negative = difference < 0;
      write(decoded + here, positive, negative);
      if (sign_sums) add_signs(sign_sums + here, positive, negative);
    }
  }
  for (; at < channels; at += kWidth) {
    const int64_t left = channels - at < kWidth ? channels - at : kWidth;
    Decoded decoded_tail[kWidth] = {};
    Target target_tail[kWidth] = {};
    int32_t sums_tail[kWidth] = {};
    std::memcpy(decoded_tail, decoded + at, left * sizeof(Decoded));
    std::memcpy(target_tail, target + at, left * sizeof(Target));
    const Vector difference = subtract(decoded_tail, target_tail);
    sums[0] += magnitude(difference);
    const auto positive = difference > 0, negative = difference < 0;
    write(decoded_tail, positive, negative);
    std::memcpy(decoded + at, decoded_tail, left * sizeof(Decoded));
    if (sign_sums) {
      add_signs(sums_tail, positive, negative);
      for (int i = 0; i < left; ++i) sign_sums[at + i] += sums_tail[i];
    }
  }
  double total = 0;
  for (const Vector& sum : sums) {
    for (int i = 0; i < kWidth; ++i) total += static_cast<double>(sum[i]);
  }
  return total;
}

}  // namespace

#define SIGN_ROWS_OF(Decoded)                                                        \
  {sign_row<Decoded, float>, sign_row<Decoded, double>, sign_row<Decoded, BFloat16>, \
   sign_row<Decoded, Half>}

const SignRowFunctions GIMP_FAST_ISA::sign_rows = {
    {SIGN_ROWS_OF(float), SIGN_ROWS_OF(double), SIGN_ROWS_OF(BFloat16), SIGN_ROWS_OF(Half)}};

}  // namespace gimp_fast
