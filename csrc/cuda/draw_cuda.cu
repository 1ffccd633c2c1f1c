// One token a row of logits, by a number in [0, 1): where the cumulative weights exp(x / temperature) pass it.
// One block a row; a row is cut into chunks, one a warp, whose sums are float64 and always in the same order:
//
//   columns  | warp 0 | warp 1 | ... | warp 15 |
//
//   1. the largest logit, then the weight of each chunk         every warp reads its chunk
//   2. the chunk in which the sum passes the number             from the chunks' weights
//   3. the token in it                                          its warp reads the chunk again
//
// With top-p below 1, weights count only in the nucleus: the smallest set of the likeliest tokens that has a
// share `top_p` of the sum, of equal logits those of the first columns. Its least logit is found by bisection.
// Free of torch, as gae_cuda.cu is.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace realrl {
namespace {

constexpr int kDrawLanes = 32;
constexpr int kDrawWarps = 16;
constexpr int kDrawThreads = kDrawLanes * kDrawWarps;
constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int kVectorBytes = 16;
// Of a logit's key, found in one pass over the row: each needs a sum for each of its values but the least.
constexpr int kBitsPerPass = 2;
constexpr int kCandidates = (1 << kBitsPerPass) - 1;

__device__ float widen(float x) { return x; }
__device__ float widen(__nv_bfloat16 x) { return __bfloat162float(x); }

__device__ int lane() { return static_cast<int>(threadIdx.x) % kDrawLanes; }
__device__ int warp() { return static_cast<int>(threadIdx.x) / kDrawLanes; }

// Larger for larger logits. A bfloat16 needs the upper half alone.
template <class T>
__device__ uint32_t key_of(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  const uint32_t key = bits >> 31 ? ~bits : bits | 0x80000000u;
  return key >> (32 - 8 * sizeof(T));
}

// Neighbouring logits, in one access where rows begin at multiples of its size.
template <class T, int kWidth>
struct alignas(sizeof(T) * kWidth) LogitVector {
  T elements[kWidth];
};

template <class T, int kWidth>
struct DrawRow {
  const T *logits;
  int64_t width;
  float inverse_temperature, largest;

  static constexpr int kTile = kDrawLanes * kWidth;

  // The chunk of a warp is [begin(warp), begin(warp + 1)); it may be empty.
  __device__ int64_t begin(int of_warp) const {
    const int64_t tiles = (width + kTile - 1) / kTile;
    const int64_t chunk = (tiles + kDrawWarps - 1) / kDrawWarps * kTile;
    return of_warp * chunk < width ? of_warp * chunk : width;
  }
  // Calls `take(column, logit)` for this lane's logits of a tile.
  template <class Take>
  __device__ void each_of_tile(int64_t tile, Take take) const {
    const int64_t first = tile + lane() * kWidth;
    if (first >= width) return;
    const auto vector = *reinterpret_cast<const LogitVector<T, kWidth> *>(logits + first);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) take(first + j, widen(vector.elements[j]));
  }
  // Calls it for this lane's logits of its warp's chunk.
  template <class Take>
  __device__ void each(Take take) const {
    const int64_t end = begin(warp() + 1);
    for (int64_t tile = begin(warp()); tile < end; tile += kTile) each_of_tile(tile, take);
  }
  // Nothing for a logit of minus infinity.
  __device__ float weight(float x) const { return expf((x - largest) * inverse_temperature); }
};

// Every token.
struct Everything {
  __device__ bool has(int64_t, float) const { return true; }
};

// Logits of this key and above.
template <class T>
struct AtLeast {
  uint32_t key;
  __device__ bool has(int64_t, float x) const { return key_of<T>(x) >= key; }
};

// Logits of one key.
template <class T>
struct Equal {
  uint32_t key;
  __device__ bool has(int64_t, float x) const { return key_of<T>(x) == key; }
};

// Logits above a key, and those of it up to a column.
template <class T>
struct Nucleus {
  uint32_t key;
  int64_t last_column;
  __device__ bool has(int64_t column, float x) const {
    const uint32_t own = key_of<T>(x);
    return own > key || (own == key && column <= last_column);
  }
};

struct DrawShared {
  double chunks[kDrawWarps];
  float largest[kDrawWarps];
  int64_t column;
};

// In every lane the same bits: at each level, both of a pair add the same two numbers.
__device__ double warp_sum(double x) {
#pragma unroll
  for (int distance = kDrawLanes / 2; distance > 0; distance /= 2) x += __shfl_xor_sync(kAllLanes, x, distance);
  return x;
}

// The sum over the block, in every thread; the chunks' own sums stay in shared memory until the next call.
__device__ double block_sum(double x, DrawShared &shared) {
  x = warp_sum(x);
  __syncthreads();  // the sums of the call before have been read
  if (lane() == 0) shared.chunks[warp()] = x;
  __syncthreads();
  double total = 0.0;
  for (int i = 0; i < kDrawWarps; ++i) total += shared.chunks[i];
  return total;
}

template <class Row>
__device__ float largest_logit(const Row &row, DrawShared &shared) {
  float top = -FLT_MAX;
  row.each([&](int64_t, float x) { top = fmaxf(top, x); });
#pragma unroll
  for (int distance = kDrawLanes / 2; distance > 0; distance /= 2) {
    top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, distance));
  }
  if (lane() == 0) shared.largest[warp()] = top;
  __syncthreads();
  for (int i = 0; i < kDrawWarps; ++i) top = fmaxf(top, shared.largest[i]);
  return top;
}

template <class Row, class Set>
__device__ double lane_weight_of_tile(const Row &row, Set set, int64_t tile) {
  double sum = 0.0;
  row.each_of_tile(tile, [&](int64_t column, float x) {
    if (set.has(column, x)) sum += row.weight(x);
  });
  return sum;
}

template <class Row, class Set>
__device__ double weight_of(const Row &row, Set set, DrawShared &shared) {
  double sum = 0.0;
  row.each([&](int64_t column, float x) {
    if (set.has(column, x)) sum += row.weight(x);
  });
  return block_sum(sum, shared);
}

// By one lane: its column of a tile at which the sum passes `left`.
template <class Row, class Set>
__device__ int64_t column_of_lane(const Row &row, Set set, int64_t tile, double left) {
  int64_t found = tile;
  bool is_passed = false;
  row.each_of_tile(tile, [&](int64_t column, float x) {
    const double weight = set.has(column, x) ? row.weight(x) : 0.0f;
    if (is_passed || !(weight > 0.0)) return;
    found = column;
    is_passed = left < weight;
    left -= weight;
  });
  return found;
}

// By one warp: the column of a tile at which the sum passes `left`, into shared memory.
template <class Row, class Set>
__device__ void find_in_tile(const Row &row, Set set, int64_t tile, double left, DrawShared &shared) {
  const double own = lane_weight_of_tile(row, set, tile);
  int chosen = 0;
  double left_of_chosen = left;
  bool is_passed = false;
  for (int i = 0; i < kDrawLanes; ++i) {
    const double weight = __shfl_sync(kAllLanes, own, i);
    if (is_passed || !(weight > 0.0)) continue;
    chosen = i;
    left_of_chosen = left;
    is_passed = left < weight;
    left -= weight;
  }
  if (lane() == chosen) shared.column = column_of_lane(row, set, tile, left_of_chosen);
}

// By one warp: the column of its chunk. Rounding may leave that to the last one that weighs anything.
template <class Row, class Set>
__device__ void find_in_chunk(const Row &row, Set set, double left, DrawShared &shared) {
  const int64_t begin = row.begin(warp()), end = row.begin(warp() + 1);
  int64_t chosen = begin;
  double left_of_chosen = left;
  for (int64_t tile = begin; tile < end; tile += Row::kTile) {
    const double weight = warp_sum(lane_weight_of_tile(row, set, tile));
    if (!(weight > 0.0)) continue;
    chosen = tile;
    left_of_chosen = left;
    if (left < weight) break;
    left -= weight;
  }
  find_in_tile(row, set, chosen, left_of_chosen, shared);
}

// The column at which the sum of a set's weights passes `left`, after `weight_of` of that set. Where nothing
// weighs anything, or weights are no numbers, it is some column.
template <class Row, class Set>
__device__ int64_t column_at(const Row &row, Set set, double left, DrawShared &shared) {
  int chosen = 0;
  while (chosen + 1 < kDrawWarps && left >= shared.chunks[chosen]) left -= shared.chunks[chosen++];
  while (chosen > 0 && shared.chunks[chosen] == 0.0) --chosen;
  if (warp() == chosen) find_in_chunk(row, set, left, shared);
  __syncthreads();
  return shared.column;
}

// The largest key such that logits of at least that key weigh `wanted`, some bits at a time.
template <class T, class Row>
__device__ uint32_t least_key(const Row &row, double wanted, DrawShared &shared) {
  uint32_t key = 0;
  for (int shift = 8 * sizeof(T) - kBitsPerPass; shift >= 0; shift -= kBitsPerPass) {
    double sums[kCandidates] = {};
    row.each([&](int64_t, float x) {
      const uint32_t own = key_of<T>(x);
      const double weight = row.weight(x);
#pragma unroll
      for (uint32_t i = 0; i < kCandidates; ++i) {
        if (own >= (key | (i + 1) << shift)) sums[i] += weight;
      }
    });
    uint32_t digit = 0;
    for (uint32_t i = 0; i < kCandidates; ++i) {
      if (block_sum(sums[i], shared) >= wanted) digit = i + 1;
    }
    key |= digit << shift;
  }
  return key;
}

template <class T, class Row>
__device__ Nucleus<T> nucleus_of(const Row &row, double top_p, DrawShared &shared) {
  const double wanted = top_p * weight_of(row, Everything{}, shared);
  const uint32_t key = least_key<T>(row, wanted, shared);
  const double all = weight_of(row, AtLeast<T>{key}, shared);
  const double equal = weight_of(row, Equal<T>{key}, shared);
  return {key, column_at(row, Equal<T>{key}, wanted - (all - equal), shared)};
}

template <class Row, class Set>
__device__ void draw_from(const Row &row, Set set, double uniform, int64_t *token, DrawShared &shared) {
  const double total = weight_of(row, set, shared);
  const int64_t column = column_at(row, set, uniform * total, shared);
  if (threadIdx.x == 0) *token = column;
}

struct DrawCudaJob {
  const void *logits;
  int64_t width;
  float inverse_temperature;
  const double *uniforms;
  double top_p;
  int64_t *tokens;
};

template <bool kHasTopP, class T, int kWidth>
__global__ void __launch_bounds__(kDrawThreads) draw_kernel(DrawCudaJob job) {
  __shared__ DrawShared shared;
  const T *logits = static_cast<const T *>(job.logits) + blockIdx.x * job.width;
  DrawRow<T, kWidth> row{logits, job.width, job.inverse_temperature, 0.0f};
  row.largest = largest_logit(row, shared);
  const double uniform = job.uniforms[blockIdx.x];
  int64_t *token = job.tokens + blockIdx.x;
  if constexpr (kHasTopP) {
    draw_from(row, nucleus_of<T>(row, job.top_p, shared), uniform, token, shared);
  } else {
    draw_from(row, Everything{}, uniform, token, shared);
  }
}

template <class T, int kWidth>
void launch_draw(const DrawCudaJob &job, int64_t rows, cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>(rows);
  if (job.top_p < 1.0) {
    draw_kernel<true, T, kWidth><<<blocks, kDrawThreads, 0, stream>>>(job);
  } else {
    draw_kernel<false, T, kWidth><<<blocks, kDrawThreads, 0, stream>>>(job);
  }
}

template <class T>
void launch_draw_of(const DrawCudaJob &job, int64_t rows, cudaStream_t stream) {
  constexpr int kWide = kVectorBytes / sizeof(T);
  const bool is_wide = job.width % kWide == 0 && reinterpret_cast<uintptr_t>(job.logits) % kVectorBytes == 0;
  is_wide ? launch_draw<T, kWide>(job, rows, stream) : launch_draw<T, 1>(job, rows, stream);
}

}  // namespace
}  // namespace realrl

extern "C" int realrl_draw(const void *logits, int is_bf16, int64_t rows, int64_t width, float inverse_temperature,
                           const double *uniforms, double top_p, int64_t *tokens, void *stream) {
  using namespace realrl;
  if (rows == 0) return cudaSuccess;
  const DrawCudaJob job{logits, width, inverse_temperature, uniforms, top_p, tokens};
  const auto on = static_cast<cudaStream_t>(stream);
  is_bf16 ? launch_draw_of<__nv_bfloat16>(job, rows, on) : launch_draw_of<float>(job, rows, on);
  return cudaGetLastError();
}
