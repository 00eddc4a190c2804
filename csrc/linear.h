// A linear layer on torch's threads.
#pragma once

#include "linear_kernels.h"

namespace gimp_fast {

void run_linear(const LinearCall& call, bool backward);

}  // namespace gimp_fast
