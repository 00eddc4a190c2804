// The instruction sets for which inner loops are compiled.
#pragma once

#include <string>
#include <vector>

namespace gimp_fast {

enum class InstructionSet { kBaseline, kAvx2, kAvx512 };

// The best of this processor, or the one that `use_instruction_set` has set.
InstructionSet instruction_set();

// Names of those of this processor, the best first; for tests and benchmarks.
std::vector<std::string> instruction_set_names();
std::string instruction_set_name();
// Throws std::invalid_argument for a name that this processor does not have.
void use_instruction_set(const std::string& name);

// The table of inner loops called `name`, of namespace baseline, avx2 or avx512.
#if defined(GIMP_FAST_X86)
#define GIMP_FAST_TABLE(name)                                  \
  (instruction_set() == InstructionSet::kAvx512 ? avx512::name \
   : instruction_set() == InstructionSet::kAvx2 ? avx2::name   \
                                                : baseline::name)
#else
#define GIMP_FAST_TABLE(name) (baseline::name)
#endif

}  // namespace gimp_fast
