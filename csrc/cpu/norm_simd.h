#pragma once

#include "simd.h"
#include "simd_kernels.h"

namespace realrl {
namespace REALRL_SIMD {

void rms_norm(const NormJob &job, void *y, float *inverse, int num_threads);
void rms_norm_backward(const NormJob &job, const void *dy, const float *inverse, void *dx, float *dweight,
                       int num_threads);

}  // namespace REALRL_SIMD
}  // namespace realrl
