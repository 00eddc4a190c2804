// Runs the CUDA kernels over rows on a CPU: arguments say which and how, arrays come from stdin,
// and results go to stdout, once for each order of threads. tests/builders/device_code.py calls it.

#include "cuda_on_cpu.h"

#include "masked_l1.cuh"
#include "masked_reconstruction.cuh"

#include <cstdio>

namespace {

using namespace gimp_fast;

// Of exactly its size, so that an access behind it is seen. Until it is written, it holds nonsense.
template <typename T>
class Array {
 public:
  // Its first element is `shift` elements behind an address that every vector type may have.
  explicit Array(int64_t count, int64_t shift = 0)
      : shift_(shift), bytes_((count + shift) * sizeof(T), 0xa5) {}

  T* data() { return reinterpret_cast<T*>(bytes_.data()) + shift_; }

  void read() {
    if (size() && std::fread(data(), size(), 1, stdin) != 1) {
      throw std::runtime_error("input is short");
    }
  }

  void write() {
    if (size()) std::fwrite(data(), size(), 1, stdout);
  }

 private:
  size_t size() const { return bytes_.size() - shift_ * sizeof(T); }

  int64_t shift_;
  std::vector<unsigned char> bytes_;
};

class Arguments {
 public:
  Arguments(int count, char** words) : words_(words + 1, words + count) {}

  bool more() const { return next_ < words_.size(); }
  const std::string& word() { return words_.at(next_++); }
  int64_t number() { return std::stoll(word()); }

 private:
  std::vector<std::string> words_;
  size_t next_ = 0;
};

template <typename Body>
void with_type(const std::string& name, const Body& body) {
  if (name == "float32") return body(float{});
  if (name == "float64") return body(double{});
  if (name == "bfloat16") return body(__nv_bfloat16{});
  if (name == "float16") return body(__half{});
  throw std::runtime_error(name + " is no dtype");
}

// The next argument is the order of threads.
cuda_on_cpu::Launch next_launch(Arguments& arguments) {
  return cuda_on_cpu::Launch(kThreads, static_cast<int>(arguments.number()));
}

// Fewer blocks have to go round more often.
RowGrid at_most(RowGrid grid, int64_t blocks) {
  grid.blocks = std::min(grid.blocks, blocks);
  return grid;
}

void masked_l1_fwd(Arguments& arguments) {
  with_type(arguments.word(), [&]<typename T>(T) {
    const int64_t rows = arguments.number(), channels = arguments.number();
    const int64_t shift = arguments.number(), blocks = arguments.number();
    const bool save_signs = arguments.number();
    Array<T> prediction(rows * channels, shift), target(rows * channels, shift);
    Array<bool> mask(rows);
    prediction.read(), target.read(), mask.read();
    const RowGrid grid =
        at_most(masked_l1_fwd_grid(prediction.data(), target.data(), rows, channels), blocks);
    while (arguments.more()) {
      Array<uint8_t> signs(save_signs ? rows * sign_bytes(channels) : 0);
      Array<double> partial(grid.blocks);
      Array<Accumulator<T>> sum(1);
      launch_masked_l1_fwd(next_launch(arguments), grid, prediction.data(), target.data(),
                           mask.data(), rows, channels, save_signs ? signs.data() : nullptr,
                           partial.data(), sum.data());
      sum.write(), signs.write();
    }
  });
}

void masked_l1_bwd(Arguments& arguments) {
  with_type(arguments.word(), [&]<typename T>(T) {
    const int64_t rows = arguments.number(), channels = arguments.number();
    const int64_t shift = arguments.number(), blocks = arguments.number();
    Array<Accumulator<T>> grad(1);
    Array<uint8_t> signs(rows * sign_bytes(channels));
    Array<bool> mask(rows);
    grad.read(), signs.read(), mask.read();
    while (arguments.more()) {
      Array<T> out(rows * channels, shift);
      const RowGrid grid = at_most(masked_l1_bwd_grid(out.data(), rows, channels), blocks);
      launch_masked_l1_bwd(next_launch(arguments), grid, grad.data(), signs.data(), mask.data(),
                           rows, channels, out.data());
      out.write();
    }
  });
}

void masked_reconstruction_rows(Arguments& arguments) {
  with_type(arguments.word(), [&]<typename Decoded>(Decoded) {
    with_type(arguments.word(), [&]<typename Target>(Target) {
      const int64_t rows = arguments.number(), targets = arguments.number();
      const int64_t channels = arguments.number();
      const int64_t shift = arguments.number(), blocks = arguments.number();
      Array<Decoded> decoded(rows * channels, shift);
      Array<Target> target(targets * channels, shift);
      Array<int64_t> index(rows);
      decoded.read(), target.read(), index.read();
      while (arguments.more()) {
        Array<Decoded> signs = decoded;
        Array<Accumulator<Decoded>> sums(rows);
        const RowGrid grid = at_most(
            masked_reconstruction_grid(signs.data(), target.data(), rows, channels), blocks);
        launch_masked_reconstruction(next_launch(arguments), grid, signs.data(), target.data(),
                                     index.data(), rows, targets, channels, sums.data());
        sums.write(), signs.write();
      }
    });
  });
}

}  // namespace

int main(int count, char** words) try {
  Arguments arguments(count, words);
  const std::string& kernel = arguments.word();
  if (kernel == "masked_l1_fwd") masked_l1_fwd(arguments);
  if (kernel == "masked_l1_bwd") masked_l1_bwd(arguments);
  if (kernel == "masked_reconstruction_rows") masked_reconstruction_rows(arguments);
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
