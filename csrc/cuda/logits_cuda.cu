// Statistics of rows of logits and their gradient, one block a row. Free of torch, as gae_cuda.cu is.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "logits.h"

namespace realrl {
namespace {

constexpr int kRowThreads = 512;
constexpr int kRowLanes = 32;
constexpr int kRowWarps = kRowThreads / kRowLanes;
constexpr int kVectorBytes = 16;

struct ScalarMath {
  using Real = float;
  static __device__ float exp(float x) { return expf(x); }
  static __device__ float tanh(float x) { return tanhf(x); }
  // Not fmaxf, which would lose a NaN.
  static __device__ float at_least(float x, float least) { return x < least ? least : x; }
};

__device__ float widen(float x) { return x; }
__device__ float widen(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ void narrow(float x, float *to) { *to = x; }
__device__ void narrow(float x, __nv_bfloat16 *to) { *to = __float2bfloat16_rn(x); }

// Neighbouring logits, in one access where rows begin at multiples of its size.
template <class T, int kWidth>
struct alignas(sizeof(T) * kWidth) Logits {
  T elements[kWidth];
};

// A sum over many small terms loses little, as each thread has but a few of them.
template <class Map, class T, int kWidth>
__device__ void add_logits(const Map &map, const Logits<T, kWidth> &x, int64_t count, RowStatistics &row) {
  float z[kWidth], largest = row.largest;
#pragma unroll
  for (int j = 0; j < kWidth; ++j) {
    z[j] = j < count ? map.shifted(map.bounded(widen(x.elements[j])), 0.0f) : 0.0f;
    if (j < count && !(z[j] <= largest)) largest = z[j];
  }
  if (row.largest < largest) rebase(row, largest);
#pragma unroll
  for (int j = 0; j < kWidth; ++j) {
    if (j >= count) continue;
    const float shifted = ScalarMath::at_least(z[j] - row.largest, kLeastExponent);
    const float e = ScalarMath::exp(shifted);
    row.sum += e;
    row.weighted += e * shifted;
  }
}

__device__ RowStatistics from_lane(const RowStatistics &row, int distance) {
  constexpr unsigned kAll = 0xffffffffu;
  return {__shfl_down_sync(kAll, row.largest, distance), __shfl_down_sync(kAll, row.sum, distance),
          __shfl_down_sync(kAll, row.weighted, distance), row.label};
}

__device__ void merge_warp(RowStatistics &row) {
#pragma unroll
  for (int distance = kRowLanes / 2; distance > 0; distance /= 2) merge(row, from_lane(row, distance));
}

// The whole block's, in its first thread; the tree of additions is fixed.
__device__ void merge_block(RowStatistics &row) {
  __shared__ RowStatistics warps[kRowWarps];
  merge_warp(row);
  if (threadIdx.x % kRowLanes == 0) warps[threadIdx.x / kRowLanes] = row;
  __syncthreads();
  if (threadIdx.x >= kRowLanes) return;
  const RowStatistics none = no_statistics();
  row = threadIdx.x < kRowWarps ? warps[threadIdx.x] : none;
  merge_warp(row);
}

template <bool kCapped, class T, int kWidth>
__global__ void __launch_bounds__(kRowThreads) statistics_kernel(LogitsJob job, RowStatistics *rows) {
  const LogitMap<kCapped, ScalarMath> map(job);
  const T *x = static_cast<const T *>(job.logits) + blockIdx.x * job.stride;
  RowStatistics row = no_statistics();
  for (int64_t i = threadIdx.x * kWidth; i < job.num_real; i += kRowThreads * kWidth) {
    add_logits(map, *reinterpret_cast<const Logits<T, kWidth> *>(x + i), job.num_real - i, row);
  }
  merge_block(row);
  if (threadIdx.x != 0) return;
  const int64_t label = job.labels[blockIdx.x] - job.first;
  if (label >= 0 && label < job.num_real) row.label = map.shifted(map.bounded(widen(x[label])), 0.0f);
  rows[blockIdx.x] = row;
}

template <bool kCapped, class T, int kWidth>
__global__ void __launch_bounds__(kRowThreads) gradient_kernel(LogitsJob job, LogitsGradient grad) {
  const RowGradient<LogitMap<kCapped, ScalarMath>, ScalarMath> gradient(job, grad, blockIdx.x);
  T *x = static_cast<T *>(job.logits) + blockIdx.x * job.stride;
  const int64_t label = job.labels[blockIdx.x] - job.first;
  for (int64_t i = threadIdx.x * kWidth; i < job.stride; i += kRowThreads * kWidth) {
    auto *place = reinterpret_cast<Logits<T, kWidth> *>(x + i);
    Logits<T, kWidth> logits = *place;
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      const float of_label = i + j == label ? gradient.logprob : 0.0f;
      const float found = i + j < job.num_real ? gradient(widen(logits.elements[j]), of_label) : 0.0f;
      narrow(found, &logits.elements[j]);
    }
    *place = logits;
  }
}

// Calls `launch` with the row's type, whether there is a cap, and how many logits make a vector.
template <class T, class Launch>
cudaError_t dispatch(const LogitsJob &job, Launch launch) {
  constexpr int kWide = kVectorBytes / sizeof(T);
  const bool wide = job.stride % kWide == 0 && reinterpret_cast<uintptr_t>(job.logits) % kVectorBytes == 0;
  if (job.rows == 0) return cudaSuccess;
  if (job.cap > 0) {
    wide ? launch.template run<true, T, kWide>(job) : launch.template run<true, T, 1>(job);
  } else {
    wide ? launch.template run<false, T, kWide>(job) : launch.template run<false, T, 1>(job);
  }
  return cudaGetLastError();
}

struct LaunchStatistics {
  RowStatistics *rows;
  cudaStream_t stream;

  template <bool kCapped, class T, int kWidth>
  void run(const LogitsJob &job) const {
    const auto blocks = static_cast<unsigned>(job.rows);
    statistics_kernel<kCapped, T, kWidth><<<blocks, kRowThreads, 0, stream>>>(job, rows);
  }
};

struct LaunchGradient {
  LogitsGradient gradient;
  cudaStream_t stream;

  template <bool kCapped, class T, int kWidth>
  void run(const LogitsJob &job) const {
    const auto blocks = static_cast<unsigned>(job.rows);
    gradient_kernel<kCapped, T, kWidth><<<blocks, kRowThreads, 0, stream>>>(job, gradient);
  }
};

template <class Launch>
int dispatch_type(const LogitsJob &job, Launch launch) {
  return job.is_bf16 ? dispatch<__nv_bfloat16>(job, launch) : dispatch<float>(job, launch);
}

}  // namespace
}  // namespace realrl

extern "C" int realrl_logits_statistics(void *logits, const int64_t *labels, int64_t rows, int64_t stride,
                                        int64_t num_real, int64_t first, float temperature, float cap,
                                        int is_bf16, void *statistics, void *stream) {
  using namespace realrl;
  const LogitsJob job{logits, labels, rows, stride, num_real, first, temperature, cap, is_bf16 != 0};
  auto *found = static_cast<RowStatistics *>(statistics);
  return dispatch_type(job, LaunchStatistics{found, static_cast<cudaStream_t>(stream)});
}

extern "C" int realrl_logits_gradient(void *logits, const int64_t *labels, int64_t rows, int64_t stride,
                                      int64_t num_real, int64_t first, float temperature, float cap,
                                      int is_bf16, const float *logsumexp, const float *entropy,
                                      const float *grad_logprob, const float *grad_entropy, void *stream) {
  using namespace realrl;
  const LogitsJob job{logits, labels, rows, stride, num_real, first, temperature, cap, is_bf16 != 0};
  const LogitsGradient gradient{logsumexp, entropy, grad_logprob, grad_entropy};
  return dispatch_type(job, LaunchGradient{gradient, static_cast<cudaStream_t>(stream)});
}
