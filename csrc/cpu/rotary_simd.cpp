// Rotary position embedding, a token at a time.
#define REALRL_SIMD_NATIVE
#include "rotary_simd.h"

namespace realrl {
namespace REALRL_SIMD {

// Below this many elements, waking the threads costs more than the work.
constexpr int64_t kParallelElements = 1 << 14;

template <class T>
static void rotate_head(const T *x, const float *cosines, const float *sines, float sign, int64_t half,
                        T *y) {
  int64_t i = 0;
  for (; i + kLanes <= half; i += kLanes) {
    const Vec c = load(cosines + i), s = load(sines + i) * sign;
    const Pair<Vec> pair = turned(load(x + i), load(x + half + i), c, s);
    store(y + i, pair.a);
    store(y + half + i, pair.b);
  }
  if (i < half) {
    const int64_t left = half - i;
    const Vec c = load_some(cosines + i, left), s = load_some(sines + i, left) * sign;
    const Pair<Vec> pair = turned(load_some(x + i, left), load_some(x + half + i, left), c, s);
    store_some(y + i, pair.a, left);
    store_some(y + half + i, pair.b, left);
  }
}

template <class T>
static void rotate_all(const RotaryJob &job, void *y, int num_threads) {
  const int64_t size = 2 * job.half, row = job.heads * size;
  const float sign = job.inverse ? -1.0f : 1.0f;
  const bool parallel = num_threads > 1 && job.tokens * row >= kParallelElements;
#pragma omp parallel for schedule(static) num_threads(num_threads) if (parallel)
  for (int64_t t = 0; t < job.tokens; ++t) {
    const T *from = static_cast<const T *>(job.x) + t * row;
    T *to = static_cast<T *>(y) + t * row;
    const float *cosines = job.cosines + t * job.half, *sines = job.sines + t * job.half;
    for (int64_t head = 0; head < job.rotated_heads; ++head) {
      rotate_head(from + head * size, cosines, sines, sign, job.half, to + head * size);
    }
    const int64_t done = job.rotated_heads * size;
    memcpy(to + done, from + done, (row - done) * sizeof(T));
  }
}

void rotate(const RotaryJob &job, void *y, int num_threads) {
  (job.is_bf16 ? rotate_all<bf16> : rotate_all<float>)(job, y, num_threads);
}

}  // namespace REALRL_SIMD
}  // namespace realrl
