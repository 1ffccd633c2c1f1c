#pragma once

#include "attention_plan.h"

namespace realrl {

// out [tokens, Q, D] and, for the gradient, lse [tokens, Q].
void attention_cpu(const AttentionShape &shape, const PackedTokens &tokens, void *out, float *lse,
                   int num_threads);

// dqkv [tokens, Q + 2K, D].
void attention_backward_cpu(const AttentionShape &shape, const PackedTokens &tokens, const void *out,
                            const float *lse, const void *dout, void *dqkv, int num_threads);

// Asks for large pages of memory, before it is used: a pool's tiles are read in no order that hardware foresees,
// and small pages' addresses would take as long to find as what they hold.
void use_huge_pages(void *memory, int64_t num_bytes);

// Puts each token's keys and values into place slots[token] of the pool, unless that is negative.
void write_pages_cpu(const AttentionShape &shape, const void *qkv, const int64_t *slots, int64_t num_tokens,
                     void *pool, int num_threads);

// One token a sequence, the newest of the `lengths` that its pages hold.
struct NewestTokens {
  const void *q;         // [sequences, .., D], query heads first
  int64_t token_stride;  // in elements
  const int32_t *page_table;
  int64_t table_width;
  const int64_t *lengths;
  int64_t num_sequences;
};

// out [sequences, Q, D].
void attend_pages_cpu(const AttentionShape &shape, const NewestTokens &tokens, const void *pool, void *out,
                      int num_threads);

}  // namespace realrl
