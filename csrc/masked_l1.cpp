// Masked L1 on the CPU: each counted element is read once, in one pass that sums and packs the
// signs.
//
// Rows are cut into chunks whose size depends on the channels alone, and a chunk is summed by fixed
// lanes: the result is bitwise the same for every number of threads.

#include "masked_l1.h"

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <tuple>

#if defined(__SSE2__)
#include <immintrin.h>
#endif
#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace gimp_fast {
namespace {

using torch::headeronly::BFloat16;
using torch::headeronly::Half;

constexpr int64_t kChunkElements = 32768;
// Four sums run side by side, so that the additions of one do not wait for each other.
constexpr int kLanes = 4;

// GCC and Clang vectors of four: the baseline registers of every 64-bit machine, hence portable
// wheels. The loop is bound by memory; wider ones were measured and gain nothing.
typedef float F32x4 __attribute__((vector_size(16)));
typedef int32_t I32x4 __attribute__((vector_size(16)));
typedef uint32_t U32x4 __attribute__((vector_size(16)));
typedef uint16_t U16x4 __attribute__((vector_size(8)));
typedef double F64x4 __attribute__((vector_size(32)));
typedef int64_t I64x4 __attribute__((vector_size(32)));

template <typename Vector>
inline Vector load(const void* source) {
  Vector vector;
  std::memcpy(&vector, source, sizeof(vector));
  return vector;
}

inline void load4(const float* source, F32x4& out) { out = load<F32x4>(source); }

inline void load4(const double* source, F64x4& out) { out = load<F64x4>(source); }

inline void load4(const BFloat16* source, F32x4& out) {
  out = (F32x4)(__builtin_convertvector(load<U16x4>(source), U32x4) << 16);
}

inline void load4(const Half* source, F32x4& out) {
  const U32x4 half = __builtin_convertvector(load<U16x4>(source), U32x4);
  // Exponent and mantissa in their fp32 places, then 2^112 corrects the bias; subnormals come out
  // exact.
  const F32x4 scaled = (F32x4)((half & 0x7fffu) << 13) * 0x1p112f;
  const U32x4 overflow = (U32x4)(scaled >= 65536.0f) & 0x7f800000u;
  out = (F32x4)((U32x4)scaled | overflow | ((half & 0x8000u) << 16));
}

inline uint8_t mask_bits(I32x4 mask) {
#if defined(__SSE2__)
  return static_cast<uint8_t>(_mm_movemask_ps((__m128)mask));
#else
  return static_cast<uint8_t>((mask[0] & 1) | (mask[1] & 2) | (mask[2] & 4) | (mask[3] & 8));
#endif
}

inline uint8_t mask_bits(I64x4 mask) { return mask_bits(__builtin_convertvector(mask, I32x4)); }

inline F32x4 magnitude(F32x4 x) { return (F32x4)((I32x4)x & 0x7fffffff); }

inline F64x4 magnitude(F64x4 x) { return (F64x4)((I64x4)x & 0x7fffffffffffffff); }

template <typename T>
using Vector4 = std::conditional_t<std::is_same_v<T, double>, F64x4, F32x4>;

// Adds |prediction - target| of one group to `sum` and returns the packed signs.
template <typename T>
inline uint8_t add_group(const T* prediction, const T* target, Vector4<T>& sum) {
  Vector4<T> p, t;
  load4(prediction, p);
  load4(target, t);
  const Vector4<T> difference = p - t;
  sum += magnitude(difference);
  return mask_bits(difference > 0) | (mask_bits(difference < 0) << 4);
}

// `signs` is null when no gradient will be asked for.
template <typename T>
double add_row(const T* prediction, const T* target, int64_t channels, uint8_t* signs) {
  std::array<Vector4<T>, kLanes> sums{};
  const int64_t whole = channels / kChannelsPerByte;
  int64_t group = 0;
  for (; group + kLanes <= whole; group += kLanes) {
    std::array<uint8_t, kLanes> bytes;
    for (int lane = 0; lane < kLanes; ++lane) {
      const int64_t at = (group + lane) * kChannelsPerByte;
      bytes[lane] = add_group(prediction + at, target + at, sums[lane]);
    }
    if (signs) std::memcpy(signs + group, bytes.data(), kLanes);
  }
  for (; group < whole; ++group) {
    const int64_t at = group * kChannelsPerByte;
    const uint8_t byte = add_group(prediction + at, target + at, sums[0]);
    if (signs) signs[group] = byte;
  }
  if (const int64_t at = whole * kChannelsPerByte; at < channels) {
    T tail[2][kChannelsPerByte] = {};
    std::copy(prediction + at, prediction + channels, tail[0]);
    std::copy(target + at, target + channels, tail[1]);
    const uint8_t byte = add_group(tail[0], tail[1], sums[0]);
    if (signs) signs[whole] = byte;
  }
  double total = 0;
  for (const auto& sum : sums) {
    for (int i = 0; i < kChannelsPerByte; ++i) total += static_cast<double>(sum[i]);
  }
  return total;
}

int64_t rows_of_chunk(int64_t channels) {
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

// Most of the time of writing a new large output goes to page faults; large pages make few of them.
// Only outputs that malloc maps by themselves (glibc: from 32 MiB on), so that the advice ends with
// them. A system that does not take it changes nothing.
void advise_large_pages(const Tensor& tensor) {
#if defined(__linux__)
  constexpr uintptr_t kLargePage = 2 << 20, kLeastBytes = 32 << 20;
  const uintptr_t bytes = tensor.numel() * tensor.element_size();
  if (bytes < kLeastBytes) return;
  const auto begin = reinterpret_cast<uintptr_t>(tensor.mutable_data_ptr());
  const uintptr_t first = (begin + kLargePage - 1) / kLargePage * kLargePage;
  const uintptr_t last = (begin + bytes) / kLargePage * kLargePage;
  madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
}

template <typename T>
double sum_rows(const Tensor& prediction, const Tensor& target, const Tensor& mask,
                int64_t channels, uint8_t* signs) {
  const auto* p = static_cast<const T*>(prediction.const_data_ptr());
  const auto* t = static_cast<const T*>(target.const_data_ptr());
  const auto* counted = static_cast<const bool*>(mask.const_data_ptr());
  const int64_t rows = mask.numel(), bytes = sign_bytes(channels);
  const int64_t chunk_rows = rows_of_chunk(channels);
  std::vector<double> partial((rows + chunk_rows - 1) / chunk_rows);
  for_chunks(rows, channels, [&](int64_t chunk, int64_t first, int64_t last) {
    double total = 0;
    for (int64_t row = first; row < last; ++row) {
      uint8_t* row_signs = signs ? signs + row * bytes : nullptr;
      if (counted[row]) {
        total += add_row(p + row * channels, t + row * channels, channels, row_signs);
      } else if (row_signs) {
        std::memset(row_signs, 0, bytes);
      }
    }
    partial[chunk] = total;
  });
  double total = 0;
  for (const double part : partial) total += part;
  return total;
}

// One look-up a byte gives its four gradients.
template <typename T>
std::array<std::array<T, kChannelsPerByte>, 256> gradients_of_bytes(T positive, T negative) {
  std::array<std::array<T, kChannelsPerByte>, 256> table{};
  for (int byte = 0; byte < 256; ++byte) {
    for (int i = 0; i < kChannelsPerByte; ++i) {
      if (byte >> i & 1) table[byte][i] = positive;
      if (byte >> (i + 4) & 1) table[byte][i] = negative;
    }
  }
  return table;
}

template <typename T>
void write_gradient(const Tensor& signs, const Tensor& mask, int64_t channels, double grad,
                    const Tensor& out) {
  const auto table = gradients_of_bytes(static_cast<T>(grad), static_cast<T>(-grad));
  const auto* s = static_cast<const uint8_t*>(signs.const_data_ptr());
  const auto* counted = static_cast<const bool*>(mask.const_data_ptr());
  auto* g = static_cast<T*>(out.mutable_data_ptr());
  const int64_t bytes = sign_bytes(channels), whole = channels / kChannelsPerByte;
  for_chunks(mask.numel(), channels, [&](int64_t, int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      T* row_out = g + row * channels;
      if (!counted[row]) {
        std::memset(static_cast<void*>(row_out), 0, channels * sizeof(T));
        continue;
      }
      const uint8_t* row_signs = s + row * bytes;
      for (int64_t i = 0; i < whole; ++i) {
        std::memcpy(row_out + i * kChannelsPerByte, table[row_signs[i]].data(),
                    kChannelsPerByte * sizeof(T));
      }
      const int64_t at = whole * kChannelsPerByte;
      if (at < channels) {
        std::copy_n(table[row_signs[whole]].begin(), channels - at, row_out + at);
      }
    }
  });
}

std::tuple<Tensor, Tensor> masked_l1_fwd(const Tensor& prediction, const Tensor& target,
                                         const Tensor& mask, bool save_signs) {
  const int64_t channels = check_forward(prediction, target, mask);
  Tensor sum = new_sum(prediction);
  Tensor signs = new_signs(mask, channels, save_signs);
  auto* s = save_signs ? static_cast<uint8_t*>(signs.mutable_data_ptr()) : nullptr;
  if (prediction.numel() == 0) return {sum, signs};

  const auto run = [&]<typename T>(T) {
    return sum_rows<T>(prediction, target, mask, channels, s);
  };
  const auto store = [&](double value) {
    *static_cast<float*>(sum.mutable_data_ptr()) = static_cast<float>(value);
  };
  switch (prediction.scalar_type()) {
    case ScalarType::Float: store(run(float{})); break;
    case ScalarType::BFloat16: store(run(BFloat16{})); break;
    case ScalarType::Half: store(run(Half{})); break;
    case ScalarType::Double: *static_cast<double*>(sum.mutable_data_ptr()) = run(double{}); break;
    default:
      STD_TORCH_CHECK(false, "masked_l1: dtype must be float32, float64, bfloat16 or float16");
  }
  return {sum, signs};
}

Tensor masked_l1_bwd(const Tensor& grad, const Tensor& signs, const Tensor& mask, int64_t channels,
                     ScalarType dtype) {
  check_backward(grad, signs, mask, channels);
  Tensor out = torch::stable::new_empty(mask, with_last(mask, channels), dtype);
  if (out.numel() == 0) return out;
  advise_large_pages(out);

  const bool is_double = grad.scalar_type() == ScalarType::Double;
  STD_TORCH_CHECK(is_double || grad.scalar_type() == ScalarType::Float,
                  "masked_l1: the gradient of the sum must be float32 or float64");
  const double g = is_double ? *static_cast<const double*>(grad.const_data_ptr())
                             : *static_cast<const float*>(grad.const_data_ptr());
  switch (dtype) {
    case ScalarType::Float: write_gradient<float>(signs, mask, channels, g, out); break;
    case ScalarType::BFloat16: write_gradient<BFloat16>(signs, mask, channels, g, out); break;
    case ScalarType::Half: write_gradient<Half>(signs, mask, channels, g, out); break;
    case ScalarType::Double: write_gradient<double>(signs, mask, channels, g, out); break;
    default:
      STD_TORCH_CHECK(false, "masked_l1: dtype must be float32, float64, bfloat16 or float16");
  }
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(gimp_fast, m) {
  m.def(
      "masked_l1_fwd(Tensor prediction, Tensor target, Tensor mask, bool save_signs)"
      " -> (Tensor sum, Tensor signs)");
  m.def(
      "masked_l1_bwd(Tensor grad, Tensor signs, Tensor mask, int channels, ScalarType dtype)"
      " -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(gimp_fast, CPU, m) {
  m.impl("masked_l1_fwd", TORCH_BOX(&masked_l1_fwd));
  m.impl("masked_l1_bwd", TORCH_BOX(&masked_l1_bwd));
}

}  // namespace gimp_fast
