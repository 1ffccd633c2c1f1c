// From logits to log-probabilities and entropies, and back: what the CPU and the CUDA kernels share.
//
// A logit x stands for z = x / temperature, or with a cap (Gemma 2, arXiv:2408.00118, section 2)
// z = cap * tanh(x / cap) / temperature. The vocabulary may be spread over ranks, so the kernels leave
// statistics of a row's part that can be merged.
#pragma once

#include <cfloat>
#include <cmath>
#include <cstdint>

#include "host_device.h"

namespace realrl {

// Rows of `stride` logits, float32 or bfloat16. The first `num_real` are those of the ids from `first` on,
// the others are padding.
struct LogitsJob {
  void *logits;           // [rows, stride]
  const int64_t *labels;  // [rows]
  int64_t rows, stride, num_real, first;
  float temperature, cap;  // no cap where it is 0
  bool is_bf16;
};

struct RowStatistics {
  float largest;   // z, -FLT_MAX where there is none
  float sum;       // of exp(z - largest)
  float weighted;  // sum of exp(z - largest) * (z - largest)
  float label;     // the label's z, -infinity where it is not among the ids
};

// What each row's gradient needs.
struct LogitsGradient {
  const float *logsumexp, *entropy;  // [rows]
  const float *logprob, *of_entropy;  // [rows], d loss / d of them
};

// e^x of less counts as e^this: nothing beside the largest element's 1, and no underflow.
constexpr float kLeastExponent = -87.0f;

// `Math` has the type of some lanes, `Real`, and exp, tanh, and at_least on them.
template <bool kCapped, class Math>
struct LogitMap {
  using Real = typename Math::Real;
  float in, out, final_slope;

  REALRL_HOST_DEVICE explicit LogitMap(const LogitsJob &job)
      : in(kCapped ? 1.0f / job.cap : 1.0f),
        out((kCapped ? job.cap : 1.0f) / job.temperature),
        final_slope(1.0f / job.temperature) {}

  REALRL_HOST_DEVICE Real bounded(Real x) const {
    if constexpr (kCapped) return Math::tanh(x * in);
    return x;
  }
  // z - shift
  REALRL_HOST_DEVICE Real shifted(Real bounded, float shift) const { return bounded * out - shift; }
  // d z / d x
  REALRL_HOST_DEVICE Real slope(Real bounded) const {
    if constexpr (kCapped) return final_slope - bounded * bounded * final_slope;
    return Real{} + final_slope;
  }
};

// d loss / d z = logprob * ([is label] - p) - of_entropy * p * (log p + H), without the label's term.
template <class Map, class Math>
struct RowGradient {
  using Real = typename Math::Real;
  Map map;
  float logsumexp, constant, factor, logprob;

  REALRL_HOST_DEVICE RowGradient(const LogitsJob &job, const LogitsGradient &grad, int64_t row)
      : map(job),
        logsumexp(grad.logsumexp[row]),
        constant(-grad.logprob[row] - grad.of_entropy[row] * grad.entropy[row]),
        factor(-grad.of_entropy[row]),
        logprob(grad.logprob[row]) {}

  REALRL_HOST_DEVICE Real operator()(Real x, float of_label = 0.0f) const {
    const Real bounded = map.bounded(x);
    const Real logp = Math::at_least(map.shifted(bounded, logsumexp), kLeastExponent);
    return (Math::exp(logp) * (logp * factor + constant) + of_label) * map.slope(bounded);
  }
};

REALRL_HOST_DEVICE RowStatistics no_statistics() { return {-FLT_MAX, 0.0f, 0.0f, -HUGE_VALF}; }

// Sums relative to a larger element.
REALRL_HOST_DEVICE void rebase(RowStatistics &row, float largest) {
  const float difference = row.largest - largest;
  const float shift = difference < 2 * kLeastExponent ? 2 * kLeastExponent : difference;
  const float factor = expf(shift);
  row.weighted = factor * (row.weighted + shift * row.sum);
  row.sum *= factor;
  row.largest = largest;
}

REALRL_HOST_DEVICE void merge(RowStatistics &row, RowStatistics other) {
  if (row.largest < other.largest) rebase(row, other.largest);
  if (other.largest < row.largest) rebase(other, row.largest);
  row.sum += other.sum;
  row.weighted += other.weighted;
}

}  // namespace realrl
