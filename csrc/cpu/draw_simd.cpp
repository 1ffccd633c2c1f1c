// One token a row of logits, by a number in [0, 1): where the cumulative weights exp(x / temperature) pass it.
#include "draw_simd.h"

#include <cfloat>

namespace realrl {
namespace REALRL_SIMD {

// A row's weights are summed by blocks, then one block is read again for the token.
constexpr int64_t kBlock = 1024;
constexpr int64_t kMostBlocks = 4096;

template <class T>
REALRL_SIMD_INLINE Vec load_up_to(const T *x, int64_t count) {
  return count >= kLanes ? load(x) : load_some(x, count, -FLT_MAX);
}

template <class T>
struct Row {
  const T *logits;
  int64_t width;
  float inverse_temperature, largest;

  // Lanes beyond the row weigh nothing, nor do logits of minus infinity.
  Vec weights(int64_t i) const { return exp((load_up_to(logits + i, width - i) - largest) * inverse_temperature); }
};

template <class T>
static float largest_logit(const T *x, int64_t width) {
  Vec top = splat(-FLT_MAX);
  for (int64_t i = 0; i < width; i += kLanes) top = max(top, load_up_to(x + i, width - i));
  return largest(top);
}

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

template <class T>
static double block_weight(const Row<T> &row, int64_t start, int64_t end) {
  Vec total{};
  for (int64_t i = start; i < end; i += kLanes) total += row.weights(i);
  return sum(total);
}

// The token of [start, end) at which the sum of the weights passes `left`; rounding may leave that to the last
// one that weighs anything.
template <class T>
static int64_t token_in_block(const Row<T> &row, int64_t start, int64_t end, double left) {
  int64_t last = start;
  for (int64_t i = start; i < end; i += kLanes) {
    float lanes[kLanes];
    store(lanes, row.weights(i));
    for (int64_t lane = 0; lane < smaller(kLanes, end - i); ++lane) {
      if (lanes[lane] > 0.0f) last = i + lane;
      if ((left -= lanes[lane]) < 0.0) return i + lane;
    }
  }
  return last;
}

template <class T>
static int64_t draw_token(const Row<T> &row, double uniform) {
  const int64_t block = kBlock > row.width / kMostBlocks ? kBlock : (row.width / kMostBlocks / kLanes + 1) * kLanes;
  double weight[kMostBlocks + 1], total = 0.0;
  int64_t num_blocks = 0;
  for (int64_t start = 0; start < row.width; start += block) {
    total += weight[num_blocks++] = block_weight(row, start, smaller(start + block, row.width));
  }
  double left = uniform * total;
  int64_t chosen = 0;
  while (chosen + 1 < num_blocks && left >= weight[chosen]) left -= weight[chosen++];
  while (chosen > 0 && weight[chosen] == 0.0) --chosen;
  return token_in_block(row, chosen * block, smaller((chosen + 1) * block, row.width), left);
}

template <class T>
static void draw_as(const DrawJob &job, int64_t *tokens, int num_threads) {
#pragma omp parallel for schedule(static) num_threads(num_threads) if (num_threads > 1 && job.rows > 1)
  for (int64_t i = 0; i < job.rows; ++i) {
    const T *logits = static_cast<const T *>(job.logits) + i * job.width;
    const Row<T> row{logits, job.width, job.inverse_temperature, largest_logit(logits, job.width)};
    tokens[i] = draw_token(row, job.uniforms[i]);
  }
}

void draw(const DrawJob &job, int64_t *tokens, int num_threads) {
  (job.is_bf16 ? draw_as<bf16> : draw_as<float>)(job, tokens, num_threads);
}

}  // namespace REALRL_SIMD
}  // namespace realrl
