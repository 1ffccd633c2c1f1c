// Statistics of rows of logits in one pass over memory, and their gradient in the logits' place.
#define REALRL_SIMD_NATIVE
#include "logits_simd.h"

namespace realrl {
namespace REALRL_SIMD {

// Few enough to be read again from the first-level cache. A row's sums are the blocks', in order, so they
// depend on nothing but the row, and the error grows with a block's length.
constexpr int64_t kBlock = 2048;
// Below this many elements, waking the threads costs more than the work.
constexpr int64_t kParallelElements = 1 << 14;

struct VecMath {
  using Real = Vec;
  REALRL_SIMD_INLINE Vec exp(Vec x) { return exp_within(x); }
  REALRL_SIMD_INLINE Vec tanh(Vec x) { return REALRL_SIMD::tanh(x); }
  REALRL_SIMD_INLINE Vec at_least(Vec x, float least) { return max(splat(least), x); }
};

// 1 in the first `count` lanes, 0 in the others.
REALRL_SIMD_INLINE Vec first_lanes(int64_t count) {
  float lanes[kLanes];
  for (int64_t i = 0; i < kLanes; ++i) lanes[i] = i < count ? 1.0f : 0.0f;
  return load(lanes);
}

template <class T>
REALRL_SIMD_INLINE float largest_of(const T *x, int64_t count) {
  Vec top = splat(-FLT_MAX);
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) top = max(top, load(x + i));
  if (i < count) top = max(top, load_some(x + i, count - i, -FLT_MAX));
  return largest(top);
}

template <class Map, class T>
static RowStatistics block_statistics(const Map &map, const T *x, int64_t count) {
  // z rises with x, so the largest x has the largest z.
  const float top = largest_of(x, count);
  RowStatistics block = no_statistics();
  block.largest = map.shifted(map.bounded(splat(top)), 0.0f)[0];
  Vec total{}, weighted{};
  const auto add = [&](Vec logits, Vec counted) __attribute__((always_inline)) {
    const Vec z = VecMath::at_least(map.shifted(map.bounded(logits), block.largest), kLeastExponent);
    const Vec e = VecMath::exp(z) * counted;
    total += e;
    weighted += e * z;
  };
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) add(load(x + i), splat(1.0f));
  if (i < count) add(load_some(x + i, count - i, top), first_lanes(count - i));
  block.sum = sum(total);
  block.weighted = sum(weighted);
  return block;
}

template <bool kCapped, class T>
static void statistics(const LogitsJob &job, RowStatistics *rows, int num_threads) {
  const LogitMap<kCapped, VecMath> map(job);
  const bool parallel = num_threads > 1 && job.rows * job.num_real >= kParallelElements;
#pragma omp parallel for schedule(static) num_threads(num_threads) if (parallel)
  for (int64_t r = 0; r < job.rows; ++r) {
    const T *x = static_cast<const T *>(job.logits) + r * job.stride;
    RowStatistics row = no_statistics();
    for (int64_t i = 0; i < job.num_real; i += kBlock) {
      const int64_t left = job.num_real - i;
      merge(row, block_statistics(map, x + i, left < kBlock ? left : kBlock));
    }
    const int64_t label = job.labels[r] - job.first;
    if (label >= 0 && label < job.num_real) {
      row.label = map.shifted(map.bounded(load_some(x + label, 1)), 0.0f)[0];
    }
    rows[r] = row;
  }
}

template <bool kCapped, class T>
static void gradient_row(const LogitsJob &job, const LogitsGradient &grad, int64_t r) {
  const RowGradient<LogitMap<kCapped, VecMath>, VecMath> gradient(job, grad, r);
  T *x = static_cast<T *>(job.logits) + r * job.stride;
  const int64_t label = job.labels[r] - job.first;
  const bool has_label = label >= 0 && label < job.num_real;
  const Vec of_label = has_label ? gradient(load_some(x + label, 1), gradient.logprob) : Vec{};
  int64_t i = 0;
  for (; i + kLanes <= job.num_real; i += kLanes) store(x + i, gradient(load(x + i)));
  if (i < job.num_real) store_some(x + i, gradient(load_some(x + i, job.num_real - i)), job.num_real - i);
  if (has_label) store_some(x + label, of_label, 1);
  memset(static_cast<void *>(x + job.num_real), 0, (job.stride - job.num_real) * sizeof(T));
}

template <bool kCapped, class T>
static void gradient(const LogitsJob &job, const LogitsGradient &grad, int num_threads) {
  const bool parallel = num_threads > 1 && job.rows * job.num_real >= kParallelElements;
#pragma omp parallel for schedule(static) num_threads(num_threads) if (parallel)
  for (int64_t r = 0; r < job.rows; ++r) gradient_row<kCapped, T>(job, grad, r);
}

void logits_statistics(const LogitsJob &job, RowStatistics *rows, int num_threads) {
  if (job.is_bf16) {
    (job.cap > 0 ? statistics<true, bf16> : statistics<false, bf16>)(job, rows, num_threads);
  } else {
    (job.cap > 0 ? statistics<true, float> : statistics<false, float>)(job, rows, num_threads);
  }
}

void logits_gradient(const LogitsJob &job, const LogitsGradient &grad, int num_threads) {
  if (job.is_bf16) {
    (job.cap > 0 ? gradient<true, bf16> : gradient<false, bf16>)(job, grad, num_threads);
  } else {
    (job.cap > 0 ? gradient<true, float> : gradient<false, float>)(job, grad, num_threads);
  }
}

}  // namespace REALRL_SIMD
}  // namespace realrl
