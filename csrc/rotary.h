// Rotary position embedding (Su et al. 2021, arXiv:2104.09864, eq. 34), a pair's members half a head apart:
// shared by the CPU and the CUDA kernels.
#pragma once

#include <cstdint>

#include "host_device.h"

namespace realrl {

// Heads of 2 * half elements; those after the first `rotated_heads` of a token are copied.
struct RotaryJob {
  const void *x;                 // [tokens, heads, 2 * half]
  const float *cosines, *sines;  // [tokens, half]
  int64_t tokens, heads, rotated_heads, half;
  bool inverse, is_bf16;
};

template <class Real>
struct Pair {
  Real a, b;
};

template <class Real>
REALRL_HOST_DEVICE Pair<Real> turned(Real a, Real b, Real cosine, Real sine) {
  return {a * cosine - b * sine, b * cosine + a * sine};
}

}  // namespace realrl
