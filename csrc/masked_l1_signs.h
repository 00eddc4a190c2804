// How masked L1 stores the signs of differences.
//
// A sign takes two bits. Four channels make one byte: the low nibble has a bit for each positive
// difference, the high nibble one for each negative; both are clear where the difference is zero or
// NaN. A row of C channels takes ceil(C / 4) bytes, so no byte is shared by two rows.
#pragma once

#include <cstdint>

namespace gimp_fast {

constexpr int64_t kChannelsPerByte = 4;

constexpr int64_t sign_bytes(int64_t channels) {
  return (channels + kChannelsPerByte - 1) / kChannelsPerByte;
}

}  // namespace gimp_fast
