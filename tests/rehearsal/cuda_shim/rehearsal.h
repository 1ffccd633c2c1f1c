// What kernels see of the rehearsal: threads, barriers, shared memory, launches. The code behind it is in
// threads.cpp and memory.cpp, which alone are compiled without instrumentation.
//
//   csrc/x.cu -- translate.py --> x.cpp -- g++ -fsanitize=thread,alignment,bounds --> x.o --+
//                                                                                          +--> library
//   threads.cpp, memory.cpp ------- g++, without instrumentation ----------------> .o ----+
//
// The sanitizers' own libraries are not linked: memory.cpp defines the functions that instrumented code calls
// before each access to memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <tuple>
#include <type_traits>

struct uint3 {
  unsigned x, y, z;
};

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

namespace rehearsal {

constexpr int kLanes = 32;

uint3 thread_index();
int lane_index();
uint3 block_index();
dim3 block_size();
dim3 grid_size();

// Returns when all threads of the block have called it.
void wait_for_block();

// Returns when all lanes in `mask` have called it for the same operation: `values` then has each one's value.
void wait_for_warp(const char *operation, unsigned mask, uint64_t value, uint64_t (&values)[kLanes]);

// __syncwarp alone orders accesses to memory; shuffles and votes do not.
void order_warp(unsigned mask);

// A block's variable in shared memory. Each tag is one variable.
void *shared_variable(const char *tag, size_t bytes, size_t alignment);
void *dynamic_shared();

// Checks an access by an atomic operation, which comes after this call.
void atomic_access(const void *address, size_t bytes);

[[noreturn]] void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

// One instance of a kernel, by its name as the compiler writes it.
struct Kernel {
  const char *name;
  int64_t launches;
  size_t most_dynamic_shared;
};
Kernel &register_kernel(const char *name, const void *function);

using Body = void (*)(const void *arguments);
void launch(Kernel &kernel, dim3 grid, dim3 block, size_t shared, void *stream, Body body, const void *arguments);
void copy_arguments(void *to, const void *from, size_t bytes);

// What translate.py makes of kernel<<<grid, block, shared, stream>>>(arguments).
template <auto kKernel>
class Launch {
 public:
  Launch(dim3 grid, dim3 block, size_t shared = 0, void *stream = nullptr)
      : grid_(grid), block_(block), shared_(shared), stream_(stream) {}

  template <class... Arguments>
  void operator()(Arguments... arguments) const {
    run(kKernel, arguments...);
  }

 private:
  template <class... Parameters>
  void run(void (*)(Parameters...), Parameters... arguments) const {
    static_assert((std::is_trivially_copyable_v<Parameters> && ...), "kernels take plain data");
    const std::tuple<Parameters...> packed(arguments...);
    launch(kernel, grid_, block_, shared_, stream_, &call<std::tuple<Parameters...>>, &packed);
  }

  // Each thread has arguments of its own, on its stack.
  template <class Packed>
  static void call(const void *arguments) {
    alignas(Packed) char bytes[sizeof(Packed)];
    copy_arguments(bytes, arguments, sizeof bytes);
    std::apply(kKernel, *reinterpret_cast<const Packed *>(bytes));
  }

  static const char *name() { return __PRETTY_FUNCTION__; }
  static inline Kernel &kernel = register_kernel(name(), reinterpret_cast<const void *>(kKernel));

  dim3 grid_, block_;
  size_t shared_;
  void *stream_;
};

// What translate.py makes of `__shared__ T name;` and of `extern __shared__ T name[];`.
template <class T, class Tag>
T &shared() {
  return *static_cast<T *>(shared_variable(__PRETTY_FUNCTION__, sizeof(T), alignof(T)));
}

template <class T>
T *shared_rest() {
  return static_cast<T *>(dynamic_shared());
}

}  // namespace rehearsal
