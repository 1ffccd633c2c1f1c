// Products of a few rows with a packed matrix, summed one step after the other in registers: an element's sum has
// the same order, and the same bits, whatever rows and columns are computed beside it.
#pragma once

#include "simd.h"
#ifdef __AVX512F__
#include <immintrin.h>
#endif

namespace realrl {
namespace REALRL_SIMD {
namespace {

// As many sums as the registers hold.
constexpr int kPanelRows = 6;
#ifdef __AVX512F__
constexpr int kPanelVectors = 4;
#else
constexpr int kPanelVectors = 1;
#endif

// One step takes one float32 of the left row and of each column, or two bfloat16.
template <class T>
struct Step;

template <>
struct Step<float> {
  static constexpr int64_t kWidth = 1;
  typedef float Left;
  typedef Vec Right;
  REALRL_SIMD_INLINE Left left(const float *from) { return *from; }
  REALRL_SIMD_INLINE Right right(const float *from) { return load(from); }
  REALRL_SIMD_INLINE Vec add(Vec total, Left a, Right b) { return a * b + total; }
};

template <>
struct Step<bf16> {
  static constexpr int64_t kWidth = 2;
#ifdef __AVX512BF16__
  typedef __m512bh Left;
  typedef __m512bh Right;
  REALRL_SIMD_INLINE Left left(const bf16 *from) {
    int32_t pair;
    memcpy(&pair, from, sizeof pair);
    return (__m512bh)_mm512_set1_epi32(pair);
  }
  REALRL_SIMD_INLINE Right right(const bf16 *from) { return (__m512bh)_mm512_loadu_si512(from); }
  REALRL_SIMD_INLINE Vec add(Vec total, Left a, Right b) { return (Vec)_mm512_dpbf16_ps((__m512)total, a, b); }
#else
  struct Right {
    Vec low, high;
  };
  struct Left {
    float low, high;
  };
  REALRL_SIMD_INLINE Left left(const bf16 *from) {
    const uint32_t bits[2] = {uint32_t(from[0].bits) << 16, uint32_t(from[1].bits) << 16};
    Left pair;
    memcpy(&pair, bits, sizeof pair);
    return pair;
  }
  REALRL_SIMD_INLINE Right right(const bf16 *from) {
    BitVec bits;
    memcpy(&bits, from, sizeof bits);
    return {(Vec)(bits << 16), (Vec)(bits & 0xffff0000u)};
  }
  REALRL_SIMD_INLINE Vec add(Vec total, Left a, Right b) { return a.high * b.high + (a.low * b.low + total); }
#endif
};

// c [rows, columns] = a [rows, steps] times b [steps, columns], or is added to. Distances are in elements.
template <class T>
struct Product {
  const T *a;
  int64_t a_row, a_step;
  const T *b;
  int64_t b_step;
  int64_t steps;
  float *c;
  int64_t c_row;
};

template <class T, bool kAdd, int kRows, int kVectors>
static void multiply_panel(const Product<T> &p) {
  Vec sums[kRows][kVectors];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) sums[r][v] = kAdd ? load(p.c + r * p.c_row + v * kLanes) : Vec{};
  const T *a = p.a, *b = p.b;
  const int64_t a_row = p.a_row, a_step = p.a_step, b_step = p.b_step;
  for (int64_t step = p.steps; step > 0; --step, a += a_step, b += b_step) {
    typename Step<T>::Right right[kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) right[v] = Step<T>::right(b + v * kLanes * Step<T>::kWidth);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const typename Step<T>::Left left = Step<T>::left(a + r * a_row);
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) sums[r][v] = Step<T>::add(sums[r][v], left, right[v]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) store(p.c + r * p.c_row + v * kLanes, sums[r][v]);
}

template <class T, bool kAdd, int kVectors>
static void multiply_columns(const Product<T> &p, int64_t rows) {
  switch (rows) {
    case 1: return multiply_panel<T, kAdd, 1, kVectors>(p);
    case 2: return multiply_panel<T, kAdd, 2, kVectors>(p);
    case 3: return multiply_panel<T, kAdd, 3, kVectors>(p);
    case 4: return multiply_panel<T, kAdd, 4, kVectors>(p);
    case 5: return multiply_panel<T, kAdd, 5, kVectors>(p);
    default: return multiply_panel<T, kAdd, 6, kVectors>(p);
  }
}

// Up to kPanelRows rows, and any number of vectors of columns.
template <class T, bool kAdd>
static void multiply(Product<T> p, int64_t rows, int64_t vectors) {
  for (; vectors >= kPanelVectors; vectors -= kPanelVectors) {
    multiply_columns<T, kAdd, kPanelVectors>(p, rows);
    p.b += kPanelVectors * kLanes * Step<T>::kWidth;
    p.c += kPanelVectors * kLanes;
  }
  if constexpr (kPanelVectors == 4) {
    if (vectors == 3) return multiply_columns<T, kAdd, 3>(p, rows);
    if (vectors == 2) return multiply_columns<T, kAdd, 2>(p, rows);
    if (vectors == 1) return multiply_columns<T, kAdd, 1>(p, rows);
  }
}

}  // namespace
}  // namespace REALRL_SIMD
}  // namespace realrl
