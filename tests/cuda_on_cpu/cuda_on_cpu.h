// Runs CUDA kernels on one CPU thread, for tests. To be included before any device code.
//
// Each thread of a block is a fibre. It runs until it reaches a barrier or a shuffle, and goes on
// when all that must meet there have come. Blocks run one after the other, and so do the warps of a
// block between two barriers and the lanes of a warp between two shuffles, in an order that the
// test chooses. Of any two threads, each is the first in one of the orders kRising and kFalling: a
// missing barrier changes the result of one of them. Threads that meet must have come to the same
// line, and none may end while others wait for it.
//
// Shared memory holds NaN when a block starts. With AddressSanitizer, accesses beyond an array are
// found.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <ucontext.h>

#include <algorithm>
#include <cassert>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <source_location>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#if defined(__has_feature)  // clang
#if __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__ 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

// Variables in a section of their own lie together, so that all can be overwritten.
#undef __shared__
#define __shared__ static __attribute__((section("cuda_shared")))
extern "C" {
extern char __start_cuda_shared[] __attribute__((weak));
extern char __stop_cuda_shared[] __attribute__((weak));
}

inline uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;

namespace cuda_on_cpu {

using Place = std::source_location;

constexpr unsigned kWarp = 32;
constexpr size_t kStack = 64 << 10;
// Orders of threads and of blocks. A larger number is the seed of a random one.
constexpr int kRising = 0, kFalling = -1;

enum class State { kReady, kAtShuffle, kAtBarrier, kEnded };

struct Fibre {
  ucontext_t context;
  char* stack;
  void* fake_stack;  // AddressSanitizer's
  State state;
  Place place;          // where it waits
  uint64_t offered[2];  // by turns, as a lane may be one shuffle ahead of those that read
  unsigned shuffles;
};

inline bool same(const Place& a, const Place& b) {
  return a.line() == b.line() && !std::strcmp(a.file_name(), b.file_name());
}

inline std::string text(const Place& place) {
  return std::string(place.file_name()) + ":" + std::to_string(place.line());
}

class Block {
 public:
  Block(unsigned threads, int order)
      : order_(order), random_(order), stacks_(new char[threads * kStack]), fibres_(threads) {
    for (unsigned i = 0; i < threads; ++i) fibres_[i].stack = stacks_.get() + i * kStack;
  }

  std::vector<unsigned> in_order(unsigned count) {
    std::vector<unsigned> indices(count);
    std::iota(indices.begin(), indices.end(), 0u);
    if (order_ == kFalling) std::reverse(indices.begin(), indices.end());
    if (order_ > 0) std::shuffle(indices.begin(), indices.end(), random_);
    return indices;
  }

  void run(const std::function<void()>& kernel);

  // The others are for the running fibre.
  void wait(State state, const Place& place);
  uint64_t shuffle_down(uint64_t value, unsigned delta, unsigned width, const Place& place);
  [[noreturn]] void fail(const std::string& message);

 private:
  static void body();
  void start(Fibre& fibre);
  void run_warp(unsigned first, unsigned lanes);
  void meet(unsigned first, unsigned count);
  void resume(unsigned thread);
  void pause(void** fake_stack);

  int order_;
  std::mt19937 random_;
  std::unique_ptr<char[]> stacks_;
  std::vector<Fibre> fibres_;
  const std::function<void()>* kernel_ = nullptr;
  std::string fault_;
  ucontext_t scheduler_;
  const void* scheduler_stack_ = nullptr;
  size_t scheduler_stack_size_ = 0;
};

inline Block* running = nullptr;

inline void start_switch([[maybe_unused]] void** fake_stack, [[maybe_unused]] const void* stack,
                         [[maybe_unused]] size_t size) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(fake_stack, stack, size);
#endif
}

inline void finish_switch([[maybe_unused]] void* fake_stack, [[maybe_unused]] const void** from,
                          [[maybe_unused]] size_t* size) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake_stack, from, size);
#endif
}

inline void Block::run(const std::function<void()>& kernel) {
  kernel_ = &kernel;
  running = this;
  if (__start_cuda_shared) {
    std::memset(__start_cuda_shared, 0xff, __stop_cuda_shared - __start_cuda_shared);
  }
  for (auto& fibre : fibres_) start(fibre);
  const unsigned threads = fibres_.size(), warps = (threads + kWarp - 1) / kWarp;
  while (true) {
    for (const unsigned warp : in_order(warps)) {
      run_warp(warp * kWarp, std::min(kWarp, threads - warp * kWarp));
    }
    const auto ended = [](const Fibre& fibre) { return fibre.state == State::kEnded; };
    if (std::all_of(fibres_.begin(), fibres_.end(), ended)) return;
    meet(0, threads);
  }
}

inline void Block::start(Fibre& fibre) {
  getcontext(&fibre.context);
  fibre.context.uc_stack.ss_sp = fibre.stack;
  fibre.context.uc_stack.ss_size = kStack;
  fibre.context.uc_link = nullptr;
  makecontext(&fibre.context, body, 0);
  fibre.state = State::kReady;
  fibre.shuffles = 0;
}

inline void Block::body() {
  finish_switch(nullptr, &running->scheduler_stack_, &running->scheduler_stack_size_);
  (*running->kernel_)();
  running->fibres_[threadIdx.x].state = State::kEnded;
  running->pause(nullptr);
}

// To the next barrier of the block, or to the end.
inline void Block::run_warp(unsigned first, unsigned lanes) {
  for (bool shuffles = true; shuffles;) {
    shuffles = false;
    for (const unsigned lane : in_order(lanes)) {
      Fibre& fibre = fibres_[first + lane];
      if (fibre.state == State::kReady) resume(first + lane);
      shuffles |= fibre.state == State::kAtShuffle;
    }
    if (shuffles) meet(first, lanes);
  }
}

// Lets threads go on, if all have come to the same place.
inline void Block::meet(unsigned first, unsigned count) {
  unsigned waits = first;
  while (fibres_[waits].state == State::kEnded) ++waits;
  const Place& place = fibres_[waits].place;
  for (unsigned i = first; i < first + count; ++i) {
    const bool ended = fibres_[i].state == State::kEnded;
    if (ended || !same(fibres_[i].place, place)) {
      throw std::runtime_error("thread " + std::to_string(waits) + " waits at " + text(place) +
                               ", but thread " + std::to_string(i) +
                               (ended ? " has ended" : " at " + text(fibres_[i].place)));
    }
  }
  for (unsigned i = first; i < first + count; ++i) fibres_[i].state = State::kReady;
}

inline void Block::resume(unsigned thread) {
  threadIdx.x = thread;
  void* fake_stack = nullptr;
  start_switch(&fake_stack, fibres_[thread].stack, kStack);
  swapcontext(&scheduler_, &fibres_[thread].context);
  finish_switch(fake_stack, nullptr, nullptr);
  if (!fault_.empty()) throw std::runtime_error(fault_);
}

// Back to the scheduler; for the last time if there is no place for a fake stack.
inline void Block::pause(void** fake_stack) {
  start_switch(fake_stack, scheduler_stack_, scheduler_stack_size_);
  swapcontext(&fibres_[threadIdx.x].context, &scheduler_);
  finish_switch(*fake_stack, &scheduler_stack_, &scheduler_stack_size_);
}

inline void Block::wait(State state, const Place& place) {
  Fibre& fibre = fibres_[threadIdx.x];
  fibre.state = state;
  fibre.place = place;
  pause(&fibre.fake_stack);
}

inline void Block::fail(const std::string& message) {
  fault_ = "thread " + std::to_string(threadIdx.x) + ": " + message;
  pause(nullptr);
  std::abort();  // never reached
}

inline uint64_t Block::shuffle_down(uint64_t value, unsigned delta, unsigned width,
                                    const Place& place) {
  const unsigned me = threadIdx.x, turn = fibres_[me].shuffles++ % 2;
  fibres_[me].offered[turn] = value;
  wait(State::kAtShuffle, place);
  const unsigned source = me % width + delta < width ? me + delta : me;
  if (source >= fibres_.size()) fail(text(place) + " reads a lane that is not there");
  return fibres_[source].offered[turn];
}

[[noreturn]] inline void assertion_failed(const char* what, const char* file, unsigned line,
                                          const char*) {
  running->fail(std::string(file) + ":" + std::to_string(line) + ": assertion '" + what +
                "' failed");
}

// Runs kernels as the package's own Launch does, in blocks of `threads`.
class Launch {
 public:
  Launch(unsigned threads, int order) : threads_(threads), order_(order) {}

  template <typename... Parameters>
  void operator()(void (*kernel)(Parameters...), int64_t blocks,
                  std::type_identity_t<Parameters>... arguments) const {
    if (blocks < 1 || blocks > INT32_MAX) {
      throw std::runtime_error("a grid of " + std::to_string(blocks) + " blocks");
    }
    gridDim = dim3(blocks);
    blockDim = dim3(threads_);
    Block block(threads_, order_);
    for (const unsigned i : block.in_order(blocks)) {
      blockIdx.x = i;
      block.run([&] { kernel(arguments...); });
    }
  }

 private:
  unsigned threads_;
  int order_;
};

}  // namespace cuda_on_cpu

inline void __syncthreads(cuda_on_cpu::Place place = cuda_on_cpu::Place::current()) {
  cuda_on_cpu::running->wait(cuda_on_cpu::State::kAtBarrier, place);
}

template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = cuda_on_cpu::kWarp,
                   cuda_on_cpu::Place place = cuda_on_cpu::Place::current()) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= sizeof(uint64_t));
  if (mask != 0xffffffffu) cuda_on_cpu::running->fail("a shuffle of a part of a warp");
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = cuda_on_cpu::running->shuffle_down(bits, delta, width, place);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

// What assert() and CUDA_KERNEL_ASSERT call.
#define __assert_fail(...) cuda_on_cpu::assertion_failed(__VA_ARGS__)
