// Boxes of tensors to and from a message, one launch for all. Free of torch, as gae_cuda.cu is.
#include <cuda_runtime.h>

#include "boxes.h"

namespace realrl {

constexpr int kWarpLanes = 32;
constexpr int kBlockThreads = 256;
constexpr int kBlocksPerProcessor = 3;
// Positions that a warp takes on at a time. A multiple of every element's size and of every vector's.
constexpr int64_t kChunkBytes = 4 << 10;
// Loads that a lane has under way before it stores the first.
constexpr int kBatch = 4;

// Its alignment lets the compiler move it in one access.
template <class Bits, int kCount>
struct alignas(sizeof(Bits) * kCount) Vector {
  Bits elements[kCount];
};

// Where a segment's vectors of `width` elements lie.
struct Places {
  int64_t column;    // of the first
  int64_t rest;      // how many complete the first row
  uint32_t divisor;  // vectors in a row

  // A segment has at most kChunkBytes vectors, so longer rows divide as rows of one more would, and
  // 32 bits are enough.
  __device__ Places(const Segment &s, int width) : column(s.column / width) {
    const int64_t row_vectors = s.row_elements / width;
    rest = row_vectors - column;
    divisor = static_cast<uint32_t>(row_vectors > kChunkBytes ? kChunkBytes + 1 : row_vectors);
  }

  __device__ char *at(const Side &side, int64_t vector_bytes, uint32_t v) const {
    if (v < rest) return side.address + (column + v) * vector_bytes;
    const uint32_t later = v - static_cast<uint32_t>(rest);
    const uint32_t row = later / divisor;
    return side.address + (row + 1) * side.stride + (later - row * divisor) * vector_bytes;
  }
};

// The warp's lanes take neighbouring vectors: they load a batch of them, then `store` each. The callers stay
// out of line: together they would need too many registers.
template <class T, class Store>
__device__ void each_vector(const Segment &s, int width, int lane, Store store) {
  const Places places(s, width);
  const auto count = static_cast<uint32_t>(s.count / width);
  for (uint32_t base = lane; base < count; base += kBatch * kWarpLanes) {
    T incoming[kBatch];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const uint32_t v = base + i * kWarpLanes;
      if (v < count) incoming[i] = *reinterpret_cast<const T *>(places.at(s.from, sizeof(T), v));
    }
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const uint32_t v = base + i * kWarpLanes;
      if (v < count) store(incoming[i], places, v);
    }
  }
}

template <class T>
__device__ __noinline__ void copy_vectors(const Segment &s, int lane) {
  each_vector<T>(s, sizeof(T), lane, [&](const T &incoming, const Places &places, uint32_t v) {
    *reinterpret_cast<T *>(places.at(s.to, sizeof(T), v)) = incoming;
  });
}

template <class From, class To, int kWidth>
__device__ __noinline__ void arrive_vectors(const Segment &s, double eta, int lane) {
  using FromVector = Vector<typename From::Bits, kWidth>;
  using ToVector = Vector<typename To::Bits, kWidth>;
  each_vector<FromVector>(s, kWidth, lane, [&](const FromVector &from, const Places &places, uint32_t v) {
    auto *place = reinterpret_cast<ToVector *>(places.at(s.to, sizeof(ToVector), v));
    ToVector to = {};
    if (eta != 1.0) to = *place;
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      to.elements[j] = eta == 1.0 ? arrive<From, To, false>(from.elements[j], 0, eta)
                                  : arrive<From, To, true>(from.elements[j], to.elements[j], eta);
    }
    *place = to;
  });
}

// Divisible by what divides the address of each of a side's rows.
__device__ uint64_t row_starts(const Side &side) {
  return reinterpret_cast<uintptr_t>(side.address) | static_cast<uint64_t>(side.stride);
}

__device__ void copy_segment(const Segment &s, int lane) {
  const uint64_t all = row_starts(s.from) | row_starts(s.to) | static_cast<uint64_t>(s.row_elements);
  if (all % 16 == 0) return copy_vectors<uint4>(s, lane);
  if (all % 8 == 0) return copy_vectors<uint64_t>(s, lane);
  if (all % 4 == 0) return copy_vectors<uint32_t>(s, lane);
  if (all % 2 == 0) return copy_vectors<uint16_t>(s, lane);
  copy_vectors<uint8_t>(s, lane);
}

template <class From, class To>
__device__ void arrive_segment(const Segment &s, double eta, int lane) {
  constexpr int kWidth = 4;
  const bool wide = s.row_elements % kWidth == 0 &&
                    row_starts(s.from) % (kWidth * sizeof(typename From::Bits)) == 0 &&
                    row_starts(s.to) % (kWidth * sizeof(typename To::Bits)) == 0;
  if (wide) return arrive_vectors<From, To, kWidth>(s, eta, lane);
  arrive_vectors<From, To, 1>(s, eta, lane);
}

template <class From>
__device__ void arrive_segment(const Segment &s, double eta, int lane) {
  switch (s.to.kind) {
    case kFloat32: return arrive_segment<From, Float32>(s, eta, lane);
    case kBFloat16: return arrive_segment<From, BFloat16>(s, eta, lane);
    case kFloat16: return arrive_segment<From, Float16>(s, eta, lane);
  }
}

__device__ void move_segment(const Segment &s, double eta, int lane) {
  switch (s.from.kind) {
    case kByte: return copy_segment(s, lane);
    case kFloat32: return arrive_segment<Float32>(s, eta, lane);
    case kBFloat16: return arrive_segment<BFloat16>(s, eta, lane);
    case kFloat16: return arrive_segment<Float16>(s, eta, lane);
    case kFloat64: return arrive_vectors<Float64, Float64, 1>(s, eta, lane);
  }
}

__global__ void __launch_bounds__(kBlockThreads, kBlocksPerProcessor) move_boxes_kernel(BoxesJob job) {
  const int lane = threadIdx.x % kWarpLanes;
  const int64_t warp = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / kWarpLanes;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x / kWarpLanes * kChunkBytes;
  for (int64_t first = warp * kChunkBytes; first < job.num_bytes; first += stride) {
    const int64_t last = first + kChunkBytes < job.num_bytes ? first + kChunkBytes : job.num_bytes;
    for (int64_t i = first_box(job, first); i < job.num_boxes && job.boxes[i].position < last; ++i) {
      move_segment(segment(job, job.boxes[i], first, last), job.eta, lane);
    }
  }
}

__device__ uint64_t sum_of_warp(uint64_t sum) {
  for (int distance = kWarpLanes / 2; distance > 0; distance /= 2) {
    sum += __shfl_down_sync(0xffffffffu, sum, distance);
  }
  return sum;
}

// Sums modulo 2^64 come out alike in any order.
__global__ void __launch_bounds__(kBlockThreads)
    checksum_kernel(const uint64_t *words, int64_t count, uint64_t *checksum) {
  const int64_t threads = static_cast<int64_t>(gridDim.x) * blockDim.x;
  uint64_t sum = 0;
#pragma unroll 4
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += threads) {
    sum += checksum_weight(i) * words[i];
  }
  __shared__ uint64_t sums[kBlockThreads / kWarpLanes];
  sum = sum_of_warp(sum);
  if (threadIdx.x % kWarpLanes == 0) sums[threadIdx.x / kWarpLanes] = sum;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int i = 1; i < kBlockThreads / kWarpLanes; ++i) sum += sums[i];
  atomicAdd(reinterpret_cast<unsigned long long *>(checksum), static_cast<unsigned long long>(sum));
}

// Enough blocks for `threads`, and no more than the device runs at a time.
static cudaError_t choose_blocks(int64_t threads, unsigned *blocks) {
  int device, processors;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) {
    error = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
  }
  if (error != cudaSuccess) return error;
  const int64_t wanted = (threads + kBlockThreads - 1) / kBlockThreads;
  const int64_t most = static_cast<int64_t>(processors) * kBlocksPerProcessor;
  *blocks = static_cast<unsigned>(wanted < most ? wanted : most);
  return cudaSuccess;
}

static cudaError_t launch_boxes(const BoxesJob &job, cudaStream_t stream) {
  if (job.num_boxes == 0 || job.num_bytes == 0) return cudaSuccess;
  const int64_t chunks = (job.num_bytes + kChunkBytes - 1) / kChunkBytes;
  unsigned blocks;
  const cudaError_t error = choose_blocks(chunks * kWarpLanes, &blocks);
  if (error != cudaSuccess) return error;
  move_boxes_kernel<<<blocks, kBlockThreads, 0, stream>>>(job);
  return cudaGetLastError();
}

static cudaError_t launch_checksum(const BoxesJob &job, uint64_t *checksum, cudaStream_t stream) {
  const int64_t words = job.num_bytes / static_cast<int64_t>(sizeof(uint64_t));
  cudaError_t error = cudaMemsetAsync(checksum, 0, sizeof *checksum, stream);
  if (error != cudaSuccess || words == 0) return error;
  unsigned blocks;
  error = choose_blocks(words, &blocks);
  if (error != cudaSuccess) return error;
  checksum_kernel<<<blocks, kBlockThreads, 0, stream>>>(reinterpret_cast<const uint64_t *>(job.message), words,
                                                       checksum);
  return cudaGetLastError();
}

}  // namespace realrl

extern "C" int realrl_move_boxes(const void *boxes, int64_t num_boxes, void *message, int64_t num_bytes,
                                 int into_message, double eta, uint64_t *checksum, void *stream) {
  using namespace realrl;
  const BoxesJob job{static_cast<const Box *>(boxes), num_boxes,         static_cast<char *>(message),
                     num_bytes,                       into_message != 0, eta};
  const cudaError_t error = launch_boxes(job, static_cast<cudaStream_t>(stream));
  if (error != cudaSuccess || checksum == nullptr) return error;
  return launch_checksum(job, checksum, static_cast<cudaStream_t>(stream));
}
