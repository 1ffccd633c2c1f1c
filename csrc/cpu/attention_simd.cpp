// Attention of a block of query rows over pages of keys and values, by the online softmax of FlashAttention
// (Dao et al. 2022, arXiv:2205.14135, algorithm 1).
#include "attention_simd.h"

namespace realrl {
namespace REALRL_SIMD {

template <class T>
struct Block {
  const int64_t *positions;  // [rows]
  T *q;                      // [rows, D]
  float *sums;               // [rows, Dp], of exp2(exponent - peak) times the values
  float *total;              // [rows, 16], of exp2(exponent - peak), keys modulo 16
  float *peak;               // [rows], near the largest exponent so far
  float *scores;             // [kPanelRows, 64]
  T *weights;                // [kPanelRows, 64]
  T *last_values;            // [Dp, 2]
  bool stale;                // as KeyPages has it
};

template <class T>
static Block<T> begin_block(const AttentionShape &shape, const QueryRows &rows, const KeyPages &pages,
                            char *scratch) {
  const int64_t count = rows.num_rows, dim = shape.head_dim, padded = up_to(dim, kLanes);
  Block<T> block;
  block.positions = take_positions(shape, rows, scratch);
  block.q = take<T>(scratch, count * dim);
  block.sums = take<float>(scratch, count * padded);
  block.total = take<float>(scratch, count * kLanes);
  block.peak = take<float>(scratch, count);
  block.scores = take<float>(scratch, kPanelRows * kPageKeys);
  block.weights = take<T>(scratch, kPanelRows * kPageKeys);
  block.last_values = take<T>(scratch, 2 * padded);
  block.stale = pages.stale;
  const T *q = static_cast<const T *>(rows.q);
  RowPlaces from = row_places(shape, rows, pages.kv_head, rows.token_stride);
  for (int64_t row = 0; row < count; ++row, to_next_row(from)) {
    memcpy(block.q + row * dim, q + from.at, dim * sizeof(T));
    block.peak[row] = -__builtin_inff();
  }
  memset(block.sums, 0, count * padded * sizeof(float));
  memset(block.total, 0, count * kLanes * sizeof(float));
  return block;
}

// The row's peak, raised if the tile's largest exponent is far above it; what was summed is then lowered. Weights
// up to 2^8 are as exact as those up to 1, and a peak that stays put costs nothing.
template <class T>
REALRL_SIMD_INLINE float raised_peak(const AttentionShape &shape, const Block<T> &block, int64_t row,
                                     float largest) {
  const float before = block.peak[row];
  if (!(largest > before + 8.0f)) return before;
  const int64_t padded = up_to(shape.head_dim, kLanes);
  float *total = block.total + row * kLanes, *sums = block.sums + row * padded;
  const Vec by = exp2_below(splat(before - largest));
  store(total, load(total) * by);
  for (int64_t d = 0; d < padded; d += kLanes) store(sums + d, load(sums + d) * by);
  return block.peak[row] = largest;
}

// Turns the scores of a row, of which `slot` says where they stand, into weights; adds them to `total`.
template <class T, bool kCapped, int kVectors>
REALRL_SIMD_INLINE void weigh_row(const AttentionShape &shape, const Block<T> &block, int64_t first_key,
                                  int64_t row, int64_t slot) {
  const float nowhere = -__builtin_inff();
  const Visible keys = visible_keys(shape, block.positions[row], first_key);
  Vec exponents[kVectors], peaks = splat(nowhere);
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v)
    exponents[v] = exponent_of<kCapped>(shape, load(block.scores + slot * kPageKeys + v * kLanes));
  if (keys.first > 0 || keys.last < kVectors * kLanes - 1) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) exponents[v] = only_visible(keys, v, exponents[v], nowhere);
  }
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) peaks = max(peaks, exponents[v]);
  const float peak = raised_peak(shape, block, row, largest_lane(peaks));
  float *total = block.total + row * kLanes;
  // A row that sees nothing yet has no peak, and no weights either.
  const Vec below = splat(peak == nowhere ? 0.0f : peak);
  Vec sum{};
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) {
    const Vec weight = exp2_below(exponents[v] - below);
    sum += weight;
    store(block.weights + slot * kPageKeys + v * kLanes, weight);
  }
  store(total, load(total) + sum);
}

template <class T, bool kCapped, int kVectors>
static void weigh_rows(const AttentionShape &shape, const Block<T> &block, int64_t first_key, int64_t row,
                       int64_t count) {
  for (int64_t slot = 0; slot < count; ++slot)
    weigh_row<T, kCapped, kVectors>(shape, block, first_key, row + slot, slot);
}

template <class T, bool kCapped>
static void weigh_panel(const AttentionShape &shape, const Block<T> &block, int64_t first_key, int64_t row,
                        int64_t count, int64_t vectors) {
  switch (vectors) {
    case 1: return weigh_rows<T, kCapped, 1>(shape, block, first_key, row, count);
    case 2: return weigh_rows<T, kCapped, 2>(shape, block, first_key, row, count);
    case 3: return weigh_rows<T, kCapped, 3>(shape, block, first_key, row, count);
    default: return weigh_rows<T, kCapped, 4>(shape, block, first_key, row, count);
  }
}

// The weighted sum of values, over `seen` keys. A last key without a partner takes part beside zeros where the
// partner's place is stale: a weight of 0 would not hide a NaN.
template <class T>
static void add_values(const Block<T> &block, int64_t row, int64_t count, int64_t seen, int64_t padded,
                       const T *values, bool stale) {
  constexpr int64_t width = Step<T>::kWidth;
  Product<T> product{block.weights, kPageKeys, width, values, padded * width, (seen + width - 1) / width,
                     block.sums + row * padded, padded};
  const bool alone = stale && seen % width;
  product.steps -= alone;
  multiply<T, true>(product, count, padded / kLanes);
  if (!alone) return;
  const T *pairs = values + seen / width * padded * width;
  for (int64_t d = 0; d < padded; d += kLanes) {
    BitVec bits;
    memcpy(&bits, pairs + d * width, sizeof bits);
    bits &= 0xffffu;
    memcpy(block.last_values + d * width, &bits, sizeof bits);
  }
  product.a += product.steps * width;
  product.b = block.last_values;
  product.steps = 1;
  multiply<T, true>(product, count, padded / kLanes);
}

// Asks for memory that no hardware foresees, as the next page is anywhere; null is nothing.
template <class T>
static void prefetch(const T *from, int64_t count) {
  if (!from) return;
  for (int64_t i = 0; i < count; i += 64 / int64_t(sizeof(T))) __builtin_prefetch(from + i, 0, 2);
}

template <class T>
static void attend_panel(const AttentionShape &shape, const Block<T> &block, int64_t row, int64_t count,
                         int64_t first_key, const T *keys, const T *next_keys) {
  const int64_t seen = keys_seen(shape, block.positions + row, count, first_key), vectors = vectors_of(seen);
  if (!seen) return;
  const int64_t key_elements = kPageKeys * shape.head_dim, padded = up_to(shape.head_dim, kLanes);
  prefetch(next_keys, key_elements);
  multiply<T, false>(scores_product(shape, block.q + row * shape.head_dim, keys, block.scores), count, vectors);
  (shape.softcap == 0.0f ? weigh_panel<T, false> : weigh_panel<T, true>)(shape, block, first_key, row, count,
                                                                         vectors);
  prefetch(next_keys ? next_keys + key_elements : nullptr, kPageKeys * padded);
  add_values(block, row, count, seen, padded, keys + key_elements, block.stale);
}

template <class T>
static void store_row(float *sums, float factor, int64_t dim, T *to) {
  int64_t d = 0;
  for (; d + kLanes <= dim; d += kLanes) store(to + d, load(sums + d) * factor);
  if (d < dim) store_some(to + d, load(sums + d) * factor, dim - d);
}

// `lse` [tokens, Q] gets log2 of the sums of exponentials; it may be null.
template <class T>
static void end_block(const AttentionShape &shape, const QueryRows &rows, int64_t kv_head, const Block<T> &block,
                      T *out, float *lse) {
  const int64_t dim = shape.head_dim, padded = up_to(dim, kLanes);
  RowPlaces to = row_places(shape, rows, kv_head, shape.num_heads * dim);
  for (int64_t row = 0; row < rows.num_rows; ++row, to_next_row(to)) {
    const float total = sum(load(block.total + row * kLanes));
    store_row(block.sums + row * padded, 1.0f / total, dim, out + to.at);
    if (lse) lse[to.at / dim] = block.peak[row] + __builtin_log2f(total);
  }
}

template <class T>
static void attend_block(const AttentionShape &shape, const QueryRows &rows, const KeyPages &pages, T *out,
                         float *lse, void *scratch) {
  const Block<T> block = begin_block<T>(shape, rows, pages, static_cast<char *>(scratch));
  const int64_t last = block.positions[rows.num_rows - 1] / kPageKeys;
  for (int64_t tile = first_tile(shape, block.positions); tile <= last; ++tile) {
    const T *keys = page_of<T>(shape, pages.pool, pages.table[tile], pages.kv_head), *next = nullptr;
    if (pages.stale && tile < last)
      next = page_of<T>(shape, pages.pool, pages.table[tile + 1], pages.kv_head);
    for (int64_t row = 0; row < rows.num_rows; row += kPanelRows, next = nullptr)
      attend_panel(shape, block, row, smaller_of(kPanelRows, rows.num_rows - row), tile * kPageKeys, keys, next);
  }
  end_block(shape, rows, pages.kv_head, block, out, lse);
}

void attend(const AttentionShape &shape, const QueryRows &rows, const KeyPages &pages, void *out, float *lse,
            void *scratch) {
  if (shape.is_bf16) attend_block(shape, rows, pages, static_cast<bf16 *>(out), lse, scratch);
  else attend_block(shape, rows, pages, static_cast<float *>(out), lse, scratch);
}

}  // namespace REALRL_SIMD
}  // namespace realrl
