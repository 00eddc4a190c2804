// Small kernels, right and wrong, which show what cuda_on_cpu.h finds. Arguments: name of a kernel,
// order of threads. A right result goes to stdout as a number.

#include "cuda_on_cpu.h"

#include <cstdio>
#include <map>

namespace {

constexpr int kThreads = 96;

// Each thread adds what it and its neighbour, of another warp too, have written.
template <bool Barrier>
__global__ void neighbours(int64_t* result) {
  __shared__ int64_t values[kThreads];
  values[threadIdx.x] = threadIdx.x;
  if (Barrier) __syncthreads();
  result[threadIdx.x] = values[threadIdx.x] + values[(threadIdx.x + 1) % kThreads];
}

// A sum over the lanes of a warp, then over warps.
template <bool Barrier>
__global__ void block_sum(int64_t* result) {
  __shared__ int64_t warps[kThreads / 32];
  int64_t value = threadIdx.x;
  for (int step = 16; step > 0; step /= 2) value += __shfl_down_sync(0xffffffffu, value, step);
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = value;
  if (Barrier) __syncthreads();
  if (threadIdx.x) return;
  for (const int64_t warp : warps) result[0] += warp;
}

__global__ void sum_of_pairs(int64_t* result) {
  result[threadIdx.x] = __shfl_down_sync(0xffffffffu, int64_t{threadIdx.x}, 1, 2);
}

__global__ void unset_shared_memory(int64_t* result) {
  __shared__ double value;
  result[threadIdx.x] = value != value;
}

__global__ void one_thread_leaves(int64_t*) {
  if (threadIdx.x == 40) return;
  __syncthreads();
}

__global__ void one_lane_leaves(int64_t*) {
  if (threadIdx.x == 40) return;
  __shfl_down_sync(0xffffffffu, 1, 16);
}

__global__ void two_barriers(int64_t*) {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}

__global__ void part_of_a_warp(int64_t*) {
  if (threadIdx.x % 32 < 16) __shfl_down_sync(0xffffu, 1, 8);
}

__global__ void failed_assertion(int64_t* result) {
  assert(threadIdx.x != 70);
  result[threadIdx.x] = 1;
}

__global__ void write_behind_the_end(int64_t* result) { result[threadIdx.x + 1] = 1; }

__global__ void read_of_a_misaligned_vector(int64_t* result) {
  struct alignas(16) Pair {
    int64_t value[2];
  };
  if (threadIdx.x == 0) result[0] = reinterpret_cast<const Pair*>(result + 1)->value[0];
}

// Blocks may come in any order, so what one leaves for the next is not defined.
__global__ void block_after_block(int64_t* result) {
  if (threadIdx.x == 0) result[0] = 3 * result[0] + blockIdx.x;
}

const std::map<std::string, void (*)(int64_t*)> kKernels = {
    {"neighbours", neighbours<true>},
    {"neighbours_without_barrier", neighbours<false>},
    {"block_sum", block_sum<true>},
    {"block_sum_without_barrier", block_sum<false>},
    {"sum_of_pairs", sum_of_pairs},
    {"unset_shared_memory", unset_shared_memory},
    {"one_thread_leaves", one_thread_leaves},
    {"one_lane_leaves", one_lane_leaves},
    {"two_barriers", two_barriers},
    {"part_of_a_warp", part_of_a_warp},
    {"failed_assertion", failed_assertion},
    {"write_behind_the_end", write_behind_the_end},
    {"read_of_a_misaligned_vector", read_of_a_misaligned_vector},
    {"block_after_block", block_after_block},
};

}  // namespace

int main(int, char** words) try {
  std::vector<int64_t> result(kThreads);
  const cuda_on_cpu::Launch launch(kThreads, std::stoi(words[2]));
  launch(kKernels.at(words[1]), std::stoi(words[3]), result.data());
  for (const int64_t number : result) std::printf("%ld\n", number);
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
