// The two CUDA versions that meet when a kernel is launched: Python asks for them as it loads the
// library, and launches nothing if they do not fit. 13020 is 13.2; 0: unknown, or no driver.

#include <cuda_runtime.h>

extern "C" int gimp_fast_cuda_driver_version() {
  int version = 0;
  return cudaDriverGetVersion(&version) == cudaSuccess ? version : 0;
}

extern "C" int gimp_fast_cuda_runtime_version() {
  int version = 0;
  return cudaRuntimeGetVersion(&version) == cudaSuccess ? version : 0;
}
