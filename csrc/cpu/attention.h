// Attention over pages of keys and values: what attention_cpu.cpp, which orders the work, and the kernels of each
// instruction set, which do it, tell each other.
//
// A page holds 64 keys and values of every K/V head, at the logical positions 64 j to 64 j + 63 of a sequence.
// Training packs pages and throws them away; decoding keeps them as its cache. Everything is summed in an order
// that depends on logical positions alone, so a token's result has the same bits in both, whatever stands
// around it.
//
// Shapes: Q query heads, K key/value heads, G = Q / K, D head size, and Dp, which is D rounded up to 16.
#pragma once

#include <cstdint>

namespace realrl {

constexpr int64_t kPageKeys = 64;
// Query rows that are worked on together: few enough for the first two caches.
constexpr int64_t kBlockRows = 96;

struct AttentionShape {
  int64_t num_heads, num_kv_heads, head_dim;
  float scale;
  float softcap;   // scores become softcap * tanh(score / softcap); 0: they stay
  int64_t window;  // a token sees itself and the window - 1 before it
  bool is_bf16;
};

// No inline functions with external linkage here: see simd.h.
static inline int64_t padded_dim(const AttentionShape &shape) { return (shape.head_dim + 15) / 16 * 16; }

static inline int64_t element_bytes(const AttentionShape &shape) { return shape.is_bf16 ? 2 : 4; }

// One K/V head's share of a page: keys [D / 2, 64, 2] and values [32, Dp, 2], or in float32 [D, 64] and [64, Dp].
static inline int64_t page_head_elements(const AttentionShape &shape) {
  return kPageKeys * (shape.head_dim + padded_dim(shape));
}

static inline int64_t page_bytes(const AttentionShape &shape) {
  return page_head_elements(shape) * shape.num_kv_heads * element_bytes(shape);
}

// More than any block needs of any type.
static inline int64_t scratch_bytes(const AttentionShape &shape) {
  return kBlockRows * (padded_dim(shape) * 4 * 6 + kPageKeys * 4 * 4) + (1 << 16);
}

// Where the keys of a sequence stand among the packed tokens: its prefix, then its own.
struct KeyTokens {
  int64_t prefix_token, prefix_length, own_token;
};

// Some query rows of one K/V head: row = token * G + head within the group, counted from the segment's start.
struct QueryRows {
  const void *q;         // the segment's first token in [tokens, Q + 2K, D]
  int64_t token_stride;  // in elements
  int64_t first_row, num_rows;
  int64_t first_position;  // of the segment's first token
};

struct KeyPages {
  const void *pool;      // [pages, K, page_head_elements]
  const int32_t *table;  // the page of each 64 positions
  int64_t kv_head;
  bool stale;            // places past the newest key may hold what was there before, even NaN
};

// How the blocks that add to the same keys' gradients take turns: tile after tile in the blocks' order, so that
// sums have one order however many threads there are.
struct Turn {
  const int32_t *before;  // how many tiles the block before has finished, null for the first
  int32_t *done;          // how many this one has
  int64_t last_shared;    // the last tile that it shares with the block before
};

struct BackwardRows {
  QueryRows rows;
  const void *out, *dout;  // at the segment's first token, [tokens, Q, D]
  const float *lse;        // [tokens, Q]
  void *dqkv;              // as rows.q
};

struct BackwardKeys {
  KeyPages pages;
  const void *turned;  // pages with keys laid as values and values as keys
  KeyTokens tokens;
  float *dk, *dv;      // [all tokens, Dp] of this K/V head
};

}  // namespace realrl
