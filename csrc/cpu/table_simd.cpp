// One instruction set's kernels.
#include "attention_simd.h"
#include "draw_simd.h"
#include "gated_simd.h"
#include "logits_simd.h"
#include "norm_simd.h"
#include "rotary_simd.h"

#define REALRL_TEXT_OF(name) #name
#define REALRL_TEXT(name) REALRL_TEXT_OF(name)

namespace realrl {
namespace REALRL_SIMD {

extern const SimdKernels kernels;
const SimdKernels kernels{REALRL_TEXT(REALRL_SIMD),
                          rms_norm,
                          rms_norm_backward,
                          logits_statistics,
                          logits_gradient,
                          pack_page,
                          write_tokens,
                          attend,
                          attend_backward,
                          store_key_gradients,
                          gated,
                          gated_backward,
                          rotate,
                          draw};

}  // namespace REALRL_SIMD
}  // namespace realrl
