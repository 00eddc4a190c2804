// Which thread computes which head.
#pragma once

#include <vector>

#include "nystrom_attention.h"

namespace gimp_fast {

// Computes all heads on torch's threads.
void run_heads(const std::vector<Head>& heads, const NystromKernels& inner, bool backward);

}  // namespace gimp_fast
