// Attention of a newest token to the spans of its keys in float32, which tensor cores would round.
//
//   a batch of keys of one K/V head, by a warp: 8, 16 or 32 lanes a key, of which each has 8 columns
//
//   scores   each lane's part of 4 heads' products, added over the key's lanes; then one head's in each lane
//   sums     each lane's columns of 4 heads, over the keys that the lane has had
#include <cuda_runtime.h>

#include "decode.h"

namespace realrl {
namespace {

constexpr int kHeads = 4;
// Keys that a lane reads at once, so that enough is under way to hide the memory's latency.
constexpr int kBatch = 4;

struct Columns {
  float4 low, high;

  __device__ float operator[](int i) const {
    const float4 &half = i < 4 ? low : high;
    return i % 4 < 2 ? (i % 4 == 0 ? half.x : half.y) : (i % 4 == 2 ? half.z : half.w);
  }
};

__device__ Columns load(const float *from, bool is_there) {
  if (!is_there) return {};
  return {reinterpret_cast<const float4 *>(from)[0], reinterpret_cast<const float4 *>(from)[1]};
}

// The lanes of a warp that share a key: enough for `head_dim`, and for one sum a head.
struct Lanes {
  int per_key, in_key, key, column;

  __device__ Lanes(int head_dim) {
    const int lane = threadIdx.x % kLanes;
    per_key = head_dim <= 8 * kVectorElements ? 8 : head_dim <= 16 * kVectorElements ? 16 : 32;
    in_key = lane % per_key;
    key = lane / per_key;
    column = in_key * kVectorElements;
  }

  __device__ int keys() const { return kLanes / per_key; }
};

// Each head's sum over the lanes of a key, in the lanes of that head: each step halves the lanes that have a
// part in common, and the heads that a lane has.
__device__ float sum_of_head(float (&x)[kHeads], const Lanes &lanes) {
  int distance = lanes.per_key / 2;
#pragma unroll
  for (int half = kHeads / 2; half > 0; half /= 2) {
    const bool is_upper = lanes.in_key & distance;
#pragma unroll
    for (int i = 0; i < half; ++i) {
      const float kept = is_upper ? x[i + half] : x[i], given = is_upper ? x[i] : x[i + half];
      x[i] = kept + __shfl_xor_sync(kAllLanes, given, distance);
    }
    distance /= 2;
  }
  for (; distance > 0; distance /= 2) x[0] += __shfl_xor_sync(kAllLanes, x[0], distance);
  return x[0];
}

// What a warp has of its heads: every lane some columns of all queries and sums, and the statistics of one head.
class Warp {
 public:
  const Lanes lanes;

  __device__ Warp(const DecodeJob &job, const float *q, int heads) : lanes(static_cast<int>(job.head_dim)) {
    const float factor = job.cap > 0 ? job.scale / job.cap : job.scale * kLog2E;
    cap_ = job.cap * kLog2E;
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      const bool is_there = h < heads && lanes.column < job.head_dim;
      const Columns columns = load(q + h * job.head_dim + lanes.column, is_there);
#pragma unroll
      for (int j = 0; j < kVectorElements; ++j) queries_[h][j] = columns[j] * factor;
    }
  }

  __device__ void begin_span() {
    largest_ = -FLT_MAX;
    sum_ = 0.0f;
#pragma unroll
    for (int i = 0; i < kHeads * kVectorElements; ++i) sums_[i / kVectorElements][i % kVectorElements] = 0.0f;
  }

  // Keys that are not seen have no weight; they are 0 here, as what is in their place may be NaN.
  __device__ void take(const Columns (&keys)[kBatch], const Columns (&values)[kBatch],
                       const bool (&is_seen)[kBatch]) {
    float scores[kBatch], found = largest_;
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      scores[i] = score(keys[i]);
      if (is_seen[i]) found = fmaxf(found, scores[i]);
    }
    rebase(found);
#pragma unroll
    for (int i = 0; i < kBatch; ++i) add(values[i], is_seen[i] ? exp2f(scores[i] - largest_) : 0.0f);
  }

  // The span's result, into the warp's part.
  __device__ void store(int head_dim, WarpResults<kHeads, kMostHeadDim> &results) {
    join_keys();
    const int number = threadIdx.x / kLanes;
    if (lanes.key > 0) return;
    if (lanes.in_key == lane_of(head())) results.statistics[number][head()] = {largest_, sum_};
    if (lanes.column >= head_dim) return;
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
#pragma unroll
      for (int j = 0; j < kVectorElements; ++j) results.sums[number][h][lanes.column + j] = sums_[h][j];
    }
  }

 private:
  // The lane of this key that has a head's statistics, and the head whose statistics this lane has.
  __device__ int lane_of(int head) const { return lanes.key * lanes.per_key + head * lanes.per_key / kHeads; }
  __device__ int head() const { return lanes.in_key * kHeads / lanes.per_key; }

  // In base 2, of the lane's head.
  __device__ float score(const Columns &key) const {
    float dots[kHeads];
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      dots[h] = 0.0f;
#pragma unroll
      for (int j = 0; j < kVectorElements; ++j) dots[h] += queries_[h][j] * key[j];
    }
    const float found = sum_of_head(dots, lanes);
    return cap_ > 0 ? cap_ * tanhf(found) : found;
  }

  __device__ void rebase(float found) {
    for (int distance = lanes.per_key; distance < kLanes; distance *= 2) {
      found = fmaxf(found, __shfl_xor_sync(kAllLanes, found, distance));
    }
    const float factor = exp2f(largest_ - found);
    largest_ = found;
    sum_ *= factor;
    // Seldom, after the first keys.
    if (!__any_sync(kAllLanes, factor != 1.0f)) return;
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      const float of_head = __shfl_sync(kAllLanes, factor, lane_of(h));
#pragma unroll
      for (int j = 0; j < kVectorElements; ++j) sums_[h][j] *= of_head;
    }
  }

  __device__ void add(const Columns &value, float weight) {
    sum_ += weight;
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      const float of_head = __shfl_sync(kAllLanes, weight, lane_of(h));
#pragma unroll
      for (int j = 0; j < kVectorElements; ++j) sums_[h][j] += of_head * value[j];
    }
  }

  // Keys that other lanes have had are added to those of the first.
  __device__ void join_keys() {
    for (int distance = lanes.per_key; distance < kLanes; distance *= 2) {
      sum_ += __shfl_xor_sync(kAllLanes, sum_, distance);
#pragma unroll
      for (int i = 0; i < kHeads * kVectorElements; ++i) {
        float &sum = sums_[i / kVectorElements][i % kVectorElements];
        sum += __shfl_xor_sync(kAllLanes, sum, distance);
      }
    }
  }

  float cap_;
  float largest_, sum_;  // the sum is of the lane's keys alone
  float queries_[kHeads][kVectorElements];
  float sums_[kHeads][kVectorElements];
};

__device__ void attend_batches(const DecodeJob &job, const BlockWork &work, const SpanPart &part, Warp &warp) {
  const int32_t *pages = job.page_table + work.sequence * job.table_width;
  const Lanes &lanes = warp.lanes;
  const int batch = kBatch * lanes.keys(), step = kDecodeWarps * batch;
  int position = (part.first / batch + static_cast<int>(threadIdx.x) / kLanes) * batch;
#pragma unroll 1
  for (; position < part.end; position += step) {
    const TileRows<float> rows(job, pages[position >> job.page_shift], position, work.kv_head);
    Columns keys[kBatch], values[kBatch];
    bool is_seen[kBatch];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const int key = lanes.key + i * lanes.keys(), at = key * rows.stride + lanes.column;
      is_seen[i] = part.first <= position + key && position + key < part.end;
      const bool is_there = is_seen[i] && lanes.column < job.head_dim;
      keys[i] = load(rows.keys + at, is_there);
      values[i] = load(rows.values + at, is_there);
    }
    warp.take(keys, values, is_seen);
  }
}

__global__ void __launch_bounds__(kDecodeThreads, 3) attend_float_kernel(DecodeJob job, Scratch scratch) {
  const BlockWork work(job, kHeads);
  const Visible visible(job, work.sequence);
  if (work.span >= visible.num_spans) return;
  __shared__ WarpResults<kHeads, kMostHeadDim> results;
  const float *q = static_cast<const float *>(job.q) + work.sequence * job.q_stride + work.first_head * job.head_dim;
  Warp warp(job, q, work.heads);
#pragma unroll 1
  for (int span = work.span; span < visible.num_spans; span += work.step) {
    warp.begin_span();
    attend_batches(job, work, SpanPart(visible, span), warp);
    warp.store(static_cast<int>(job.head_dim), results);
    __syncthreads();
    store_span(job, work, span, results, scratch);
    __syncthreads();
  }
}

}  // namespace

cudaError_t attend_spans_float32(const DecodeJob &job, const Scratch &scratch, cudaStream_t stream) {
  attend_float_kernel<<<span_blocks(job, kHeads), kDecodeThreads, 0, stream>>>(job, scratch);
  return cudaGetLastError();
}

}  // namespace realrl
