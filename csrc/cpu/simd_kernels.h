// The kernels that are compiled for several instruction sets, and the choice among them.
#pragma once

#include <cstdint>

#include "attention.h"
#include "gated.h"
#include "logits.h"
#include "rotary.h"

namespace realrl {

// Rows of `width` elements, float32 or bfloat16 as `is_bf16` says, `weight` [width] of the same type.
struct NormJob {
  const void *x;           // [rows, width]
  const void *weight;      // [width]
  int64_t rows, width;
  float epsilon, offset;   // y = x / sqrt(mean(x^2) + epsilon) * (weight + offset)
  bool is_bf16;
};

// Rows of `width` float32 logits, and a number in [0, 1) for each.
struct DrawJob {
  const void *logits;  // [rows, width], bf16 or float
  bool is_bf16;
  int64_t rows, width;
  float inverse_temperature;
  const double *uniforms;  // [rows]
};

struct SimdKernels {
  const char *name;
  // y [rows, width], and 1 / sqrt(...) of each row.
  void (*rms_norm)(const NormJob &, void *y, float *inverse, int num_threads);
  // dx [rows, width] from dy; `dweight` [num_threads, width] float32 gets one partial sum a thread.
  void (*rms_norm_backward)(const NormJob &, const void *dy, const float *inverse, void *dx, float *dweight,
                            int num_threads);
  void (*logits_statistics)(const LogitsJob &, RowStatistics *statistics, int num_threads);  // [rows]
  // Puts d loss / d logits in the place of the logits, and 0 in that of the padding.
  void (*logits_gradient)(const LogitsJob &, const LogitsGradient &, int num_threads);
  // Lays one K/V head's keys and values, from `first_key` of a sequence of `length`, into its share of a page,
  // and where `turned` is not null keys as values and values as keys into that.
  void (*pack_page)(const AttentionShape &, const void *qkv, const KeyTokens &, int64_t length,
                    int64_t first_key, int64_t kv_head, void *page, void *turned);
  // Tokens [.., Q + 2K, D] into a page's places from `offset` on.
  void (*write_tokens)(const AttentionShape &, const void *qkv, int64_t num_tokens, int64_t offset, void *page);
  // `out`, and unless null `lse`, as BackwardRows has them.
  void (*attend)(const AttentionShape &, const QueryRows &, const KeyPages &, void *out, float *lse,
                 void *scratch);
  void (*attend_backward)(const AttentionShape &, const BackwardRows &, const BackwardKeys &, const Turn &,
                          void *scratch);
  // The sums of BackwardKeys, for some tokens, to dqkv [tokens, Q + 2K, D].
  void (*store_key_gradients)(const AttentionShape &, const float *dk, const float *dv, int64_t kv_head,
                              int64_t first_token, int64_t end_token, void *dqkv);
  void (*gated)(const GatedJob &, void *y, int num_threads);  // [rows, width]
  void (*gated_backward)(const GatedJob &, const void *dy, void *d_gate_up, int num_threads);
  void (*rotate)(const RotaryJob &, void *y, int num_threads);
  void (*draw)(const DrawJob &, int64_t *tokens, int num_threads);  // [rows]
};

// The widest that this processor has.
const SimdKernels &simd_kernels();

}  // namespace realrl
