#pragma once

#include "logits.h"
#include "simd.h"
#include "simd_kernels.h"

namespace realrl {
namespace REALRL_SIMD {

void logits_statistics(const LogitsJob &job, RowStatistics *statistics, int num_threads);
void logits_gradient(const LogitsJob &job, const LogitsGradient &gradient, int num_threads);

}  // namespace REALRL_SIMD
}  // namespace realrl
