// gimp_fast._C: importing it registers the CPU operators; its one function returns what was built.

#include <pybind11/pybind11.h>

#include "build_facts.h"

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
}
