// Boxes of tensors and their places in a message, and the arithmetic on their elements: shared by the
// CPU and the CUDA kernels.
//
// Both divide the work by position, a byte of the message: whoever has the positions [first, last)
// moves the parts of all boxes that lie there. Boxes ascend by position and do not overlap.
#pragma once

#include <cstdint>
#include <cstring>

#include "host_device.h"

namespace realrl {

// How an element is read. `kByte` stands for whatever is only ever copied.
enum Kind : int { kByte = 0, kFloat32 = 1, kBFloat16 = 2, kFloat16 = 3, kFloat64 = 4 };

// A row of the table that realrl/ops/box_rows.py builds; all its columns are int64. Elements of a row lie
// side by side, in the tensor as in the message.
struct Box {
  int64_t position;        // where its first element lies, for dividing the work
  int64_t rows;
  int64_t row_elements;
  int64_t address;         // of the tensor's first element
  int64_t row_stride;      // bytes
  int64_t message_offset;  // bytes from the message's address to the first element there
  int64_t message_stride;  // bytes
  int32_t kind;            // of the tensor's elements
  int32_t message_kind;
};
static_assert(sizeof(Box) == 64, "the table has eight columns");

struct BoxesJob {
  const Box *boxes;
  int64_t num_boxes;
  char *message;
  int64_t num_bytes;  // positions end here
  bool into_message;
  double eta;  // the incoming elements' weight; the old ones keep the rest
};

REALRL_HOST_DEVICE int64_t kind_bytes(int kind) {
  if (kind == kByte) return 1;
  if (kind == kFloat64) return 8;
  return kind == kFloat32 ? 4 : 2;
}

REALRL_HOST_DEVICE int64_t box_end(const Box &box) {
  return box.position + box.rows * box.row_elements * kind_bytes(box.message_kind);
}

// One end of a movement.
struct Side {
  char *address;
  int64_t stride;  // bytes
  int kind;
};

// Elements of one box, in row-major order from `column` of the row at which both addresses point.
struct Segment {
  Side from;
  Side to;
  int64_t row_elements;
  int64_t column;
  int64_t count;
};

// The part of a box at the positions [first, last), in bytes where elements need not be read.
REALRL_HOST_DEVICE Segment segment(const BoxesJob &job, const Box &box, int64_t first, int64_t last) {
  const bool raw = box.kind == box.message_kind && job.eta == 1.0;
  const int64_t size = kind_bytes(box.message_kind);
  const int64_t unit = raw ? 1 : size;
  const int64_t row_elements = raw ? box.row_elements * size : box.row_elements;
  const int64_t end = box_end(box);
  const int64_t begin = first > box.position ? first : box.position;
  const int64_t skipped = (begin - box.position) / unit;
  const int64_t row = skipped / row_elements;
  const Side tensor{reinterpret_cast<char *>(box.address) + row * box.row_stride, box.row_stride,
                    raw ? kByte : box.kind};
  const Side message{job.message + box.message_offset + row * box.message_stride, box.message_stride,
                     raw ? kByte : box.message_kind};
  return {job.into_message ? tensor : message, job.into_message ? message : tensor, row_elements,
          skipped - row * row_elements, ((last < end ? last : end) - begin) / unit};
}

// The first box that ends behind a position.
REALRL_HOST_DEVICE int64_t first_box(const BoxesJob &job, int64_t position) {
  int64_t low = 0, high = job.num_boxes;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (box_end(job.boxes[middle]) <= position) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

template <class To, class From>
REALRL_HOST_DEVICE To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From), "a bit cast keeps the size");
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}

// Each format decodes its bits exactly, and encodes a value by rounding to the nearest, ties to even.
// NaN stays NaN. All without branches, for the compiler to vectorise.
struct Float32 {
  using Bits = uint32_t;
  using Value = float;
  static REALRL_HOST_DEVICE float decode(uint32_t bits) { return bit_cast<float>(bits); }
  static REALRL_HOST_DEVICE uint32_t encode(float value) { return bit_cast<uint32_t>(value); }
};

struct Float64 {
  using Bits = uint64_t;
  using Value = double;
  static REALRL_HOST_DEVICE double decode(uint64_t bits) { return bit_cast<double>(bits); }
  static REALRL_HOST_DEVICE uint64_t encode(double value) { return bit_cast<uint64_t>(value); }
};

struct BFloat16 {
  using Bits = uint16_t;
  using Value = float;
  static REALRL_HOST_DEVICE float decode(uint16_t bits) {
    return bit_cast<float>(static_cast<uint32_t>(bits) << 16);
  }
  static REALRL_HOST_DEVICE uint16_t encode(float value) {
    const uint32_t bits = bit_cast<uint32_t>(value);
    const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
    return static_cast<uint16_t>(is_nan ? 0x7fc0u : rounded);
  }
};

struct Float16 {
  using Bits = uint16_t;
  using Value = float;
  static REALRL_HOST_DEVICE float decode(uint16_t half) {
    const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
    const uint32_t body = static_cast<uint32_t>(half & 0x7fffu) << 13;
    const uint32_t normal = body + (112u << 23);
    const uint32_t special = body + (224u << 23);
    // A subnormal is its fraction in units of 2^-24: put it behind 2^-14, whose last bit is worth just
    // that, and take 2^-14 away.
    const float hidden = bit_cast<float>(113u << 23);
    const uint32_t subnormal = bit_cast<uint32_t>(bit_cast<float>(body + (113u << 23)) - hidden);
    const uint32_t finite = body < (1u << 23) ? subnormal : normal;
    return bit_cast<float>(sign | (body >= (31u << 23) ? special : finite));
  }
  static REALRL_HOST_DEVICE uint16_t encode(float value) {
    const uint32_t bits = bit_cast<uint32_t>(value);
    const uint32_t sign = (bits >> 16) & 0x8000u;
    const uint32_t body = bits & 0x7fffffffu;
    const uint32_t normal = (body - (112u << 23) + 0xfffu + ((body >> 13) & 1u)) >> 13;
    // Adding a half lets the sum's own rounding drop what a subnormal cannot hold.
    const uint32_t subnormal = bit_cast<uint32_t>(bit_cast<float>(body) + 0.5f) - (126u << 23);
    const uint32_t special = body > 0x7f800000u ? 0x7e00u : 0x7c00u;
    const uint32_t finite = body < (113u << 23) ? subnormal : normal;
    return static_cast<uint16_t>(sign | (body >= (143u << 23) ? special : finite));
  }
};

// Products and sums that no compiler may fuse: the CPU, the GPU and PyTorch then round alike.
#ifdef __CUDA_ARCH__
REALRL_HOST_DEVICE float multiply(float a, float b) { return __fmul_rn(a, b); }
REALRL_HOST_DEVICE float add(float a, float b) { return __fadd_rn(a, b); }
REALRL_HOST_DEVICE double multiply(double a, double b) { return __dmul_rn(a, b); }
REALRL_HOST_DEVICE double add(double a, double b) { return __dadd_rn(a, b); }
#else
template <class Value>
REALRL_HOST_DEVICE Value multiply(Value a, Value b) { return a * b; }
template <class Value>
REALRL_HOST_DEVICE Value add(Value a, Value b) { return a + b; }
#endif

// What becomes of the element `old` when `incoming` arrives.
template <class From, class To, bool kBlend>
REALRL_HOST_DEVICE typename To::Bits arrive(typename From::Bits incoming, typename To::Bits old, double eta) {
  using Value = typename To::Value;
  const Value value = From::decode(incoming);
  if (!kBlend) return To::encode(value);
  const Value weight = static_cast<Value>(eta), rest = static_cast<Value>(1.0 - eta);
  return To::encode(add(multiply(weight, value), multiply(rest, To::decode(old))));
}

// A message's checksum is the sum of its 64-bit words by these weights, modulo 2^64. They are odd, thus
// invertible: no change of a single word goes unseen. They differ, so that order counts too.
REALRL_HOST_DEVICE uint64_t checksum_weight(int64_t word) { return 2 * static_cast<uint64_t>(word) + 1; }

}  // namespace realrl
