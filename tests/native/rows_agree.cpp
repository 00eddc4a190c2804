// Prints how many rows of random bits the baseline and the AVX2 code sum or pack differently.

#include "masked_l1_rows.h"
#include "masked_reconstruction_rows.h"

#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

using gimp_fast::AddRow;
using gimp_fast::RowFunctions;
using gimp_fast::SignRow;

namespace {

std::vector<uint8_t> random_row(std::mt19937& random, int channels) {
  std::vector<uint8_t> row(channels * sizeof(double));
  // Exponents of all sizes; the highest bits stay clear, so few numbers are NaN.
  for (auto& byte : row) byte = random() >> 3 & 0x9f;
  return row;
}

bool agree(AddRow first, AddRow second, const uint8_t* p, const uint8_t* t, int channels) {
  std::vector<uint8_t> signs[2];
  double sums[2];
  for (int i = 0; i < 2; ++i) {
    signs[i].assign((channels + 3) / 4, 0xff);
    sums[i] = (i ? second : first)(p, t, channels, signs[i].data());
  }
  const bool both_nan = sums[0] != sums[0] && sums[1] != sums[1];
  return signs[0] == signs[1] && (both_nan || !std::memcmp(&sums[0], &sums[1], sizeof(double)));
}

bool agree(SignRow first, SignRow second, const std::vector<uint8_t>& p, const uint8_t* t,
           int channels) {
  // Signs replace the decoded row, so each works on its own copy.
  std::vector<uint8_t> decoded[2] = {p, p};
  std::vector<int32_t> sign_sums[2];
  double sums[2];
  for (int i = 0; i < 2; ++i) {
    sign_sums[i].assign(channels, 3);
    sums[i] = (i ? second : first)(decoded[i].data(), t, channels, sign_sums[i].data());
  }
  const bool both_nan = sums[0] != sums[0] && sums[1] != sums[1];
  return decoded[0] == decoded[1] && sign_sums[0] == sign_sums[1] &&
         (both_nan || !std::memcmp(&sums[0], &sums[1], sizeof(double)));
}

}  // namespace

int main() {
  std::mt19937 random(0);
  const RowFunctions &a = gimp_fast::baseline::rows, &b = gimp_fast::avx2::rows;
  int different = 0;
  for (const int channels : {1, 2, 3, 4, 5, 7, 8, 9, 13, 16, 31, 32, 33, 63, 64, 100, 1000, 1024}) {
    for (int repeat = 0; repeat < 100; ++repeat) {
      const auto p = random_row(random, channels), t = random_row(random, channels);
      different += !agree(a.float32, b.float32, p.data(), t.data(), channels);
      different += !agree(a.float64, b.float64, p.data(), t.data(), channels);
      different += !agree(a.bfloat16, b.bfloat16, p.data(), t.data(), channels);
      different += !agree(a.float16, b.float16, p.data(), t.data(), channels);
      for (int decoded = 0; decoded < 4; ++decoded) {
        for (int target = 0; target < 4; ++target) {
          different +=
              !agree(gimp_fast::baseline::sign_rows.of[decoded][target],
                     gimp_fast::avx2::sign_rows.of[decoded][target], p, t.data(), channels);
        }
      }
    }
  }
  std::printf("%d\n", different);
}
