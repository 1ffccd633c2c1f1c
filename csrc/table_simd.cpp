// One instruction set's kernels.
#include "norm_simd.h"

#define REALRL_TEXT_OF(name) #name
#define REALRL_TEXT(name) REALRL_TEXT_OF(name)

namespace realrl {
namespace REALRL_SIMD {

extern const SimdKernels kernels;
const SimdKernels kernels{REALRL_TEXT(REALRL_SIMD), rms_norm, rms_norm_backward};

}  // namespace REALRL_SIMD
}  // namespace realrl
