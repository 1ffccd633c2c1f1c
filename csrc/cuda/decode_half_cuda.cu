// Attention of a newest token to the spans of its keys by tensor cores, in bfloat16.
//
//   a tile of 16 keys of one K/V head, by a warp; lane 4g + t:
//
//   scores [8 heads, 16 keys]  =  queries [8 heads, D]   keys^T [D, 16 keys]      has head g, 4 keys by t
//   sums^T [D, 8 heads]       +=  values^T [D, 16 keys]  weights^T [16 keys, 8]   has heads 2t and 2t + 1
//
// Keys, values and weights stay in the lane that reads or finds them, without shared memory:
//   a score may add the columns of D in any order, so that a lane reads 16 bytes in a row of a key;
//   sums^T may have its rows in any order, so that a lane reads 16 bytes in a row of a value;
//   a weight is wanted in the lane that has found its score.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstring>

#include "decode.h"
#include "tensor_cores.h"

namespace realrl {
namespace {

constexpr int kHeads = 8;
// Columns that a warp reads at once: of 8 keys by 4 lanes each, and of 4 values by 8 lanes each.
constexpr int kKeyColumns = 4 * kVectorElements, kValueColumns = 8 * kVectorElements;

using Vector = uint32_t[4];

__device__ void load(const void *from, bool is_there, Vector &to) {
  const uint4 found = is_there ? *static_cast<const uint4 *>(from) : uint4{0, 0, 0, 0};
  to[0] = found.x, to[1] = found.y, to[2] = found.z, to[3] = found.w;
}

template <class Pair>
__device__ uint32_t bits_of(const Pair &pair) {
  uint32_t bits;
  memcpy(&bits, &pair, sizeof bits);
  return bits;
}

template <class T>
__device__ uint32_t pair_of(float low, float high);
template <>
__device__ uint32_t pair_of<__nv_bfloat16>(float low, float high) {
  return bits_of(__floats2bfloat162_rn(low, high));
}

__device__ uint32_t lower_halves(uint32_t a, uint32_t b) { return __byte_perm(a, b, 0x5410); }
__device__ uint32_t upper_halves(uint32_t a, uint32_t b) { return __byte_perm(a, b, 0x7632); }

// The keys of a tile that are seen.
struct Seen {
  int first, end;

  __device__ Seen(const SpanPart &part, int position)
      : first(part.first - position), end(part.end - position) {}

  __device__ bool has(int key) const { return first <= key && key < end; }
};

// The i-th of the keys whose scores and values a lane has.
__device__ int key_of(int t, int i) { return 2 * t + i % 2 + i / 2 * 8; }

// A lane's part of a tile. What is not seen, or past the head's size, is 0: it may be NaN in memory.
template <class T, int kDim>
struct Tile {
  Vector keys[2][kDim / kKeyColumns];      // of keys g and g + 8
  Vector values[4][kDim / kValueColumns];  // of 4 keys by t

  __device__ Tile(const TileRows<T> &rows, const Seen &seen, int g, int t, int head_dim) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int key = g + 8 * i;
      const T *row = rows.keys + key * rows.stride;
#pragma unroll
      for (int c = 0; c < kDim / kKeyColumns; ++c) {
        const int column = c * kKeyColumns + t * kVectorElements;
        load(row + column, seen.has(key) && column < head_dim, keys[i][c]);
      }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int key = key_of(t, i);
      const T *row = rows.values + key * rows.stride;
#pragma unroll
      for (int c = 0; c < kDim / kValueColumns; ++c) {
        const int column = c * kValueColumns + g * kVectorElements;
        load(row + column, seen.has(key) && column < head_dim, values[i][c]);
      }
    }
  }
};

// What a warp has of its heads. Rows of queries beyond `heads` are 0, and what comes of them is not kept.
template <class T, int kDim>
class Warp {
 public:
  const int g, t;

  __device__ Warp(const DecodeJob &job, const T *q, int heads)
      : g(threadIdx.x % kLanes / 4), t(threadIdx.x % 4), head_dim_(static_cast<int>(job.head_dim)) {
    factor_ = job.cap > 0 ? job.scale / job.cap : job.scale * kLog2E;
    cap_ = job.cap * kLog2E;
#pragma unroll
    for (int c = 0; c < kDim / kKeyColumns; ++c) {
      const int column = c * kKeyColumns + t * kVectorElements;
      load(q + g * job.head_dim + column, g < heads && column < head_dim_, queries_[c]);
    }
  }

  __device__ void begin_span() {
    largest_ = -FLT_MAX;
    sum_ = 0.0f;
#pragma unroll
    for (int c = 0; c < kDim / kValueColumns; ++c) {
#pragma unroll
      for (int i = 0; i < 16; ++i) sums_[c][i / 4][i % 4] = 0.0f;
    }
  }

  __device__ void take(const TileRows<T> &rows, const Seen &seen) {
    const Tile<T, kDim> tile(rows, seen, g, t, head_dim_);
    float scores[4];
    find_scores(tile, scores);
    rebase(bound_scores(scores, seen));
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      scores[i] = seen.has(key_of(t, i)) ? exp2f(scores[i] - largest_) : 0.0f;
      sum_ += scores[i];
    }
    const uint32_t weights[2] = {pair_of<T>(scores[0], scores[1]), pair_of<T>(scores[2], scores[3])};
    add_values(tile, weights);
  }

  // The span's result, into the warp's part.
  __device__ void store(WarpResults<kHeads, kDim> &results) {
    const int number = threadIdx.x / kLanes;
    sum_ += __shfl_xor_sync(kAllLanes, sum_, 1);
    sum_ += __shfl_xor_sync(kAllLanes, sum_, 2);
    if (t == 0) results.statistics[number][g] = {largest_, sum_};
#pragma unroll
    for (int c = 0; c < kDim / kValueColumns; ++c) {
#pragma unroll
      for (int i = 0; i < 16; ++i) {
        const int column = c * kValueColumns + g * kVectorElements + i / 4 * 2 + i % 4 / 2;
        results.sums[number][2 * t + i % 2][column] = sums_[c][i / 4][i % 4];
      }
    }
  }

 private:
  // Scores of head g and 4 keys by t. A product takes 16 of 32 columns of D, which are half of each lane's 8. A
  // product has room for 16 heads, and there are 8: the other rows of `a` hold the other half of the queries'
  // columns, and what they give is not read. So queries lie in registers as they were read.
  __device__ void find_scores(const Tile<T, kDim> &tile, float (&scores)[4]) const {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float even[4] = {}, odd[4] = {};
#pragma unroll
      for (int c = 0; c < kDim / kKeyColumns; ++c) {
        const Vector &key = tile.keys[i][c];
        const uint32_t evens[2] = {key[0], key[2]}, odds[2] = {key[1], key[3]};
        multiply_add<T>(even, queries_[c], evens);
        multiply_add<T>(odd, queries_[c], odds);
      }
      scores[2 * i] = even[0] + odd[2];
      scores[2 * i + 1] = even[1] + odd[3];
    }
  }

  // Scores in base 2; returns the largest that the head has had.
  __device__ float bound_scores(float (&scores)[4], const Seen &seen) const {
    float found = largest_;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      scores[i] *= factor_;
      if (cap_ > 0) scores[i] = cap_ * tanhf(scores[i]);
      if (seen.has(key_of(t, i))) found = fmaxf(found, scores[i]);
    }
    found = fmaxf(found, __shfl_xor_sync(kAllLanes, found, 1));
    return fmaxf(found, __shfl_xor_sync(kAllLanes, found, 2));
  }

  __device__ void rebase(float found) {
    const float factor = exp2f(largest_ - found);
    largest_ = found;
    sum_ *= factor;
    // Seldom, after the first tiles.
    if (!__any_sync(kAllLanes, factor != 1.0f)) return;
    const float even = __shfl_sync(kAllLanes, factor, 8 * t), odd = __shfl_sync(kAllLanes, factor, 8 * t + 4);
#pragma unroll
    for (int c = 0; c < kDim / kValueColumns; ++c) {
#pragma unroll
      for (int i = 0; i < 16; ++i) sums_[c][i / 4][i % 4] *= i % 2 ? odd : even;
    }
  }

  // A lane's 8 columns of values are the rows g and g + 8 of 4 products.
  __device__ void add_values(const Tile<T, kDim> &tile, const uint32_t (&weights)[2]) {
#pragma unroll
    for (int c = 0; c < kDim / kValueColumns; ++c) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const uint32_t keys[4] = {tile.values[0][c][j], tile.values[1][c][j], tile.values[2][c][j],
                                  tile.values[3][c][j]};
        const uint32_t a[4] = {lower_halves(keys[0], keys[1]), upper_halves(keys[0], keys[1]),
                               lower_halves(keys[2], keys[3]), upper_halves(keys[2], keys[3])};
        multiply_add<T>(sums_[c][j], a, weights);
      }
    }
  }

  int head_dim_;
  float factor_, cap_;
  float largest_, sum_;  // of head g; the sum is of the lane's keys alone
  Vector queries_[kDim / kKeyColumns];
  float sums_[kDim / kValueColumns][4][4];
};

template <class T, int kDim>
__device__ void attend_tiles(const DecodeJob &job, const BlockWork &work, const SpanPart &part,
                             Warp<T, kDim> &warp) {
  const int32_t *pages = job.page_table + work.sequence * job.table_width;
  const int step = kDecodeWarps * kTileKeys;
  int position = (part.first / kTileKeys + threadIdx.x / kLanes) * kTileKeys;
  int32_t page = position < part.end ? pages[position >> job.page_shift] : 0;
#pragma unroll 1
  for (; position < part.end; position += step) {
    const TileRows<T> rows(job, page, position, work.kv_head);
    // The next page's number is there before its keys are wanted.
    if (position + step < part.end) page = pages[(position + step) >> job.page_shift];
    warp.take(rows, Seen(part, position));
  }
}

// Blocks that a processor has room for, by their registers.
template <int kDim>
constexpr int kBlocks = kDim == 64 ? 4 : kDim == 128 ? 3 : 2;

template <class T, int kDim>
__global__ void __launch_bounds__(kDecodeThreads, kBlocks<kDim>) attend_half_kernel(DecodeJob job, Scratch scratch) {
  const BlockWork work(job, kHeads);
  const Visible visible(job, work.sequence);
  if (work.span >= visible.num_spans) return;
  __shared__ WarpResults<kHeads, kDim> results;
  const T *q = static_cast<const T *>(job.q) + work.sequence * job.q_stride + work.first_head * job.head_dim;
  Warp<T, kDim> warp(job, q, work.heads);
#pragma unroll 1
  for (int span = work.span; span < visible.num_spans; span += work.step) {
    warp.begin_span();
    attend_tiles(job, work, SpanPart(visible, span), warp);
    warp.store(results);
    __syncthreads();
    store_span(job, work, span, results, scratch);
    __syncthreads();
  }
}

template <class T, int kDim>
cudaError_t launch(const DecodeJob &job, const Scratch &scratch, cudaStream_t stream) {
  attend_half_kernel<T, kDim><<<span_blocks(job, kHeads), kDecodeThreads, 0, stream>>>(job, scratch);
  return cudaGetLastError();
}

template <class T>
cudaError_t attend_spans(const DecodeJob &job, const Scratch &scratch, cudaStream_t stream) {
  if (job.head_dim <= 64) return launch<T, 64>(job, scratch, stream);
  if (job.head_dim <= 128) return launch<T, 128>(job, scratch, stream);
  return launch<T, kMostHeadDim>(job, scratch, stream);
}

}  // namespace

cudaError_t attend_spans_bfloat16(const DecodeJob &job, const Scratch &scratch, cudaStream_t stream) {
  return attend_spans<__nv_bfloat16>(job, scratch, stream);
}

}  // namespace realrl
