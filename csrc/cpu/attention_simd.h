// What the attention kernels of one instruction set share.
#pragma once

#include "attention.h"
#include "matmul_simd.h"
#include "simd_kernels.h"

namespace realrl {
namespace REALRL_SIMD {

void pack_page(const AttentionShape &shape, const void *qkv, const KeyTokens &tokens, int64_t length,
               int64_t first_key, int64_t kv_head, void *page, void *turned);
void write_tokens(const AttentionShape &shape, const void *qkv, int64_t num_tokens, int64_t offset, void *page);
void attend(const AttentionShape &shape, const QueryRows &rows, const KeyPages &pages, void *out, float *lse,
            void *scratch);
void attend_backward(const AttentionShape &shape, const BackwardRows &rows, const BackwardKeys &keys,
                     const Turn &turn, void *scratch);
void store_key_gradients(const AttentionShape &shape, const float *dk, const float *dv, int64_t kv_head,
                         int64_t first_token, int64_t end_token, void *dqkv);

namespace {

constexpr float kLog2E = 1.44269504f;

// 2^x for x up to about 0, to within 2 units in the last place: 2^n times a polynomial on [-1/2, 1/2], found by
// Lawson's reweighted least squares. Exactly 1 at 0, and exactly 0 below -126.5, so that masked scores vanish.
REALRL_SIMD_INLINE Vec exp2_below(Vec x) {
  const Vec clamped = max(splat(-127.0f), x);  // x where that is NaN
  const Vec shifter = splat(12583039.0f);  // 1.5 * 2^23 + 127: adding it leaves n + 127 in the lowest bits
  const Vec shifted = clamped + shifter;
  const Vec f = clamped - (shifted - shifter);
  Vec p = splat(1.3264727313e-3f);
  p = p * f + 9.6715129912e-3f;
  p = p * f + 5.5507335812e-2f;
  p = p * f + 2.4022242427e-1f;
  p = p * f + 6.9314700365e-1f;
  p = p * f + 1.0f;
  return p * (Vec)((BitVec)shifted << 23);
}

template <int kWidth>
REALRL_SIMD_INLINE Vec folded(Vec x) {
  const IntVec lane{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return __builtin_shuffle(x, lane ^ kWidth);
}

REALRL_SIMD_INLINE float largest_lane(Vec x) {
  x = max(x, folded<8>(x));
  x = max(x, folded<4>(x));
  x = max(x, folded<2>(x));
  return max(x, folded<1>(x))[0];
}

REALRL_SIMD_INLINE int64_t smaller_of(int64_t a, int64_t b) { return a < b ? a : b; }
REALRL_SIMD_INLINE int64_t larger_of(int64_t a, int64_t b) { return a > b ? a : b; }
REALRL_SIMD_INLINE int64_t vectors_of(int64_t count) { return (count + kLanes - 1) / kLanes; }
REALRL_SIMD_INLINE int64_t up_to(int64_t count, int64_t multiple) {
  return (count + multiple - 1) / multiple * multiple;
}

// Takes a piece of a block's scratch memory, on cache lines of its own.
template <class T>
REALRL_SIMD_INLINE T *take(char *&scratch, int64_t count) {
  T *piece = reinterpret_cast<T *>(scratch);
  scratch += up_to(count * int64_t(sizeof(T)), 64);
  return piece;
}

REALRL_SIMD_INLINE int64_t group_of(const AttentionShape &shape) { return shape.num_heads / shape.num_kv_heads; }

// Each row's position in its sequence.
REALRL_SIMD_INLINE int64_t *take_positions(const AttentionShape &shape, const QueryRows &rows, char *&scratch) {
  const int64_t group = group_of(shape);
  int64_t *positions = take<int64_t>(scratch, rows.num_rows);
  int64_t position = rows.first_position + rows.first_row / group, head = rows.first_row % group;
  for (int64_t row = 0; row < rows.num_rows; ++row) {
    positions[row] = position;
    if (++head == group) head = 0, ++position;
  }
  return positions;
}

// Where the block's rows, one after the other, stand in a tensor of `stride` elements a token.
struct RowPlaces {
  int64_t at, head, group, dim, to_next_token;
};

REALRL_SIMD_INLINE RowPlaces row_places(const AttentionShape &shape, const QueryRows &rows, int64_t kv_head,
                                        int64_t stride) {
  const int64_t group = group_of(shape), dim = shape.head_dim, head = rows.first_row % group;
  const int64_t at = rows.first_row / group * stride + (kv_head * group + head) * dim;
  return {at, head, group, dim, stride - (group - 1) * dim};
}

REALRL_SIMD_INLINE void to_next_row(RowPlaces &places) {
  const bool new_token = ++places.head == places.group;
  places.at += new_token ? places.to_next_token : places.dim;
  if (new_token) places.head = 0;
}

template <class T>
REALRL_SIMD_INLINE const T *page_of(const AttentionShape &shape, const void *pool, int64_t page,
                                      int64_t kv_head) {
  return static_cast<const T *>(pool) + (page * shape.num_kv_heads + kv_head) * page_head_elements(shape);
}

// The keys of a tile that a row sees, and whether any.
struct Visible {
  int64_t first, last;
};

REALRL_SIMD_INLINE Visible visible_keys(const AttentionShape &shape, int64_t position, int64_t first_key) {
  return {larger_of(0, position - shape.window + 1 - first_key), smaller_of(kPageKeys - 1, position - first_key)};
}

REALRL_SIMD_INLINE bool whole_vector(const Visible &keys, int64_t vector) {
  return vector * kLanes >= keys.first && vector * kLanes + kLanes - 1 <= keys.last;
}

REALRL_SIMD_INLINE Vec only_visible(const Visible &keys, int64_t vector, Vec x, float rest) {
  const IntVec lane{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  const IntVec key = lane + int32_t(vector * kLanes);
  return (key >= int32_t(smaller_of(keys.first, kPageKeys))) & (key <= int32_t(larger_of(keys.last, -1)))
             ? x
             : splat(rest);
}

// How many keys of the tile, from its start, any of `count` rows may see; 0 if none does.
REALRL_SIMD_INLINE int64_t keys_seen(const AttentionShape &shape, const int64_t *positions, int64_t count,
                                     int64_t first_key) {
  if (positions[0] - shape.window + 1 >= first_key + kPageKeys) return 0;
  return larger_of(0, smaller_of(kPageKeys, positions[count - 1] - first_key + 1));
}

REALRL_SIMD_INLINE int64_t first_tile(const AttentionShape &shape, const int64_t *positions) {
  return larger_of(0, positions[0] - shape.window + 1) / kPageKeys;
}

template <class T>
REALRL_SIMD_INLINE Product<T> scores_product(const AttentionShape &shape, const T *rows, const T *keys,
                                             float *scores) {
  constexpr int64_t width = Step<T>::kWidth;
  const int64_t steps = shape.head_dim / width;
  return {rows, shape.head_dim, width, keys, kPageKeys * width, steps, scores, kPageKeys};
}

REALRL_SIMD_INLINE Vec capped_tanh(const AttentionShape &shape, Vec score) {
  return tanh(score * (shape.scale / shape.softcap));
}

// The exponent to base 2 of a score's weight, from the product of query and key.
template <bool kCapped>
REALRL_SIMD_INLINE Vec exponent_of(const AttentionShape &shape, Vec score) {
  if constexpr (kCapped) return capped_tanh(shape, score) * (shape.softcap * kLog2E);
  return score * (shape.scale * kLog2E);
}

}  // namespace
}  // namespace REALRL_SIMD
}  // namespace realrl
