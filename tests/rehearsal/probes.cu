// Kernels that show what the shim's own functions do; test_shim.py knows what CUDA's do.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "tensor_cores.h"

namespace {

__global__ void shuffle_kernel(int which, int argument, int width, int *out) {
  const int lane = threadIdx.x % 32, value = static_cast<int>(threadIdx.x) * 10;
  if (which == 0) out[threadIdx.x] = __shfl_up_sync(0xffffffffu, value, argument, width);
  if (which == 1) out[threadIdx.x] = __shfl_down_sync(0xffffffffu, value, argument, width);
  if (which == 2) out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, value, argument, width);
  if (which == 3) out[threadIdx.x] = __shfl_sync(0xffffffffu, value, argument, width);
  // Each half of the warp for itself.
  const unsigned half = lane < 16 ? 0x0000ffffu : 0xffff0000u;
  if (which == 4) out[threadIdx.x] = static_cast<int>(__ballot_sync(half, lane % argument == 0));
}

// Lane 0 leaves a value to its neighbours, with or without an order.
__global__ void exchange_kernel(int is_ordered, int *out) {
  __shared__ int values[32];
  values[threadIdx.x] = threadIdx.x;
  if (is_ordered == 1) __syncwarp();
  // A shuffle is no order.
  if (is_ordered == 2) __shfl_sync(0xffffffffu, 0, 0);
  out[threadIdx.x] = values[threadIdx.x ^ 1];
}

__global__ void dynamic_kernel(int count, float *out) {
  extern __shared__ float buffer[];
  __shared__ float scale;
  if (threadIdx.x == 0) scale = 2.0f;
  for (int i = threadIdx.x; i < count; i += blockDim.x) buffer[i] = static_cast<float>(i);
  __syncthreads();
  for (int i = threadIdx.x; i < count; i += blockDim.x) out[i] = scale * buffer[count - 1 - i];
}

__global__ void blocks_kernel(int *out) {
  const dim3 grid = gridDim, block = blockDim;
  const unsigned number = blockIdx.x + grid.x * (blockIdx.y + grid.y * blockIdx.z);
  const unsigned thread = threadIdx.x + block.x * (threadIdx.y + block.y * threadIdx.z);
  out[number * block.x * block.y * block.z + thread] = static_cast<int>(1000 * number + thread);
}

__global__ void count_kernel(int *sum, int *largest) {
  atomicAdd(sum, 1);
  atomicMax(largest, static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x));
}

// Fragments as rows of a lane each.
template <class T>
__global__ void multiply_kernel(const uint32_t *a, const uint32_t *b, float *c) {
  const unsigned lane = threadIdx.x;
  float sums[4];
  uint32_t left[4], right[2];
  for (int i = 0; i < 4; ++i) sums[i] = c[lane * 4 + i];
  for (int i = 0; i < 4; ++i) left[i] = a[lane * 4 + i];
  for (int i = 0; i < 2; ++i) right[i] = b[lane * 2 + i];
  realrl::multiply_add<T>(sums, left, right);
  for (int i = 0; i < 4; ++i) c[lane * 4 + i] = sums[i];
}

__global__ void bytes_kernel(unsigned low, unsigned high, unsigned selector, unsigned *out) {
  *out = __byte_perm(low, high, selector);
}

__global__ void halves_kernel(const float *x, uint16_t *rounded, float *back) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const __nv_bfloat16 found = __float2bfloat16_rn(x[i]);
  rounded[i] = found.bits;
  back[i] = __bfloat162float(found);
}

}  // namespace

extern "C" int probe_shuffle(int which, int argument, int width, int *out, void *stream) {
  shuffle_kernel<<<1, 64, 0, stream>>>(which, argument, width, out);
  return cudaGetLastError();
}

extern "C" int probe_exchange(int is_ordered, int *out, void *stream) {
  exchange_kernel<<<1, 32, 0, stream>>>(is_ordered, out);
  return cudaGetLastError();
}

extern "C" int probe_dynamic(int count, int bytes, int most_bytes, float *out, void *stream) {
  const cudaError_t error =
      cudaFuncSetAttribute(dynamic_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most_bytes);
  if (error != cudaSuccess) return error;
  dynamic_kernel<<<1, 64, bytes, stream>>>(count, out);
  return cudaGetLastError();
}

extern "C" int probe_blocks(int *out, void *stream) {
  blocks_kernel<<<dim3(3, 2, 2), dim3(4, 3, 2), 0, stream>>>(out);
  return cudaGetLastError();
}

extern "C" int probe_count(int blocks, int threads, int *sum, int *largest, void *stream) {
  count_kernel<<<blocks, threads, 0, stream>>>(sum, largest);
  return cudaGetLastError();
}

extern "C" int probe_multiply(const uint32_t *a, const uint32_t *b, float *c, void *stream) {
  multiply_kernel<__nv_bfloat16><<<1, 32, 0, stream>>>(a, b, c);
  return cudaGetLastError();
}

extern "C" int probe_bytes(unsigned low, unsigned high, unsigned selector, unsigned *out, void *stream) {
  bytes_kernel<<<1, 1, 0, stream>>>(low, high, selector, out);
  return cudaGetLastError();
}

extern "C" int probe_halves(const float *x, int64_t count, uint16_t *rounded, float *back, void *stream) {
  halves_kernel<<<static_cast<unsigned>(count / 64), 64, 0, stream>>>(x, rounded, back);
  return cudaGetLastError();
}

extern "C" const char *realrl_error_string(int code) {
  return cudaGetErrorString(static_cast<cudaError_t>(code));
}
