// float16 as CUDA's header declares it, as far as csrc/*.cu use it.
#pragma once

#include "cuda_runtime.h"

struct __half {
  uint16_t bits;
};
struct alignas(4) __half2 {
  __half x, y;
};

inline float __half2float(__half value) {
  const int exponent = value.bits >> 10 & 31, fraction = value.bits & 1023;
  const float sign = value.bits & 0x8000 ? -1.0f : 1.0f;
  if (exponent == 31) return fraction ? NAN : sign * INFINITY;
  if (exponent == 0) return sign * ldexpf(static_cast<float>(fraction), -24);
  return sign * ldexpf(static_cast<float>(1024 + fraction), exponent - 25);
}

// To the nearest, ties to even.
inline __half __float2half_rn(float value) {
  if (value != value) return {0x7fff};
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const float size = fabsf(value);
  if (size == 0) return {sign};
  if (size >= 65520.0f) return {static_cast<uint16_t>(sign | 0x7c00)};
  int exponent = 0;
  frexpf(size, &exponent);
  // The last bit of a subnormal is worth 2^-24, that of a normal 2^-10 of its leading one.
  const int last = exponent - 11 < -24 ? -24 : exponent - 11;
  const auto units = static_cast<int>(nearbyintf(ldexpf(size, -last)));
  // A rounding up to the next power of two carries into the exponent, as it should.
  return {static_cast<uint16_t>(sign | (units + ((last + 24) << 10)))};
}

inline __half __float2half(float value) { return __float2half_rn(value); }

inline __half2 __floats2half2_rn(float low, float high) { return {__float2half_rn(low), __float2half_rn(high)}; }
