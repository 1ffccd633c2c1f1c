#pragma once

#include "simd.h"
#include "simd_kernels.h"

namespace realrl {
namespace REALRL_SIMD {

void rotate(const RotaryJob &job, void *y, int num_threads);

}  // namespace REALRL_SIMD
}  // namespace realrl
