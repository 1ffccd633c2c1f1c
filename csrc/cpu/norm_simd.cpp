// Root mean square layer normalisation (Zhang & Sennrich 2019, arXiv:1910.07467, eq. 4) and its gradient.
#define REALRL_SIMD_NATIVE
#include "norm_simd.h"

#include <omp.h>

namespace realrl {
namespace REALRL_SIMD {

// Below this many elements, waking the threads costs more than the work.
constexpr int64_t kParallelElements = 1 << 14;

template <class T>
static float inverse_norm(const T *x, int64_t width, float epsilon) {
  Vec total{};
  int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes) total += load(x + i) * load(x + i);
  if (i < width) {
    const Vec rest = load_some(x + i, width - i);
    total += rest * rest;
  }
  return 1.0f / __builtin_sqrtf(sum(total) / static_cast<float>(width) + epsilon);
}

template <class T>
static void normalise_row(const T *x, const T *weight, float inverse, float offset, int64_t width, T *y) {
  int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes) store(y + i, load(x + i) * inverse * (load(weight + i) + offset));
  if (i < width) {
    const Vec scale = load_some(weight + i, width - i) + offset;
    store_some(y + i, load_some(x + i, width - i) * inverse * scale, width - i);
  }
}

template <class T>
static void forward(const NormJob &job, void *y, float *inverse, int num_threads) {
  const T *x = static_cast<const T *>(job.x), *weight = static_cast<const T *>(job.weight);
  const bool parallel = num_threads > 1 && job.rows * job.width >= kParallelElements;
#pragma omp parallel for schedule(static) num_threads(num_threads) if (parallel)
  for (int64_t row = 0; row < job.rows; ++row) {
    const int64_t at = row * job.width;
    inverse[row] = inverse_norm(x + at, job.width, job.epsilon);
    normalise_row(x + at, weight, inverse[row], job.offset, job.width, static_cast<T *>(y) + at);
  }
}

// With n = x * inverse and g = dy * (weight + offset): dx = inverse * (g - n * mean(g * n)).
template <class T>
static void backward_row(const T *x, const T *weight, const T *dy, float inverse, float offset, int64_t width,
                         T *dx, float *dweight) {
  Vec dot{};
  int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes) {
    const Vec n = load(x + i) * inverse, grad = load(dy + i);
    store(dweight + i, load(dweight + i) + grad * n);
    dot += grad * (load(weight + i) + offset) * n;
  }
  if (i < width) {
    const int64_t left = width - i;
    const Vec n = load_some(x + i, left) * inverse, grad = load_some(dy + i, left);
    store_some(dweight + i, load_some(dweight + i, left) + grad * n, left);
    dot += grad * (load_some(weight + i, left) + offset) * n;
  }
  const float mean = sum(dot) / static_cast<float>(width);
  for (i = 0; i + kLanes <= width; i += kLanes) {
    const Vec n = load(x + i) * inverse;
    store(dx + i, (load(dy + i) * (load(weight + i) + offset) - n * mean) * inverse);
  }
  if (i < width) {
    const int64_t left = width - i;
    const Vec n = load_some(x + i, left) * inverse, scale = load_some(weight + i, left) + offset;
    store_some(dx + i, (load_some(dy + i, left) * scale - n * mean) * inverse, left);
  }
}

template <class T>
static void backward(const NormJob &job, const void *dy, const float *inverse, void *dx, float *dweight,
                     int num_threads) {
  const T *x = static_cast<const T *>(job.x), *weight = static_cast<const T *>(job.weight);
#pragma omp parallel num_threads(num_threads)
  {
    float *partial = dweight + omp_get_thread_num() * job.width;
    memset(partial, 0, job.width * sizeof(float));
#pragma omp for schedule(static)
    for (int64_t row = 0; row < job.rows; ++row) {
      const int64_t at = row * job.width;
      backward_row(x + at, weight, static_cast<const T *>(dy) + at, inverse[row], job.offset, job.width,
                   static_cast<T *>(dx) + at, partial);
    }
  }
}

void rms_norm(const NormJob &job, void *y, float *inverse, int num_threads) {
  (job.is_bf16 ? forward<bf16> : forward<float>)(job, y, inverse, num_threads);
}

void rms_norm_backward(const NormJob &job, const void *dy, const float *inverse, void *dx, float *dweight,
                       int num_threads) {
  (job.is_bf16 ? backward<bf16> : backward<float>)(job, dy, inverse, dx, dweight, num_threads);
}

}  // namespace REALRL_SIMD
}  // namespace realrl
