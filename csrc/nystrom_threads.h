// Which thread computes which head, and with which instruction set.
#pragma once

#include <string>
#include <vector>

#include "nystrom_attention.h"

namespace gimp_fast {

// Instruction sets that this processor has, the best first; and the one in use, which tests change.
std::vector<std::string> nystrom_instruction_sets();
std::string nystrom_instruction_set();
void use_nystrom_instruction_set(const std::string& name);

// Computes all heads on torch's threads.
void run_heads(const std::vector<Head>& heads, bool backward);

}  // namespace gimp_fast
