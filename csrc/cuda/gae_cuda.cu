// Generalised advantage estimation, one warp a sequence. Free of torch: plain pointers in, a CUDA
// error code out, so that one library serves every version of torch and of Python.
#include <cuda_runtime.h>

#include "gae.h"

namespace realrl {

constexpr int kWarp = 32;
constexpr int kWarpsPerBlock = 4;
constexpr unsigned kAllLanes = 0xffffffffu;

// Lane l of a warp takes the l-th token from the end of each stretch of 32, and the recurrence
// becomes an inclusive scan over the lanes (Kogge & Stone 1973): after the round with distance k, a
// lane holds the discounted sum of 2k deltas.
__device__ double scan_warp(double sum, double discount, int lane) {
  double weight = discount;
#pragma unroll
  for (int distance = 1; distance < kWarp; distance *= 2) {
    const double later = __shfl_up_sync(kAllLanes, sum, distance);
    if (lane >= distance) sum = gae_step(sum, weight, later);
    weight *= weight;
  }
  return sum;
}

__device__ double power(double base, int exponent) {
  double result = 1.0;
  for (int i = 0; i < exponent; ++i) result *= base;
  return result;
}

__global__ void gae_kernel(GaeInput in, GaeOutput out) {
  const int lane = threadIdx.x % kWarp;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kWarpsPerBlock + threadIdx.x / kWarp;
  if (i >= in.num_sequences) return;

  const GaeSequence sequence = gae_sequence(in, out, i);
  const double discount = sequence.discount();
  const double carry_weight = power(discount, lane + 1);
  double carry = 0.0;
  for (int64_t last = sequence.length - 1; last >= 0; last -= kWarp) {
    const int64_t t = last - lane;
    const double scanned = scan_warp(t >= 0 ? sequence.delta(t) : 0.0, discount, lane);
    const double advantage = gae_step(scanned, carry_weight, carry);
    if (t >= 0) sequence.write(t, advantage);
    carry = __shfl_sync(kAllLanes, advantage, kWarp - 1);
  }
}

}  // namespace realrl

extern "C" int realrl_gae(const float *rewards, const float *values, const int32_t *cu_seqlens,
                          const bool *bootstrap, const double *lams, int64_t num_sequences,
                          double gamma, float *advantages, float *returns, void *stream) {
  using namespace realrl;
  if (num_sequences == 0) return cudaSuccess;
  const GaeInput in{rewards, values, cu_seqlens, bootstrap, lams, num_sequences, gamma};
  const GaeOutput out{advantages, returns};
  const auto blocks = static_cast<unsigned>((num_sequences + kWarpsPerBlock - 1) / kWarpsPerBlock);
  gae_kernel<<<blocks, kWarp * kWarpsPerBlock, 0, static_cast<cudaStream_t>(stream)>>>(in, out);
  return static_cast<int>(cudaGetLastError());
}

extern "C" const char *realrl_error_string(int code) {
  return cudaGetErrorString(static_cast<cudaError_t>(code));
}
