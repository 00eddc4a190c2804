#include "instruction_sets.h"

#include <stdexcept>

namespace gimp_fast {
namespace {

const char* name_of(InstructionSet set) {
  switch (set) {
    case InstructionSet::kAvx512: return "avx512";
    case InstructionSet::kAvx2: return "avx2";
    default: return "baseline";
  }
}

std::vector<InstructionSet> supported() {
  std::vector<InstructionSet> sets;
#if defined(GIMP_FAST_X86)
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("f16c");
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    sets.push_back(InstructionSet::kAvx512);
  }
  if (avx2) sets.push_back(InstructionSet::kAvx2);
#endif
  sets.push_back(InstructionSet::kBaseline);
  return sets;
}

InstructionSet& in_use() {
  static InstructionSet set = supported().front();
  return set;
}

}  // namespace

InstructionSet instruction_set() { return in_use(); }

std::vector<std::string> instruction_set_names() {
  std::vector<std::string> names;
  for (const InstructionSet set : supported()) names.emplace_back(name_of(set));
  return names;
}

std::string instruction_set_name() { return name_of(in_use()); }

void use_instruction_set(const std::string& name) {
  for (const InstructionSet set : supported()) {
    if (name == name_of(set)) {
      in_use() = set;
      return;
    }
  }
  throw std::invalid_argument("this processor has no instruction set '" + name + "'");
}

}  // namespace gimp_fast
