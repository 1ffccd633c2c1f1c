// Sixteen float32 lanes for the kernels in *_simd.cpp. Each of those files is compiled once for every
// instruction set of setup.py, into a namespace of its own; simd.cpp picks the widest that the processor has.
// Nothing in them may be an inline function with external linkage (such as a template of the standard library
// that is not forced inline): the linker would keep one copy, for some other instruction set.
#pragma once

#include <cstdint>
#include <cstring>

#ifndef REALRL_SIMD
#define REALRL_SIMD base
#endif
#define REALRL_SIMD_INLINE static inline __attribute__((always_inline))

namespace realrl {
namespace REALRL_SIMD {
namespace {

constexpr int kLanes = 16;

typedef float Vec __attribute__((vector_size(64)));
typedef int32_t IntVec __attribute__((vector_size(64)));
typedef uint32_t BitVec __attribute__((vector_size(64)));
typedef uint16_t HalfBits __attribute__((vector_size(32)));

// A bfloat16 is the upper half of a float32.
struct bf16 {
  uint16_t bits;
};

REALRL_SIMD_INLINE Vec splat(float x) { return Vec{} + x; }

REALRL_SIMD_INLINE Vec load(const float *from) {
  Vec x;
  memcpy(&x, from, sizeof x);
  return x;
}

REALRL_SIMD_INLINE Vec load(const bf16 *from) {
  HalfBits half;
  memcpy(&half, from, sizeof half);
  return (Vec)(__builtin_convertvector(half, BitVec) << 16);
}

REALRL_SIMD_INLINE void store(float *to, Vec x) { memcpy(to, &x, sizeof x); }

// Rounds to nearest, ties to even; a NaN stays one.
REALRL_SIMD_INLINE HalfBits rounded(Vec x) {
  const BitVec bits = (BitVec)x;
  const BitVec nearest = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const BitVec is_nan = (BitVec)(x != x);
  return __builtin_convertvector((nearest & ~is_nan) | (0x7fc0 & is_nan), HalfBits);
}

REALRL_SIMD_INLINE void store(bf16 *to, Vec x) {
  const HalfBits half = rounded(x);
  memcpy(to, &half, sizeof half);
}

// The first `count` of sixteen; the other lanes are `rest`, and are not stored.
template <class T>
REALRL_SIMD_INLINE Vec load_some(const T *from, int64_t count, float rest = 0.0f) {
  float lanes[kLanes];
  for (int64_t i = 0; i < kLanes; ++i) lanes[i] = rest;
  T some[kLanes] = {};
  memcpy(some, from, count * sizeof(T));
  float widened[kLanes];
  store(widened, load(some));
  memcpy(lanes, widened, count * sizeof(float));
  return load(lanes);
}

template <class T>
REALRL_SIMD_INLINE void store_some(T *to, Vec x, int64_t count) {
  T lanes[kLanes];
  store(lanes, x);
  memcpy(to, lanes, count * sizeof(T));
}

REALRL_SIMD_INLINE Vec select(IntVec where, Vec yes, Vec no) {
  return (Vec)(((IntVec)yes & where) | ((IntVec)no & ~where));
}

REALRL_SIMD_INLINE Vec max(Vec a, Vec b) { return select(a > b, a, b); }
REALRL_SIMD_INLINE Vec min(Vec a, Vec b) { return select(a < b, a, b); }

// The lanes' sum, always in the same order.
REALRL_SIMD_INLINE float sum(Vec x) {
  float lanes[kLanes];
  store(lanes, x);
  for (int width = kLanes / 2; width; width /= 2)
    for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  return lanes[0];
}

REALRL_SIMD_INLINE float largest(Vec x) {
  float lanes[kLanes];
  store(lanes, x);
  for (int width = kLanes / 2; width; width /= 2)
    for (int i = 0; i < width; ++i) lanes[i] = lanes[i] > lanes[i + width] ? lanes[i] : lanes[i + width];
  return lanes[0];
}

// e^x to within 2 units in the last place: 2^n times a polynomial on [-ln(2)/2, ln(2)/2]. Underflows to 0
// below -87.3, and is infinite above 88.7.
REALRL_SIMD_INLINE Vec exp(Vec x) {
  const Vec clamped = min(max(x, splat(-87.33654f)), splat(88.72283f));
  const Vec shifter = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const Vec n = clamped * 1.44269504f + shifter - shifter;
  // ln(2) in two parts, so that n * ln(2) is exact enough.
  const Vec r = clamped - n * 0.693359375f + n * 2.12194440e-4f;
  Vec p = splat(1.3981999507e-3f);
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  // In two steps, as 2^128 is no float32 while e^88.7 is.
  const IntVec exponent = __builtin_convertvector(n, IntVec);
  const IntVec half = exponent >> 1;
  const Vec scaled = p * (Vec)((half + 127) << 23) * (Vec)((exponent - half + 127) << 23);
  const Vec bounded = select(x < -87.33654f, Vec{}, select(x > 88.72283f, splat(__builtin_inff()), scaled));
  return select(x == x, bounded, x);
}

REALRL_SIMD_INLINE Vec sigmoid(Vec x) { return 1.0f / (1.0f + exp(-x)); }

REALRL_SIMD_INLINE Vec tanh(Vec x) { return 2.0f * sigmoid(2.0f * x) - 1.0f; }

}  // namespace
}  // namespace REALRL_SIMD
}  // namespace realrl
