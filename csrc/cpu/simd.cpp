#include "simd_kernels.h"

namespace realrl {

namespace base {
extern const SimdKernels kernels;
}
#ifdef REALRL_SIMD_X86
namespace avx2 {
extern const SimdKernels kernels;
}
namespace avx512 {
extern const SimdKernels kernels;
}
namespace avx512_bf16 {
extern const SimdKernels kernels;
}
#endif

static const SimdKernels &choose() {
#ifdef REALRL_SIMD_X86
  __builtin_cpu_init();
  // The levels x86-64-v4 and v3, as setup.py asks the compiler for.
  const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                  __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
  const bool v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                  __builtin_cpu_supports("avx512vl");
  if (v4 && __builtin_cpu_supports("avx512bf16")) return avx512_bf16::kernels;
  if (v4) return avx512::kernels;
  if (v3) return avx2::kernels;
#endif
  return base::kernels;
}

const SimdKernels &simd_kernels() {
  static const SimdKernels &chosen = choose();
  return chosen;
}

}  // namespace realrl
