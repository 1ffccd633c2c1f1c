// Lanes of float32 for the kernels in *_simd.cpp: sixteen, or as many as a register has where the source
// begins by defining REALRL_SIMD_NATIVE (GCC keeps wider vectors in memory).
//
// Each of those files is compiled once for every instruction set of setup.py, into a namespace of its own;
// simd.cpp picks the widest that the processor has. Nothing in them may be an inline function with external
// linkage (such as a template of the standard library that is not forced inline): the linker would keep one
// copy, for some other instruction set.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __AVX512F__
#include <immintrin.h>
#endif

#ifndef REALRL_SIMD
#define REALRL_SIMD base
#endif
#define REALRL_SIMD_INLINE static inline __attribute__((always_inline))

namespace realrl {
namespace REALRL_SIMD {
namespace {

#if defined(__AVX512F__)
constexpr int kPieceBytes = 64;
#elif defined(__AVX2__)
constexpr int kPieceBytes = 32;
#else
constexpr int kPieceBytes = 16;
#endif
#ifdef REALRL_SIMD_NATIVE
constexpr int kLanes = kPieceBytes / 4;
#else
constexpr int kLanes = 16;
#endif

typedef float Vec __attribute__((vector_size(kLanes * 4)));
typedef int32_t IntVec __attribute__((vector_size(kLanes * 4)));
typedef uint32_t BitVec __attribute__((vector_size(kLanes * 4)));
typedef uint16_t HalfBits __attribute__((vector_size(kLanes * 2)));

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

// A register's worth. GCC does comparisons of larger vectors element by element.
typedef float Piece __attribute__((vector_size(kPieceBytes)));
typedef int32_t IntPiece __attribute__((vector_size(kPieceBytes)));

// All ones where a > b.
REALRL_SIMD_INLINE IntVec greater(Vec a, Vec b) {
  IntVec where;
#pragma GCC unroll 4
  for (int i = 0; i < static_cast<int>(sizeof a); i += kPieceBytes) {
    Piece x, y;
    memcpy(&x, reinterpret_cast<char *>(&a) + i, kPieceBytes);
    memcpy(&y, reinterpret_cast<char *>(&b) + i, kPieceBytes);
    const IntPiece found = x > y;
    memcpy(reinterpret_cast<char *>(&where) + i, &found, kPieceBytes);
  }
  return where;
}

// Rounds to nearest, ties to even; a NaN stays one. Where the processor has an instruction for it, that makes
// 0 of what is below 2^-126.
REALRL_SIMD_INLINE HalfBits rounded(Vec x) {
#ifdef __AVX512BF16__
  return (HalfBits)_mm512_cvtneps_pbh((__m512)x);
#else
  const BitVec bits = (BitVec)x;
  const BitVec nearest = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  // All ones where the magnitude is above infinity's.
  const BitVec is_nan = (BitVec)((0x7f800000 - (IntVec)(bits & 0x7fffffff)) >> 31);
  return __builtin_convertvector((nearest & ~is_nan) | (0x7fc0 & is_nan), HalfBits);
#endif
}

REALRL_SIMD_INLINE void store(bf16 *to, Vec x) {
  const HalfBits half = rounded(x);
  memcpy(to, &half, sizeof half);
}

// The first `count` lanes; the other lanes are `rest`, and are not stored.
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
#ifdef __AVX512F__
  return where ? yes : no;
#else
  return (Vec)(((IntVec)yes & where) | ((IntVec)no & ~where));
#endif
}

// A NaN in `b` stays one.
REALRL_SIMD_INLINE Vec max(Vec a, Vec b) {
#ifdef __AVX512F__
  return (Vec)_mm512_max_ps((__m512)a, (__m512)b);
#else
  return select(greater(a, b), a, b);
#endif
}

REALRL_SIMD_INLINE Vec min(Vec a, Vec b) {
#ifdef __AVX512F__
  return (Vec)_mm512_min_ps((__m512)a, (__m512)b);
#else
  return select(greater(b, a), a, b);
#endif
}

// 1 / x to within 2 units in the last place, where 2^-126 <= |x| <= 2^126 or x is no number.
REALRL_SIMD_INLINE Vec reciprocal(Vec x) {
#ifdef __AVX512F__
  // An estimate to 14 bits and a step of Newton's method: a third of a division's time.
  const Vec estimate = (Vec)_mm512_rcp14_ps((__m512)x);
  return estimate * (2.0f - x * estimate);
#else
  return 1.0f / x;
#endif
}

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

// Adding it rounds to an integer, which then stands in the lowest bits: 1.5 * 2^23.
constexpr float kRounder = 12582912.0f;

// e^x = 2^n * p with n an integer: p to within 2 units in the last place, from a polynomial on
// [-ln(2)/2, ln(2)/2]. `rounded_n` is n + kRounder.
REALRL_SIMD_INLINE Vec exp_parts(Vec x, Vec &rounded_n) {
  rounded_n = x * 1.44269504f + kRounder;
  const Vec n = rounded_n - kRounder;
  // ln(2) in two parts, so that n * ln(2) is exact enough.
  const Vec r = x - n * 0.693359375f + n * 2.12194440e-4f;
  Vec p = splat(1.3981999507e-3f);
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  return p * r * r + r + 1.0f;
}

// e^x to within 2 units in the last place. Underflows to 0 below -87.3, and is infinite above 88.7.
REALRL_SIMD_INLINE Vec exp(Vec x) {
  Vec rounded_n;
  const Vec p = exp_parts(min(splat(88.72283f), max(splat(-87.33654f), x)), rounded_n);
  // In two steps, as 2^128 is no float32 while e^88.7 is.
  const IntVec exponent = (IntVec)rounded_n - (IntVec)splat(kRounder);
  const IntVec half = exponent >> 1;
  const Vec scaled = p * (Vec)((half + 127) << 23) * (Vec)((exponent - half + 127) << 23);
  const Vec bounded = select(greater(x, splat(88.72283f)), splat(__builtin_inff()), scaled);
  return select(greater(splat(-87.33654f), x), Vec{}, bounded);
}

// The same, for less work, where -87.3 <= x <= 88 or x is no number.
REALRL_SIMD_INLINE Vec exp_within(Vec x) {
  Vec rounded_n;
  const Vec p = exp_parts(x, rounded_n);
  return p * (Vec)(((IntVec)rounded_n << 23) + (127 << 23));
}

// The same, with e^-87.3 for all that is less, and e^87.3 for all that is more.
REALRL_SIMD_INLINE Vec exp_clamped(Vec x) {
  return exp_within(min(splat(87.3f), max(splat(-87.3f), x)));
}

REALRL_SIMD_INLINE Vec sigmoid(Vec x) { return reciprocal(1.0f + exp_clamped(-x)); }

// To within 3 units in the last place: near 0, where 1 - 1 would lose digits, by a polynomial that was
// fitted for the least relative error.
REALRL_SIMD_INLINE Vec tanh(Vec x) {
  const Vec square = x * x;
  Vec p = splat(-5.6039183878e-3f);
  p = p * square + 2.0551723915e-2f;
  p = p * square - 5.3714108969e-2f;
  p = p * square + 1.3331152831e-1f;
  p = p * square - 3.3333272084e-1f;
  const Vec near = x + x * square * p, far = 1.0f - 2.0f * reciprocal(1.0f + exp_clamped(2.0f * x));
  return select(greater(splat(0.64f), max(x, -x)), near, far);
}

}  // namespace
}  // namespace REALRL_SIMD
}  // namespace realrl
