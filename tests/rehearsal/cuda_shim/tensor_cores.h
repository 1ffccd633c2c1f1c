// The functions of csrc/cuda/tensor_cores.h for the CPU. A lane brings its registers to the warp, and finds its part
// of the product.
// Source: PTX ISA 8.7, section "Matrix Fragments for mma.m16n8k16 with floating point type".
#pragma once

#include "cuda_bf16.h"

namespace rehearsal {

inline float widened_bits(uint16_t bits, __nv_bfloat16) { return __bfloat162float(__nv_bfloat16{bits}); }

// The registers of all lanes.
template <int kRegisters>
struct Fragments {
  uint32_t registers[kLanes][kRegisters];

  explicit Fragments(const uint32_t (&own)[kRegisters]) {
    for (int i = 0; i < kRegisters; i += 2) {
      uint64_t values[kLanes];
      wait_for_warp("mma", 0xffffffffu, own[i] | static_cast<uint64_t>(own[i + 1]) << 32, values);
      for (int lane = 0; lane < kLanes; ++lane) {
        registers[lane][i] = static_cast<uint32_t>(values[lane]);
        registers[lane][i + 1] = static_cast<uint32_t>(values[lane] >> 32);
      }
    }
  }

  // One of the two elements of a lane's register.
  template <class T>
  float element(int lane, int number, int which) const {
    return widened_bits(static_cast<uint16_t>(registers[lane][number] >> 16 * which), T{});
  }
};

}  // namespace rehearsal

namespace realrl {

template <class T>
__attribute__((no_sanitize("thread"))) void multiply_add(float (&c)[4], const uint32_t (&a)[4],
                                                         const uint32_t (&b)[2]) {
  const rehearsal::Fragments<4> left(a);
  const rehearsal::Fragments<2> right(b);
  const int group = rehearsal::lane_index() / 4, in_group = rehearsal::lane_index() % 4;
  for (int i = 0; i < 4; ++i) {
    const int row = group + i / 2 * 8, column = in_group * 2 + i % 2;
    for (int k = 0; k < 16; ++k) {
      const int in_row = row % 8 * 4 + k % 8 / 2, in_column = column * 4 + k % 8 / 2;
      const float x = left.element<T>(in_row, row / 8 + k / 8 * 2, k % 2);
      c[i] += x * right.element<T>(in_column, k / 8, k % 2);
    }
  }
}

}  // namespace realrl
