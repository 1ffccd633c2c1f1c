// The kernels that are compiled for several instruction sets, and the choice among them.
#pragma once

#include <cstdint>

namespace realrl {

// Rows of `width` elements, float32 or bfloat16 as `is_bf16` says, `weight` [width] of the same type.
struct NormJob {
  const void *x;           // [rows, width]
  const void *weight;      // [width]
  int64_t rows, width;
  float epsilon, offset;   // y = x / sqrt(mean(x^2) + epsilon) * (weight + offset)
  bool is_bf16;
};

struct SimdKernels {
  const char *name;
  // y [rows, width], and 1 / sqrt(...) of each row.
  void (*rms_norm)(const NormJob &, void *y, float *inverse, int num_threads);
  // dx [rows, width] from dy; `dweight` [num_threads, width] float32 gets one partial sum a thread.
  void (*rms_norm_backward)(const NormJob &, const void *dy, const float *inverse, void *dx, float *dweight,
                            int num_threads);
};

// The widest that this processor has.
const SimdKernels &simd_kernels();

}  // namespace realrl
