// Gated linear units, a row at a time.
#define REALRL_SIMD_NATIVE
#include "gated_simd.h"

namespace realrl {
namespace REALRL_SIMD {

// Below this many elements, waking the threads costs more than the work.
constexpr int64_t kParallelElements = 1 << 14;

struct GatedMath {
  using Real = Vec;
  REALRL_SIMD_INLINE Vec sigmoid(Vec x) { return REALRL_SIMD::sigmoid(x); }
};

template <template <class> class Activation, class T>
static void forward_row(const T *gate, const T *up, int64_t width, T *y) {
  int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes) {
    store(y + i, gated_value<Activation, GatedMath>(load(gate + i), load(up + i)));
  }
  if (i < width) {
    const int64_t left = width - i;
    const Vec g = load_some(gate + i, left), u = load_some(up + i, left);
    store_some(y + i, gated_value<Activation, GatedMath>(g, u), left);
  }
}

template <template <class> class Activation, class T>
static void backward_row(const T *gate, const T *up, const T *dy, int64_t width, T *d_gate, T *d_up) {
  int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes) {
    const Vec g = load(gate + i), u = load(up + i);
    const GateAndUp<Vec> d = gated_gradient<Activation, GatedMath>(g, u, load(dy + i));
    store(d_gate + i, d.gate);
    store(d_up + i, d.up);
  }
  if (i < width) {
    const int64_t left = width - i;
    const Vec g = load_some(gate + i, left), u = load_some(up + i, left);
    const GateAndUp<Vec> d = gated_gradient<Activation, GatedMath>(g, u, load_some(dy + i, left));
    store_some(d_gate + i, d.gate, left);
    store_some(d_up + i, d.up, left);
  }
}

template <template <class> class Activation, class T>
static void forward(const GatedJob &job, void *y, int num_threads) {
  const bool parallel = num_threads > 1 && job.rows * job.width >= kParallelElements;
#pragma omp parallel for schedule(static) num_threads(num_threads) if (parallel)
  for (int64_t row = 0; row < job.rows; ++row) {
    const T *gate = static_cast<const T *>(job.gate_up) + 2 * row * job.width;
    forward_row<Activation>(gate, gate + job.width, job.width, static_cast<T *>(y) + row * job.width);
  }
}

template <template <class> class Activation, class T>
static void backward(const GatedJob &job, const void *dy, void *d_gate_up, int num_threads) {
  const bool parallel = num_threads > 1 && job.rows * job.width >= kParallelElements;
#pragma omp parallel for schedule(static) num_threads(num_threads) if (parallel)
  for (int64_t row = 0; row < job.rows; ++row) {
    const int64_t at = 2 * row * job.width;
    const T *gate = static_cast<const T *>(job.gate_up) + at, *d = static_cast<const T *>(dy) + at / 2;
    T *d_gate = static_cast<T *>(d_gate_up) + at;
    backward_row<Activation>(gate, gate + job.width, d, job.width, d_gate, d_gate + job.width);
  }
}

void gated(const GatedJob &job, void *y, int num_threads) {
  if (job.is_gelu) {
    (job.is_bf16 ? forward<GeluTanh, bf16> : forward<GeluTanh, float>)(job, y, num_threads);
  } else {
    (job.is_bf16 ? forward<Silu, bf16> : forward<Silu, float>)(job, y, num_threads);
  }
}

void gated_backward(const GatedJob &job, const void *dy, void *d_gate_up, int num_threads) {
  if (job.is_gelu) {
    (job.is_bf16 ? backward<GeluTanh, bf16> : backward<GeluTanh, float>)(job, dy, d_gate_up, num_threads);
  } else {
    (job.is_bf16 ? backward<Silu, bf16> : backward<Silu, float>)(job, dy, d_gate_up, num_threads);
  }
}

}  // namespace REALRL_SIMD
}  // namespace realrl
