// The part of CUDA's runtime and device functions that csrc/cuda/*.cu use, for a C++ compiler.
#pragma once

// Before the macros below, which these headers would not survive.
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <type_traits>
#include <utility>

#include "rehearsal.h"

#define __CUDACC__ 1
#define __CUDA_ARCH__ 900
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __restrict__

#define threadIdx (::rehearsal::thread_index())
#define blockIdx (::rehearsal::block_index())
#define blockDim (::rehearsal::block_size())
#define gridDim (::rehearsal::grid_size())

// Vectors.

struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};

// The host's side.

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorLaunchFailure = 719,
};
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount = 16 };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
using cudaStream_t = void *;

cudaError_t cudaGetLastError();
const char *cudaGetErrorString(cudaError_t error);
cudaError_t cudaGetDevice(int *device);
cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int device);
cudaError_t cudaMemsetAsync(void *address, int value, size_t bytes, cudaStream_t stream);
cudaError_t cudaFuncSetAttribute(const void *function, cudaFuncAttribute attribute, int value);

template <class... Parameters>
cudaError_t cudaFuncSetAttribute(void (*kernel)(Parameters...), cudaFuncAttribute attribute, int value) {
  return cudaFuncSetAttribute(reinterpret_cast<const void *>(kernel), attribute, value);
}

// Barriers, shuffles and votes.

inline void __syncthreads() { rehearsal::wait_for_block(); }
inline void __syncwarp(unsigned mask = 0xffffffffu) { rehearsal::order_warp(mask); }

namespace rehearsal {

template <class T>
uint64_t to_bits(T value) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= sizeof(uint64_t), "a lane's value has 8 bytes");
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof value);
  return bits;
}

// A lane's value from another: `from` is outside of the lane's `width` where it keeps its own.
template <class T>
T shuffle(const char *operation, unsigned mask, T value, int from, int width) {
  if (width < 1 || width > kLanes || (width & (width - 1))) fail("%s of width %d", operation, width);
  const int lane = lane_index();
  const int first = lane & ~(width - 1);
  if (from < first || from >= first + width) from = lane;
  uint64_t values[kLanes];
  wait_for_warp(operation, mask, to_bits(value), values);
  if (!(mask >> from & 1)) fail("%s reads lane %d, which mask %08x does not name", operation, from, mask);
  memcpy(&value, &values[from], sizeof value);
  return value;
}

}  // namespace rehearsal

template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned distance, int width = 32) {
  return rehearsal::shuffle(__func__, mask, value, rehearsal::lane_index() - static_cast<int>(distance), width);
}

template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned distance, int width = 32) {
  return rehearsal::shuffle(__func__, mask, value, rehearsal::lane_index() + static_cast<int>(distance), width);
}

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32) {
  return rehearsal::shuffle(__func__, mask, value, rehearsal::lane_index() ^ lanes, width);
}

template <class T>
T __shfl_sync(unsigned mask, T value, int from, int width = 32) {
  const int first = rehearsal::lane_index() & ~(width - 1);
  return rehearsal::shuffle(__func__, mask, value, first + (from & (width - 1)), width);
}

inline unsigned __ballot_sync(unsigned mask, int predicate) {
  uint64_t values[rehearsal::kLanes];
  rehearsal::wait_for_warp(__func__, mask, predicate != 0, values);
  unsigned ballot = 0;
  for (int lane = 0; lane < rehearsal::kLanes; ++lane) {
    if (mask >> lane & 1) ballot |= static_cast<unsigned>(values[lane]) << lane;
  }
  return ballot;
}

inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) == mask; }

// Atomics. The operation itself is not instrumented, as its access has been checked.

template <class T, class Change>
__attribute__((no_sanitize("thread"))) T change_atomically(T *address, Change change) {
  rehearsal::atomic_access(address, sizeof(T));
  const T old = *address;
  *address = change(old);
  return old;
}

template <class T>
T atomicAdd(T *address, T value) {
  static_assert(std::is_arithmetic_v<T> && sizeof(T) >= 4, "CUDA adds numbers of 4 and 8 bytes");
  return change_atomically(address, [value](T old) { return static_cast<T>(old + value); });
}

template <class T>
T atomicMax(T *address, T value) {
  static_assert(std::is_integral_v<T> && sizeof(T) >= 4, "CUDA compares integers of 4 and 8 bytes");
  return change_atomically(address, [value](T old) { return old < value ? value : old; });
}

inline void __threadfence() {}

// Four of the eight bytes of `low` and `high`, of which a digit of `selector` each names one.
inline unsigned __byte_perm(unsigned low, unsigned high, unsigned selector) {
  const uint64_t bytes = low | static_cast<uint64_t>(high) << 32;
  unsigned found = 0;
  for (int i = 0; i < 4; ++i) found |= static_cast<unsigned>(bytes >> 8 * (selector >> 4 * i & 7) & 0xff) << 8 * i;
  return found;
}

// Arithmetic.

template <class T>
T __ldg(const T *address) {
  return *address;
}

inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __dadd_rn(double a, double b) { return a + b; }
inline float __expf(float x) { return expf(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
