// The gradient of attention for a block of query rows (Dao et al. 2022, arXiv:2205.14135, algorithm 4):
// with weights P = exp2(exponent - lse), dV += P^T dO; with dP = dO V^T and delta = rowsum(dO * O),
// dS = P * (dP - delta) * scale; dQ += dS K; dK += dS^T Q.
#include <sched.h>

#include "attention_simd.h"
#include "packing_simd.h"

namespace realrl {
namespace REALRL_SIMD {

template <class T>
struct BackwardBlock {
  int64_t num_rows;
  const int64_t *positions;  // [rows]
  T *q, *dout;               // [rows, D]
  T *q_steps, *dout_steps;   // [rows / width, Dp, width]
  float *dq;                 // [rows, Dp]
  float *delta, *lse;        // [rows]
  float *scores, *dweights;  // [kPanelRows, 64]
  T *dscores;                // [kPanelRows, 64]
  T *weight_steps;           // [rows / width, 64, width]
  T *dscore_steps;           // the same
};

template <class T>
static BackwardBlock<T> take_block(const AttentionShape &shape, const QueryRows &rows, char *scratch) {
  const int64_t count = rows.num_rows, even = up_to(count, 2), dim = shape.head_dim, padded = up_to(dim, kLanes);
  BackwardBlock<T> block;
  block.num_rows = count;
  block.positions = take_positions(shape, rows, scratch);
  block.q = take<T>(scratch, count * dim);
  block.dout = take<T>(scratch, count * dim);
  block.q_steps = take<T>(scratch, even * padded);
  block.dout_steps = take<T>(scratch, even * padded);
  block.dq = take<float>(scratch, count * padded);
  block.delta = take<float>(scratch, count);
  block.lse = take<float>(scratch, count);
  block.scores = take<float>(scratch, kPanelRows * kPageKeys);
  block.dweights = take<float>(scratch, kPanelRows * kPageKeys);
  block.dscores = take<T>(scratch, kPanelRows * kPageKeys);
  block.weight_steps = take<T>(scratch, even * kPageKeys);
  block.dscore_steps = take<T>(scratch, even * kPageKeys);
  return block;
}

template <class T>
static float dot(const T *a, const T *b, int64_t count) {
  Vec total{};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) total += load(a + i) * load(b + i);
  if (i < count) total += load_some(a + i, count - i) * load_some(b + i, count - i);
  return sum(total);
}

template <class T>
static BackwardBlock<T> begin_block(const AttentionShape &shape, const BackwardRows &in, int64_t kv_head,
                                    char *scratch) {
  const QueryRows &rows = in.rows;
  const BackwardBlock<T> block = take_block<T>(shape, rows, scratch);
  const int64_t count = rows.num_rows, dim = shape.head_dim, padded = up_to(dim, kLanes);
  const T *q = static_cast<const T *>(rows.q), *out = static_cast<const T *>(in.out);
  const T *dout = static_cast<const T *>(in.dout);
  RowPlaces from = row_places(shape, rows, kv_head, rows.token_stride);
  RowPlaces of_out = row_places(shape, rows, kv_head, shape.num_heads * dim);
  for (int64_t row = 0; row < count; ++row, to_next_row(from), to_next_row(of_out)) {
    memcpy(block.q + row * dim, q + from.at, dim * sizeof(T));
    memcpy(block.dout + row * dim, dout + of_out.at, dim * sizeof(T));
    block.delta[row] = dot(dout + of_out.at, out + of_out.at, dim);
    block.lse[row] = in.lse[of_out.at / dim];
  }
  lay_by_key<T>({{block.q, block.q}, {count, 0}, dim}, dim, block.q_steps);
  lay_by_key<T>({{block.dout, block.dout}, {count, 0}, dim}, dim, block.dout_steps);
  memset(block.dq, 0, count * padded * sizeof(float));
  return block;
}

// Puts 16 keys of two rows, the first of which is even, where steps take them.
REALRL_SIMD_INLINE void put_steps(float *steps, int64_t row, int64_t key, Vec first, Vec second) {
  store(steps + row * kPageKeys + key, first);
  store(steps + (row + 1) * kPageKeys + key, second);
}

REALRL_SIMD_INLINE void put_steps(bf16 *steps, int64_t row, int64_t key, Vec first, Vec second) {
  const BitVec low = __builtin_convertvector(rounded(first), BitVec);
  const BitVec pairs = low | __builtin_convertvector(rounded(second), BitVec) << 16;
  memcpy(steps + row * kPageKeys + key * 2, &pairs, sizeof pairs);
}

// dS / (dP - delta), from the product of query and key and its weight.
template <bool kCapped>
REALRL_SIMD_INLINE Vec slope_of(const AttentionShape &shape, Vec score, Vec weight) {
  if constexpr (!kCapped) return weight * shape.scale;
  const Vec capped = capped_tanh(shape, score);
  return weight * shape.scale * (1.0f - capped * capped);
}

// The weights of a row, and its scores' gradients, for 16 keys.
struct Slopes {
  Vec weight, dscore;
};

template <class T, bool kCapped>
REALRL_SIMD_INLINE Slopes slopes_of(const AttentionShape &shape, const BackwardBlock<T> &block,
                                    const Visible &keys, int64_t row, int64_t slot, int64_t vector) {
  const int64_t at = slot * kPageKeys + vector * kLanes;
  const Vec score = load(block.scores + at);
  Vec weight = exp2_below(exponent_of<kCapped>(shape, score) - block.lse[row]);
  if (!whole_vector(keys, vector)) weight = only_visible(keys, vector, weight, 0.0f);
  return {weight, slope_of<kCapped>(shape, score, weight) * (load(block.dweights + at) - block.delta[row])};
}

// Two rows, or one and zeros, for `vectors` of keys of which the panel may see the first `seen`.
template <class T, bool kCapped>
REALRL_SIMD_INLINE void differentiate_pair(const AttentionShape &shape, const BackwardBlock<T> &block,
                                           int64_t first_key, int64_t row, int64_t slot, bool both,
                                           int64_t seen, int64_t vectors) {
  const Visible keys = visible_keys(shape, block.positions[row], first_key);
  const Visible keys_second = visible_keys(shape, block.positions[row + both], first_key);
  for (int64_t v = 0; v < vectors; ++v) {
    Slopes first{}, second{};
    if (v < seen) first = slopes_of<T, kCapped>(shape, block, keys, row, slot, v);
    if (v < seen && both) second = slopes_of<T, kCapped>(shape, block, keys_second, row + 1, slot + 1, v);
    store(block.dscores + slot * kPageKeys + v * kLanes, first.dscore);
    store(block.dscores + (slot + 1) * kPageKeys + v * kLanes, second.dscore);
    put_steps(block.weight_steps, row, v * kLanes, first.weight, second.weight);
    put_steps(block.dscore_steps, row, v * kLanes, first.dscore, second.dscore);
  }
}

template <class T, bool kCapped>
static void differentiate_rows(const AttentionShape &shape, const BackwardBlock<T> &block, int64_t first_key,
                               int64_t row, int64_t count, int64_t seen, int64_t vectors) {
  for (int64_t slot = 0; slot < count; slot += 2)
    differentiate_pair<T, kCapped>(shape, block, first_key, row + slot, slot, slot + 1 < count, seen, vectors);
}

template <class T>
struct Tile {
  const T *keys_by_dim, *values_by_dim, *keys_by_key;
  int64_t first_key;
  int64_t num_keys;  // of which the block sees some
};

template <class T>
static void differentiate_panel(const AttentionShape &shape, const BackwardBlock<T> &block, const Tile<T> &tile,
                                int64_t row, int64_t count) {
  constexpr int64_t width = Step<T>::kWidth;
  const int64_t dim = shape.head_dim, padded = up_to(dim, kLanes);
  const int64_t num_keys = keys_seen(shape, block.positions + row, count, tile.first_key);
  const int64_t seen = vectors_of(num_keys), vectors = vectors_of(tile.num_keys);
  multiply<T, false>(scores_product(shape, block.q + row * dim, tile.keys_by_dim, block.scores), count, seen);
  multiply<T, false>(scores_product(shape, block.dout + row * dim, tile.values_by_dim, block.dweights), count,
                     seen);
  (shape.softcap == 0.0f ? differentiate_rows<T, false> : differentiate_rows<T, true>)(
      shape, block, tile.first_key, row, count, seen, vectors);
  multiply<T, true>({block.dscores, kPageKeys, width, tile.keys_by_key, padded * width,
                     (num_keys + width - 1) / width, block.dq + row * padded, padded},
                    count, padded / kLanes);
}

// Rows from `first_row`, a panel's first, see keys of the tile; `to` is the gradient of the first of `count`.
template <class T>
static void add_to_keys(const BackwardBlock<T> &block, const T *weights, const T *rows, int64_t first_row,
                        int64_t end_row, int64_t first_key, int64_t count, int64_t padded, float *to) {
  constexpr int64_t width = Step<T>::kWidth;
  const int64_t steps = (end_row - first_row + width - 1) / width;
  for (int64_t key = 0; key < count; key += kPanelRows)
    multiply<T, true>({weights + first_row * kPageKeys + (first_key + key) * width, width, kPageKeys * width,
                       rows + first_row * padded, padded * width, steps, to + key * padded, padded},
                      smaller_of(kPanelRows, count - key), padded / kLanes);
}

// The tile's keys of the prefix, then those of the sequence's own, which stand apart among the tokens.
template <class T>
static void add_key_gradients(const AttentionShape &shape, const BackwardBlock<T> &block,
                              const BackwardKeys &keys, const Tile<T> &tile, int64_t first_row,
                              int64_t end_row) {
  const int64_t padded = up_to(shape.head_dim, kLanes);
  const int64_t of_prefix =
      larger_of(0, smaller_of(tile.num_keys, keys.tokens.prefix_length - tile.first_key));
  const int64_t own = larger_of(0, tile.first_key - keys.tokens.prefix_length);
  const int64_t tokens[2] = {keys.tokens.prefix_token + tile.first_key, keys.tokens.own_token + own};
  const int64_t counts[2] = {of_prefix, tile.num_keys - of_prefix};
  for (int run = 0; run < 2; ++run) {
    const int64_t at = tokens[run] * padded, first = run ? of_prefix : 0;
    add_to_keys(block, block.weight_steps, block.dout_steps, first_row, end_row, first, counts[run], padded,
                keys.dv + at);
    add_to_keys(block, block.dscore_steps, block.q_steps, first_row, end_row, first, counts[run], padded,
                keys.dk + at);
  }
}

// Until the block before has finished `tile`, if it shares it. It never waits for this one, so this ends.
static void await_turn(const Turn &turn, int64_t tile) {
  if (!turn.before) return;
  const int64_t awaited = smaller_of(tile, turn.last_shared);
  for (int spins = 0; __atomic_load_n(turn.before, __ATOMIC_ACQUIRE) <= awaited; ++spins)
    if (spins > 1000) sched_yield();
}

static void end_turn(const Turn &turn, int32_t num_tiles) {
  __atomic_store_n(turn.done, num_tiles, __ATOMIC_RELEASE);
}

template <class T>
static void differentiate_tile(const AttentionShape &shape, const BackwardBlock<T> &block,
                               const BackwardKeys &keys, const Turn &turn, int64_t index) {
  const int64_t page = keys.pages.table[index], kv_head = keys.pages.kv_head;
  const T *turned = page_of<T>(shape, keys.turned, page, kv_head);
  Tile<T> tile{page_of<T>(shape, keys.pages.pool, page, kv_head),
               turned + kPageKeys * up_to(shape.head_dim, kLanes), turned, index * kPageKeys, 0};
  tile.num_keys = smaller_of(kPageKeys, block.positions[block.num_rows - 1] - tile.first_key + 1);
  int64_t first_row = block.num_rows, end_row = 0;
  for (int64_t row = 0; row < block.num_rows; row += kPanelRows) {
    const int64_t count = smaller_of(kPanelRows, block.num_rows - row);
    if (!keys_seen(shape, block.positions + row, count, tile.first_key)) continue;
    differentiate_panel(shape, block, tile, row, count);
    first_row = smaller_of(first_row, row);
    end_row = row + count;
  }
  await_turn(turn, index);
  if (end_row) add_key_gradients(shape, block, keys, tile, first_row, end_row);
  end_turn(turn, int32_t(index) + 1);
}

template <class T>
static void store_row(const float *from, int64_t dim, T *to) {
  int64_t d = 0;
  for (; d + kLanes <= dim; d += kLanes) store(to + d, load(from + d));
  if (d < dim) store_some(to + d, load(from + d), dim - d);
}

template <class T>
static void differentiate_block(const AttentionShape &shape, const BackwardRows &rows, const BackwardKeys &keys,
                                const Turn &turn, void *scratch) {
  const int64_t kv_head = keys.pages.kv_head, padded = up_to(shape.head_dim, kLanes);
  const BackwardBlock<T> block = begin_block<T>(shape, rows, kv_head, static_cast<char *>(scratch));
  const int64_t last = block.positions[block.num_rows - 1] / kPageKeys;
  for (int64_t tile = first_tile(shape, block.positions); tile <= last; ++tile)
    differentiate_tile(shape, block, keys, turn, tile);
  end_turn(turn, INT32_MAX);
  T *dqkv = static_cast<T *>(rows.dqkv);
  RowPlaces to = row_places(shape, rows.rows, kv_head, rows.rows.token_stride);
  for (int64_t row = 0; row < block.num_rows; ++row, to_next_row(to))
    store_row(block.dq + row * padded, shape.head_dim, dqkv + to.at);
}

void attend_backward(const AttentionShape &shape, const BackwardRows &rows, const BackwardKeys &keys,
                     const Turn &turn, void *scratch) {
  (shape.is_bf16 ? differentiate_block<bf16> : differentiate_block<float>)(shape, rows, keys, turn, scratch);
}

template <class T>
static void store_gradients(const AttentionShape &shape, const float *dk, const float *dv, int64_t kv_head,
                            int64_t first_token, int64_t end_token, T *dqkv) {
  const int64_t dim = shape.head_dim, padded = up_to(dim, kLanes);
  const int64_t stride = (shape.num_heads + 2 * shape.num_kv_heads) * dim;
  T *key = dqkv + (shape.num_heads + kv_head) * dim, *value = key + shape.num_kv_heads * dim;
  for (int64_t token = first_token; token < end_token; ++token) {
    store_row(dk + token * padded, dim, key + token * stride);
    store_row(dv + token * padded, dim, value + token * stride);
  }
}

void store_key_gradients(const AttentionShape &shape, const float *dk, const float *dv, int64_t kv_head,
                         int64_t first_token, int64_t end_token, void *dqkv) {
  if (shape.is_bf16)
    store_gradients(shape, dk, dv, kv_head, first_token, end_token, static_cast<bf16 *>(dqkv));
  else
    store_gradients(shape, dk, dv, kv_head, first_token, end_token, static_cast<float *>(dqkv));
}

}  // namespace REALRL_SIMD
}  // namespace realrl
