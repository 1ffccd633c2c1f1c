// Products by tensor cores. tests/rehearsal/cuda_shim has this file's functions for the CPU.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

namespace realrl {

// c [16, 8] += a [16, 16] b [16, 8] by a warp. A register has two elements, the lower bits the first. Lane
// 4g + t has, of a, columns 2t and 2t + 1 of the rows g and g + 8, then 2t + 8 and 2t + 9 of both; of b, rows
// 2t and 2t + 1 of column g, then 2t + 8 and 2t + 9; of c, columns 2t and 2t + 1 of the rows g and g + 8.
// Source: PTX ISA 8.7, section "Matrix Fragments for mma.m16n8k16 with floating point type".
template <class T>
__device__ void multiply_add(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);

template <>
__device__ __forceinline__ void multiply_add<__nv_bfloat16>(float (&c)[4], const uint32_t (&a)[4],
                                                            const uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

}  // namespace realrl
