// Lays rows out as the right side of a product takes them.
#pragma once

#include "attention_simd.h"

namespace realrl {
namespace REALRL_SIMD {
namespace {

// The one or two runs of tokens that a page holds: its prefix's tail, then its own.
template <class T>
struct Tokens {
  const T *first[2];
  int64_t count[2];
  int64_t stride;
};

template <class T>
REALRL_SIMD_INLINE const T *token(const Tokens<T> &tokens, int64_t key) {
  if (key < tokens.count[0]) return tokens.first[0] + key * tokens.stride;
  return tokens.first[1] + (key - tokens.count[0]) * tokens.stride;
}

template <int kWidth>
REALRL_SIMD_INLINE void swap_blocks(BitVec (&rows)[kLanes]) {
  const IntVec lane{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  const IntVec in_second = (lane & kWidth) != 0;
  // Lanes of the second operand are numbered from 16.
  const BitVec first = (BitVec)(in_second ? lane - kWidth + kLanes : lane);
  const BitVec second = (BitVec)(in_second ? lane + kLanes : lane + kWidth);
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; ++i) {
    if (i & kWidth) continue;
    const BitVec a = rows[i], b = rows[i + kWidth];
    rows[i] = __builtin_shuffle(a, b, first);
    rows[i + kWidth] = __builtin_shuffle(a, b, second);
  }
}

// 16 by 16 words: their blocks of 8, 4, 2 and 1 change places across the diagonal.
REALRL_SIMD_INLINE void transpose(BitVec (&rows)[kLanes]) {
  swap_blocks<8>(rows);
  swap_blocks<4>(rows);
  swap_blocks<2>(rows);
  swap_blocks<1>(rows);
}

// [keys, D] to [D / width, 64, width]: every 32 bits of a token go to a column. Columns without a key are zero
// up to a whole vector if `fill`, and else stay as they are.
template <class T>
static void lay_by_dim(const Tokens<T> &tokens, int64_t head_dim, T *to, bool fill) {
  constexpr int64_t width = Step<T>::kWidth;
  const int64_t num_keys = tokens.count[0] + tokens.count[1], num_steps = head_dim / width;
  for (int64_t key = 0; key < num_keys; key += kLanes)
    for (int64_t step = 0; step < num_steps; step += kLanes) {
      const int64_t columns = smaller_of(kLanes, num_steps - step);
      BitVec block[kLanes];
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) {
        block[i] = BitVec{};
        if (key + i >= num_keys) continue;
        const T *from = token(tokens, key + i) + step * width;
        if (columns == kLanes) memcpy(&block[i], from, sizeof block[i]);
        else memcpy(&block[i], from, columns * 4);
      }
      transpose(block);
      const bool whole = fill || key + kLanes <= num_keys;
      for (int64_t i = 0; i < columns; ++i) {
        T *column = to + ((step + i) * kPageKeys + key) * width;
        if (whole) memcpy(column, &block[i], sizeof block[i]);
        else memcpy(column, &block[i], (num_keys - key) * 4);
      }
    }
}

REALRL_SIMD_INLINE void lay_step(const float *low, const float *, int64_t head_dim, int64_t padded, float *to) {
  memcpy(to, low, head_dim * sizeof(float));
  memset(to + head_dim, 0, (padded - head_dim) * sizeof(float));
}

REALRL_SIMD_INLINE BitVec widened(const bf16 *from, int64_t count) {
  HalfBits half{};
  if (count >= kLanes) memcpy(&half, from, sizeof half);
  else if (count > 0) memcpy(&half, from, count * sizeof(bf16));
  return __builtin_convertvector(half, BitVec);
}

// `high` may be null: zeros.
REALRL_SIMD_INLINE void lay_step(const bf16 *low, const bf16 *high, int64_t head_dim, int64_t padded, bf16 *to) {
  for (int64_t d = 0; d < padded; d += kLanes) {
    BitVec pairs = widened(low + d, head_dim - d);
    if (high) pairs |= widened(high + d, head_dim - d) << 16;
    memcpy(to + 2 * d, &pairs, sizeof pairs);
  }
}

// [keys, D] to [keys / width, Dp, width]; a last key without a partner gets zeros.
template <class T>
static void lay_by_key(const Tokens<T> &tokens, int64_t head_dim, T *to) {
  constexpr int64_t width = Step<T>::kWidth;
  const int64_t num_keys = tokens.count[0] + tokens.count[1], padded = up_to(head_dim, kLanes);
  for (int64_t key = 0; key < num_keys; key += width) {
    const T *high = width == 2 && key + 1 < num_keys ? token(tokens, key + 1) : nullptr;
    lay_step(token(tokens, key), high, head_dim, padded, to + key * padded);
  }
}

}  // namespace
}  // namespace REALRL_SIMD
}  // namespace realrl
