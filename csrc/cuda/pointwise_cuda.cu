// Gated units and rotary embeddings, a few elements a thread. Free of torch, as gae_cuda.cu is.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "gated.h"
#include "rotary.h"

namespace realrl {
namespace {

constexpr int kPointThreads = 256;
constexpr int kPointBytes = 16;

struct PointMath {
  using Real = float;
  static __device__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
};

__device__ float widened(float x) { return x; }
__device__ float widened(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ void narrowed(float x, float *to) { *to = x; }
__device__ void narrowed(float x, __nv_bfloat16 *to) { *to = __float2bfloat16_rn(x); }

// Neighbours, in one access where all rows begin at multiples of its size.
template <class T, int kWidth>
struct alignas(sizeof(T) * kWidth) Points {
  T elements[kWidth];
};

template <int kWidth, class T>
__device__ Points<T, kWidth> load_points(const T *from) {
  return *reinterpret_cast<const Points<T, kWidth> *>(from);
}

template <int kWidth, class T>
__device__ void store_points(T *to, const Points<T, kWidth> &points) {
  *reinterpret_cast<Points<T, kWidth> *>(to) = points;
}

__device__ int64_t thread_index() {
  return static_cast<int64_t>(blockIdx.x) * kPointThreads + threadIdx.x;
}

template <template <class> class Activation, class T, int kWidth>
__global__ void __launch_bounds__(kPointThreads) gated_kernel(GatedJob job, T *y) {
  const int64_t at = thread_index() * kWidth;
  if (at >= job.rows * job.width) return;
  const int64_t row = at / job.width;
  const T *gate = static_cast<const T *>(job.gate_up) + at + row * job.width;
  const auto gates = load_points<kWidth>(gate), ups = load_points<kWidth>(gate + job.width);
  Points<T, kWidth> found;
#pragma unroll
  for (int j = 0; j < kWidth; ++j) {
    const float g = widened(gates.elements[j]), u = widened(ups.elements[j]);
    narrowed(gated_value<Activation, PointMath>(g, u), &found.elements[j]);
  }
  store_points(y + at, found);
}

template <template <class> class Activation, class T, int kWidth>
__global__ void __launch_bounds__(kPointThreads)
    gated_backward_kernel(GatedJob job, const T *dy, T *d_gate_up) {
  const int64_t at = thread_index() * kWidth;
  if (at >= job.rows * job.width) return;
  const int64_t row = at / job.width, gate = at + row * job.width;
  const T *from = static_cast<const T *>(job.gate_up) + gate;
  const auto gates = load_points<kWidth>(from), ups = load_points<kWidth>(from + job.width);
  const auto dys = load_points<kWidth>(dy + at);
  Points<T, kWidth> d_gates, d_ups;
#pragma unroll
  for (int j = 0; j < kWidth; ++j) {
    const float g = widened(gates.elements[j]), u = widened(ups.elements[j]), d = widened(dys.elements[j]);
    const GateAndUp<float> gradient = gated_gradient<Activation, PointMath>(g, u, d);
    narrowed(gradient.gate, &d_gates.elements[j]);
    narrowed(gradient.up, &d_ups.elements[j]);
  }
  store_points(d_gate_up + gate, d_gates);
  store_points(d_gate_up + gate + job.width, d_ups);
}

// A thread has some pairs of one head.
template <class T, int kWidth>
__global__ void __launch_bounds__(kPointThreads) rotate_kernel(RotaryJob job, T *y) {
  const int64_t at = thread_index() * kWidth;
  if (at >= job.tokens * job.heads * job.half) return;
  const int64_t head = at / job.half, column = at - head * job.half;
  const int64_t first = head * 2 * job.half + column, second = first + job.half;
  const T *x = static_cast<const T *>(job.x);
  auto a = load_points<kWidth>(x + first), b = load_points<kWidth>(x + second);
  if (head % job.heads < job.rotated_heads) {
    const int64_t angle = head / job.heads * job.half + column;
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      const float cosine = job.cosines[angle + j], sine = job.sines[angle + j];
      const Pair<float> pair = turned(widened(a.elements[j]), widened(b.elements[j]), cosine,
                                      job.inverse ? -sine : sine);
      narrowed(pair.a, &a.elements[j]);
      narrowed(pair.b, &b.elements[j]);
    }
  }
  store_points(y + first, a);
  store_points(y + second, b);
}

unsigned blocks_for(int64_t elements, int width) {
  const int64_t per_block = static_cast<int64_t>(kPointThreads) * width;
  return static_cast<unsigned>((elements + per_block - 1) / per_block);
}

bool is_aligned(const void *address) { return reinterpret_cast<uintptr_t>(address) % kPointBytes == 0; }

struct GatedLaunch {
  GatedJob job;
  const void *dy;  // null forward
  void *out;
  cudaStream_t stream;

  template <template <class> class Activation, class T, int kWidth>
  void run() const {
    const unsigned blocks = blocks_for(job.rows * job.width, kWidth);
    T *to = static_cast<T *>(out);
    if (dy == nullptr) {
      gated_kernel<Activation, T, kWidth><<<blocks, kPointThreads, 0, stream>>>(job, to);
    } else {
      const T *from = static_cast<const T *>(dy);
      gated_backward_kernel<Activation, T, kWidth><<<blocks, kPointThreads, 0, stream>>>(job, from, to);
    }
  }

  template <template <class> class Activation, class T>
  void choose_width() const {
    constexpr int kWide = kPointBytes / sizeof(T);
    const bool aligned = is_aligned(job.gate_up) && is_aligned(out) && is_aligned(dy);
    job.width % kWide == 0 && aligned ? run<Activation, T, kWide>() : run<Activation, T, 1>();
  }

  template <class T>
  void choose_activation() const {
    job.is_gelu ? choose_width<GeluTanh, T>() : choose_width<Silu, T>();
  }

  int operator()() const {
    if (job.rows * job.width == 0) return cudaSuccess;
    job.is_bf16 ? choose_activation<__nv_bfloat16>() : choose_activation<float>();
    return cudaGetLastError();
  }
};

template <class T, int kWidth>
void launch_rotate(const RotaryJob &job, void *y, cudaStream_t stream) {
  const unsigned blocks = blocks_for(job.tokens * job.heads * job.half, kWidth);
  rotate_kernel<T, kWidth><<<blocks, kPointThreads, 0, stream>>>(job, static_cast<T *>(y));
}

template <class T>
int choose_rotate(const RotaryJob &job, void *y, cudaStream_t stream) {
  constexpr int kWide = kPointBytes / sizeof(T);
  if (job.tokens * job.heads * job.half == 0) return cudaSuccess;
  const bool wide = job.half % kWide == 0 && is_aligned(job.x) && is_aligned(y);
  wide ? launch_rotate<T, kWide>(job, y, stream) : launch_rotate<T, 1>(job, y, stream);
  return cudaGetLastError();
}

}  // namespace
}  // namespace realrl

extern "C" int realrl_gated(const void *gate_up, int64_t rows, int64_t width, int is_gelu, int is_bf16,
                            void *y, void *stream) {
  const realrl::GatedJob job{gate_up, rows, width, is_gelu != 0, is_bf16 != 0};
  return realrl::GatedLaunch{job, nullptr, y, static_cast<cudaStream_t>(stream)}();
}

extern "C" int realrl_gated_backward(const void *gate_up, int64_t rows, int64_t width, int is_gelu,
                                     int is_bf16, const void *dy, void *d_gate_up, void *stream) {
  const realrl::GatedJob job{gate_up, rows, width, is_gelu != 0, is_bf16 != 0};
  return realrl::GatedLaunch{job, dy, d_gate_up, static_cast<cudaStream_t>(stream)}();
}

extern "C" int realrl_rotate(const void *x, const float *cosines, const float *sines, int64_t tokens,
                             int64_t heads, int64_t rotated_heads, int64_t half, int inverse, int is_bf16,
                             void *y, void *stream) {
  using namespace realrl;
  const RotaryJob job{x, cosines, sines, tokens, heads, rotated_heads, half, inverse != 0, is_bf16 != 0};
  const auto on = static_cast<cudaStream_t>(stream);
  return job.is_bf16 ? choose_rotate<__nv_bfloat16>(job, y, on) : choose_rotate<float>(job, y, on);
}
