// What the kernels for decoding share: the job, a sequence's spans, and the way to a span's result.
#pragma once

#include <cuda_runtime.h>

#include <cfloat>
#include <cstdint>

namespace realrl {

constexpr int kLanes = 32;
constexpr int kDecodeWarps = 4;
constexpr int kDecodeThreads = kDecodeWarps * kLanes;
constexpr unsigned kAllLanes = 0xffffffffu;

constexpr int kLeastSpanShift = 9;
// A longer sequence has longer spans, so that the scratch memory has a bound.
constexpr int kMostSpans = 64;
// Keys that a warp takes at once lie in one page.
constexpr int kTileKeys = 16;
constexpr int kMostPage = 256;
constexpr int kMostHeadDim = 256;
// Elements of 16 bits in 16 bytes, the widest access to memory.
constexpr int kVectorElements = 8;
// Several for each place on a large device: 132 processors have room for some 400 blocks. More of them would
// divide the work more evenly, and cost more where sequences are short and blocks exit at once.
constexpr int64_t kWantedBlocks = 4096;
// Scores are in base 2, as the device's exponential is.
constexpr float kLog2E = 1.4426950408889634f;

// Shapes: B sequences, Q query heads, K key/value heads, D head size, P pages a sequence at most.
struct DecodeJob {
  const void *q;              // [B, Q, D], sequences `q_stride` elements apart
  const void *keys, *values;  // [pages, page tokens, K, D]
  const int32_t *page_table;  // [B, P]
  const int64_t *lengths;     // [B]
  int64_t batch, num_heads, num_kv_heads, head_dim, q_stride, table_width, window;
  int page_shift;    // a page has 2^page_shift tokens
  float scale, cap;  // no cap where it is 0

  __host__ __device__ int64_t group() const { return num_heads / num_kv_heads; }
  __host__ __device__ int64_t table_tokens() const { return table_width << page_shift; }

  // Spans that a sequence has room for. One more than its tokens fill, as a window may begin within a span.
  __host__ __device__ int64_t spans() const {
    const int64_t tokens = table_tokens() < window ? table_tokens() : window;
    const int64_t filled = (tokens + (1 << kLeastSpanShift) - 1) >> kLeastSpanShift;
    return (filled < kMostSpans ? filled : kMostSpans) + 1;
  }
};

// What a span's keys give to one query head: the sum of 2^(score - largest); with the values, it is `sums`.
struct alignas(8) SpanStatistics {
  float largest, sum;
};

struct Scratch {
  float *sums;                 // [B, Q, spans, D]
  SpanStatistics *statistics;  // [B, Q, spans]
};

// Positions of a sequence that its newest token sees, no more than its row of the table has pages for, and the
// spans of 2^span_shift positions that they lie in. These depend on nothing but the sequence's length.
struct Visible {
  int first, end;
  int span_shift, first_span, num_spans;

  __device__ Visible(const DecodeJob &job, int64_t sequence) {
    const int64_t length = job.lengths[sequence], most = job.table_tokens();
    end = static_cast<int>(length < most ? length : most);
    first = end > job.window ? end - static_cast<int>(job.window) : 0;
    span_shift = kLeastSpanShift;
    while ((end - first - 1) >> span_shift >= kMostSpans) ++span_shift;
    first_span = first >> span_shift;
    num_spans = end > 0 ? ((end - 1) >> span_shift) - first_span + 1 : 0;
  }
};

// The positions of a sequence's i-th span that are seen.
struct SpanPart {
  int first, end;

  __device__ SpanPart(const Visible &visible, int i) {
    const int begin = (visible.first_span + i) << visible.span_shift;
    const int left = visible.end - begin, most = 1 << visible.span_shift;
    first = begin < visible.first ? visible.first : begin;
    end = begin + (left < most ? left : most);
  }
};

// A block's work: every `step`-th span of a sequence, from `span` on, for some query heads of one K/V head.
// Blocks for the same keys are neighbours, so that all but one find them in the L2 cache. Blocks for the first
// spans, which have most work, begin first.
struct BlockWork {
  int64_t sequence;
  int kv_head, first_head, heads, span, step;

  __device__ BlockWork(const DecodeJob &job, int most_heads) {
    const int number = static_cast<int>(blockIdx.x), batch = static_cast<int>(job.batch);
    const int group = static_cast<int>(job.group()), num_kv_heads = static_cast<int>(job.num_kv_heads);
    const int parts = (group + most_heads - 1) / most_heads;
    const int in_group = number % parts * most_heads, of_sequence = parts * num_kv_heads;
    kv_head = number / parts % num_kv_heads;
    sequence = number / of_sequence % batch;
    span = number / of_sequence / batch;
    step = static_cast<int>(gridDim.x) / of_sequence / batch;
    first_head = kv_head * group + in_group;
    heads = group - in_group < most_heads ? group - in_group : most_heads;
  }
};

// How many blocks `BlockWork` asks for, by sizes alone: a graph that holds the launch serves all lengths.
inline unsigned span_blocks(const DecodeJob &job, int most_heads) {
  const int64_t parts = (job.group() + most_heads - 1) / most_heads;
  const int64_t least = job.batch * job.num_kv_heads * parts;
  const int64_t wanted = (kWantedBlocks + least - 1) / least;
  return static_cast<unsigned>(least * (wanted < job.spans() ? wanted : job.spans()));
}

// Where a tile's first key and value are, of one K/V head; the next ones are `stride` elements apart.
template <class T>
struct TileRows {
  const T *keys, *values;
  int stride;

  __device__ TileRows(const DecodeJob &job, int64_t page, int position, int kv_head) {
    const int in_page = position & ((1 << job.page_shift) - 1);
    const int64_t token = (page << job.page_shift) + in_page;
    stride = static_cast<int>(job.num_kv_heads * job.head_dim);
    const int64_t at = token * stride + kv_head * job.head_dim;
    keys = static_cast<const T *>(job.keys) + at;
    values = static_cast<const T *>(job.values) + at;
  }
};

// What each warp of a block has found of a span.
template <int kHeads, int kDim>
struct WarpResults {
  float sums[kDecodeWarps][kHeads][kDim];
  SpanStatistics statistics[kDecodeWarps][kHeads];
};

// The warps' results as one, for the block's heads.
template <int kHeads, int kDim>
__device__ void store_span(const DecodeJob &job, const BlockWork &work, int span,
                           const WarpResults<kHeads, kDim> &results, const Scratch &scratch) {
  const int dim = static_cast<int>(job.head_dim);
  for (int i = threadIdx.x; i < work.heads * dim; i += kDecodeThreads) {
    const int head = i / dim, column = i - head * dim;
    float largest = -FLT_MAX, weight = 0.0f, sum = 0.0f;
#pragma unroll
    for (int w = 0; w < kDecodeWarps; ++w) largest = fmaxf(largest, results.statistics[w][head].largest);
#pragma unroll
    for (int w = 0; w < kDecodeWarps; ++w) {
      const float factor = exp2f(results.statistics[w][head].largest - largest);
      weight += factor * results.statistics[w][head].sum;
      sum += factor * results.sums[w][head][column];
    }
    const int64_t row = work.sequence * job.num_heads + work.first_head + head;
    const int64_t place = row * job.spans() + span;
    scratch.sums[place * dim + column] = sum;
    if (column == 0) scratch.statistics[place] = {largest, weight};
  }
}

// Each span's statistics and sums, by decode_float_cuda.cu and decode_half_cuda.cu.
cudaError_t attend_spans_float32(const DecodeJob &job, const Scratch &scratch, cudaStream_t stream);
cudaError_t attend_spans_bfloat16(const DecodeJob &job, const Scratch &scratch, cudaStream_t stream);

}  // namespace realrl
