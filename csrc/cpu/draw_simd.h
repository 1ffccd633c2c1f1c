#pragma once

#include "simd.h"
#include "simd_kernels.h"

namespace realrl {
namespace REALRL_SIMD {

void draw(const DrawJob &job, int64_t *tokens, int num_threads);

}  // namespace REALRL_SIMD
}  // namespace realrl
