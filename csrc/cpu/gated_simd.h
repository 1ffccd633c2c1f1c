#pragma once

#include "simd.h"
#include "simd_kernels.h"

namespace realrl {
namespace REALRL_SIMD {

void gated(const GatedJob &job, void *y, int num_threads);
void gated_backward(const GatedJob &job, const void *dy, void *d_gate_up, int num_threads);

}  // namespace REALRL_SIMD
}  // namespace realrl
