// Attention of each sequence's newest token over pages of keys and values. Free of torch, as gae_cuda.cu is.
//
//   keys of a sequence   | span 0    | span 1    | span 2 |    512 positions each, or more, by its length alone
//   attend_spans_*         block       block       block       one for each K/V head, and for some of its
//                          |           |           |           query heads; its warps share a span's keys
//   scratch                sums and statistics of each span
//                                      |
//   combine_kernel                   block                     one for each query head
//
// Spans lie at fixed positions, so a sequence's result has the same bits whatever other sequences there are, and
// however wide the page table is.
// Source: Dao et al. 2023, "Flash-Decoding for long-context inference"; the sums are those of a softmax in base 2.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "decode.h"

namespace realrl {
namespace {

// A lane has 4 columns, and those 128 further, up to the largest head.
constexpr int kLaneColumns = kMostHeadDim / kLanes;
constexpr int kStep = 4 * kLanes;
// Sums that a lane reads at once.
constexpr int kUnderWay = 4;

enum NumberType : int { kIsFloat32 = 1, kIsBFloat16 = 2 };

__device__ void narrowed(float x, float *to) { *to = x; }
__device__ void narrowed(float x, __nv_bfloat16 *to) { *to = __float2bfloat16_rn(x); }

__device__ float largest_of_warp(float x) {
  for (int distance = kLanes / 2; distance > 0; distance /= 2) {
    x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, distance));
  }
  return x;
}

__device__ float sum_of_warp(float x) {
  for (int distance = kLanes / 2; distance > 0; distance /= 2) x += __shfl_xor_sync(kAllLanes, x, distance);
  return x;
}

// The spans of one query head.
struct HeadSpans {
  const SpanStatistics *statistics;
  const float *sums;
  int count, head_dim;
  float largest;

  __device__ HeadSpans(const DecodeJob &job, const Scratch &scratch, int64_t row)
      : statistics(scratch.statistics + row * job.spans()),
        sums(scratch.sums + row * job.spans() * job.head_dim),
        count(Visible(job, row / job.num_heads).num_spans),
        head_dim(static_cast<int>(job.head_dim)),
        largest(-FLT_MAX) {
    for (int i = threadIdx.x % kLanes; i < count; i += kLanes) largest = fmaxf(largest, statistics[i].largest);
    largest = largest_of_warp(largest);
  }

  __device__ float factor(int span) const { return exp2f(statistics[span].largest - largest); }

  __device__ float weight() const {
    float weight = 0.0f;
    for (int i = threadIdx.x % kLanes; i < count; i += kLanes) weight += factor(i) * statistics[i].sum;
    return sum_of_warp(weight);
  }

  // Every fourth span, by a warp.
  __device__ void add_to(float (&columns)[kLaneColumns]) const {
    const int first = static_cast<int>(threadIdx.x % kLanes) * 4;
#pragma unroll kUnderWay
    for (int span = threadIdx.x / kLanes; span < count; span += kDecodeWarps) {
      const float of_span = factor(span);
#pragma unroll
      for (int i = 0; i < kLaneColumns / 4; ++i) {
        const int column = first + i * kStep;
        if (column >= head_dim) continue;
        const float4 found = *reinterpret_cast<const float4 *>(sums + span * head_dim + column);
        columns[4 * i] += of_span * found.x;
        columns[4 * i + 1] += of_span * found.y;
        columns[4 * i + 2] += of_span * found.z;
        columns[4 * i + 3] += of_span * found.w;
      }
    }
  }
};

template <class T>
__global__ void __launch_bounds__(kDecodeThreads) combine_kernel(DecodeJob job, Scratch scratch, T *out) {
  const int64_t row = blockIdx.x;
  const HeadSpans spans(job, scratch, row);
  float columns[kLaneColumns] = {};
  spans.add_to(columns);
  __shared__ float sums[kDecodeWarps][kMostHeadDim];
#pragma unroll
  for (int i = 0; i < kLaneColumns; ++i) {
    const int column = static_cast<int>(threadIdx.x % kLanes) * 4 + i / 4 * kStep + i % 4;
    sums[threadIdx.x / kLanes][column] = columns[i];
  }
  const float weight = spans.weight();
  __syncthreads();
  for (int column = threadIdx.x; column < spans.head_dim; column += kDecodeThreads) {
    float sum = 0.0f;
#pragma unroll
    for (int w = 0; w < kDecodeWarps; ++w) sum += sums[w][column];
    narrowed(sum / weight, out + row * job.head_dim + column);
  }
}

template <class T>
cudaError_t combine(const DecodeJob &job, const Scratch &scratch, void *out, cudaStream_t stream) {
  const auto rows = static_cast<unsigned>(job.batch * job.num_heads);
  combine_kernel<T><<<rows, kDecodeThreads, 0, stream>>>(job, scratch, static_cast<T *>(out));
  return cudaGetLastError();
}

cudaError_t attend_pages(const DecodeJob &job, const Scratch &scratch, int type, void *out, cudaStream_t stream) {
  cudaError_t error = cudaErrorInvalidValue;
  if (type == kIsFloat32) error = attend_spans_float32(job, scratch, stream);
  if (type == kIsBFloat16) error = attend_spans_bfloat16(job, scratch, stream);
  if (error != cudaSuccess) return error;
  if (type == kIsFloat32) return combine<float>(job, scratch, out, stream);
  return combine<__nv_bfloat16>(job, scratch, out, stream);
}

// The shift for pages of so many tokens; -1 where there is none.
int page_shift(int64_t page_tokens) {
  int shift = 0;
  while (1 << shift < kMostPage && 1 << shift < page_tokens) ++shift;
  return 1 << shift == page_tokens && page_tokens >= kTileKeys ? shift : -1;
}

bool fits(const DecodeJob &job) {
  const bool has_heads = job.num_kv_heads > 0 && job.num_heads > 0 && job.num_heads % job.num_kv_heads == 0;
  const bool has_size = job.head_dim > 0 && job.head_dim <= kMostHeadDim && job.head_dim % kVectorElements == 0;
  return has_heads && has_size && job.page_shift >= 0 && job.window > 0 && job.table_width > 0;
}

}  // namespace
}  // namespace realrl

// Floats of `scratch` that a call with these sizes needs.
extern "C" int64_t realrl_attend_pages_scratch(int64_t batch, int64_t num_heads, int64_t head_dim,
                                               int64_t page_tokens, int64_t table_width, int64_t window) {
  realrl::DecodeJob job{};
  job.page_shift = realrl::page_shift(page_tokens);
  if (job.page_shift < 0) return 0;
  job.table_width = table_width;
  job.window = window;
  return batch * num_heads * job.spans() * (head_dim + 2);
}

extern "C" int realrl_attend_pages(const void *q, int64_t q_stride, const void *keys, const void *values,
                                   const int32_t *page_table, const int64_t *lengths, int64_t batch,
                                   int64_t num_heads, int64_t num_kv_heads, int64_t head_dim, int64_t page_tokens,
                                   int64_t table_width, float scale, float cap, int64_t window, int type,
                                   float *scratch, void *out, void *stream) {
  using namespace realrl;
  const DecodeJob job{q,         keys,         values,   page_table, lengths,     batch,
                      num_heads, num_kv_heads, head_dim, q_stride,   table_width, window,
                      page_shift(page_tokens), scale, cap};
  if (!fits(job)) return cudaErrorInvalidValue;
  if (batch == 0) return cudaSuccess;
  const int64_t num_sums = batch * num_heads * job.spans() * head_dim;
  const Scratch parts{scratch, reinterpret_cast<SpanStatistics *>(scratch + num_sums)};
  return attend_pages(job, parts, type, out, static_cast<cudaStream_t>(stream));
}
