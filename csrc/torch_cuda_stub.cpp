// An empty library with the name of torch's CUDA library. Linking to it writes that name into ours
// as a dependency, so that at run time its symbols come from the libtorch_cuda.so that torch has
// already loaded. This lets the CUDA operators be built against a CPU-only torch, which has no such
// library. It is never installed.
