// gimp_fast._C: importing it registers the CPU operators; its functions return what was built and
// what is in use.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "build_facts.h"
#include "instruction_sets.h"

namespace py = pybind11;

PYBIND11_MODULE(_C, m) {
  m.doc() =
      "Native operators of gimp_fast (registered with torch on import) and facts about their "
      "build.";
  m.def("build_facts", [] {
    py::dict facts;
    facts["version"] = GIMP_FAST_VERSION;
    facts["compiler"] = GIMP_FAST_COMPILER;
    facts["build_type"] = GIMP_FAST_BUILD_TYPE;
    facts["torch_headers"] = GIMP_FAST_TORCH_VERSION;
    facts["torch_minimum"] = GIMP_FAST_TORCH_MINIMUM;
    facts["cuda"] = static_cast<bool>(GIMP_FAST_WITH_CUDA);
    facts["cuda_reason"] = GIMP_FAST_CUDA_REASON;
    facts["cuda_archs"] = GIMP_FAST_CUDA_ARCHS;
    facts["nvcc"] = GIMP_FAST_NVCC_VERSION;
    return facts;
  });
  m.def("instruction_sets", &gimp_fast::instruction_set_names,
        "Instruction sets of this processor that inner loops were compiled for, the best first.");
  m.def("instruction_set", &gimp_fast::instruction_set_name, "The one in use.");
  m.def("use_instruction_set", &gimp_fast::use_instruction_set,
        "Use another one; for tests and benchmarks.");
}
