#include "boxes_cpu.h"

#include <algorithm>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

// The build names no instruction set: these functions are compiled for several, and the loader picks.
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__)
#define REALRL_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define REALRL_CLONES
#endif

// A fused multiply-add rounds once where PyTorch rounds twice.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("fp-contract=off")
#endif

namespace realrl {

// Below this many positions, waking the threads costs more than the work.
constexpr int64_t kParallelBytes = 256 << 10;
// Threads share out positions by this unit.
constexpr int64_t kShareBytes = 4 << 10;
// From here on, what is unpacked would only push other data out of the caches.
constexpr int64_t kStreamBytes = 256 << 10;
constexpr int64_t kStreamRowBytes = 256;
constexpr int64_t kLine = 64;
// How far ahead of the elements being moved others are fetched.
constexpr int64_t kAheadBytes = 4 << 10;

typedef char Line __attribute__((vector_size(64), aligned(1), may_alias));
typedef uint64_t Lanes __attribute__((vector_size(64), aligned(1), may_alias));
constexpr int64_t kLanes = 8;

template <class Bits>
struct Unaligned {
  typedef Bits type __attribute__((aligned(1), may_alias));
};

// Into the second-level cache: the first would soon be full of what is not needed yet.
REALRL_HOST_DEVICE void fetch(const char *address) { __builtin_prefetch(address, 0, 2); }

template <int kBytes>
REALRL_HOST_DEVICE void copy_ends(char *to, const char *from, int64_t bytes) {
  char first[kBytes], last[kBytes];
  memcpy(first, from, kBytes);
  memcpy(last, from + bytes - kBytes, kBytes);
  memcpy(to, first, kBytes);
  memcpy(to + bytes - kBytes, last, kBytes);
}

// Fewer bytes than a line: two overlapping pieces of the largest power of two that fits.
REALRL_HOST_DEVICE void copy_short(char *to, const char *from, int64_t bytes) {
  if (bytes >= 32) return copy_ends<32>(to, from, bytes);
  if (bytes >= 16) return copy_ends<16>(to, from, bytes);
  if (bytes >= 8) return copy_ends<8>(to, from, bytes);
  if (bytes >= 4) return copy_ends<4>(to, from, bytes);
  if (bytes >= 2) return copy_ends<2>(to, from, bytes);
  if (bytes == 1) *to = *from;
}

// Moves `count` elements that lie side by side, and fetches others, `ahead` bytes away, as it goes.
struct Copy {
  static constexpr int64_t kFromSize = 1, kToSize = 1, kStripBytes = 512;
  REALRL_HOST_DEVICE void operator()(char *to, const char *from, int64_t count, int64_t ahead) const {
    for (; count >= kLine; count -= kLine, to += kLine, from += kLine) {
      fetch(from + ahead);
      *reinterpret_cast<Line *>(to) = *reinterpret_cast<const Line *>(from);
    }
    fetch(from + ahead);
    copy_short(to, from, count);
  }
};

// Past the caches: whole lines are written without being read first. Its strips are long, for each may
// begin and end within a line.
struct Stream {
  static constexpr int64_t kFromSize = 1, kToSize = 1, kStripBytes = 8 << 10;
  REALRL_HOST_DEVICE void operator()(char *to, const char *from, int64_t count, int64_t ahead) const {
    const int64_t head = std::min<int64_t>(-reinterpret_cast<intptr_t>(to) & (kLine - 1), count);
    copy_short(to, from, head);
    to += head, from += head, count -= head;
    for (; count >= kLine; count -= kLine, to += kLine, from += kLine) {
      fetch(from + ahead);
      line(to, from);
    }
    copy_short(to, from, count);
  }
  static REALRL_HOST_DEVICE void line(char *to, const char *from) {
#if defined(__SSE2__)
    for (int64_t i = 0; i < kLine; i += sizeof(__m128i)) {
      const __m128i part = _mm_loadu_si128(reinterpret_cast<const __m128i *>(from + i));
      _mm_stream_si128(reinterpret_cast<__m128i *>(to + i), part);
    }
#else
    *reinterpret_cast<Line *>(to) = *reinterpret_cast<const Line *>(from);
#endif
  }
};

template <class From, class To, bool kBlend>
struct Arrive {
  static constexpr int64_t kFromSize = sizeof(typename From::Bits), kToSize = sizeof(typename To::Bits);
  static constexpr int64_t kStripBytes = 512;
  double eta;
  REALRL_HOST_DEVICE void operator()(char *to, const char *from, int64_t count, int64_t ahead) const {
    for (int64_t i = 0; i < count * kFromSize; i += kLine) fetch(from + ahead + i);
    auto *targets = reinterpret_cast<typename Unaligned<typename To::Bits>::type *>(to);
    auto *sources = reinterpret_cast<const typename Unaligned<typename From::Bits>::type *>(from);
#pragma GCC ivdep
    for (int64_t i = 0; i < count; ++i) {
      targets[i] = arrive<From, To, kBlend>(sources[i], kBlend ? targets[i] : 0, eta);
    }
  }
};

// The checksum of a growing part of a message, from byte `first` on. Instead of multiplying, it sums the
// running sums: after n lines, `sums_` holds the first n times, the second n - 1 times, and so on.
class Checksum {
 public:
  REALRL_HOST_DEVICE Checksum(const char *message, int64_t first, bool wanted)
      : message_(message), first_(first), next_(wanted ? first : INT64_MAX - kLine) {}

  // Take in the whole lines before byte `end`.
  REALRL_HOST_DEVICE void advance(int64_t end) {
    Lanes running = running_, sums = sums_;
    for (; next_ + kLine <= end; next_ += kLine) {
      running += *reinterpret_cast<const Lanes *>(message_ + next_);
      sums += running;
    }
    running_ = running;
    sums_ = sums;
  }

  // The checksum of all before byte `end`, which may be within a line.
  REALRL_HOST_DEVICE uint64_t total(int64_t end) {
    advance(end);
    const int64_t first_word = first_ / kWord, lines = (next_ - first_) / kLine;
    uint64_t total = 0;
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      const uint64_t by_line = static_cast<uint64_t>(lines) * running_[lane] - sums_[lane];
      total += checksum_weight(first_word + lane) * running_[lane] + 2 * kLanes * by_line;
    }
    for (int64_t i = next_; i < end; i += kWord) {
      uint64_t word;
      memcpy(&word, message_ + i, kWord);
      total += checksum_weight(i / kWord) * word;
    }
    return total;
  }

 private:
  static constexpr int64_t kWord = sizeof(uint64_t);
  const char *message_;
  int64_t first_, next_;
  Lanes running_ = {}, sums_ = {};
};

// The way from elements to those that come `kAheadBytes` later: further along a long row, or in a row
// further down, where the processor's own prefetcher would not look.
REALRL_HOST_DEVICE int64_t ahead(const Side &side, int64_t row_bytes) {
  if (row_bytes > 4 * kAheadBytes) return kAheadBytes;
  return (kAheadBytes + row_bytes - 1) / row_bytes * side.stride;
}

// What goes along with a segment.
struct Trip {
  int64_t position;  // of its first element
  bool into_message;
  bool stream;
  double eta;
};

// The checksum goes along strip by strip, so that the processor adds while it waits for memory: before
// what is unpacked, and one strip behind what is packed, whose stores may still be on their way.
template <class Move>
REALRL_HOST_DEVICE void move_rows(const Segment &s, const Trip &trip, Checksum &checksum, const Move &move) {
  const int64_t strip = Move::kStripBytes / Move::kFromSize;
  const int64_t message_size = trip.into_message ? Move::kToSize : Move::kFromSize;
  const int64_t from_ahead = ahead(s.from, s.row_elements * Move::kFromSize);
  char *from_row = s.from.address, *to_row = s.to.address;
  int64_t position = trip.position, column = s.column;
  for (int64_t left = s.count; left > 0;) {
    const int64_t end = std::min(s.row_elements, column + left);
    left -= end - column;
    while (column < end) {
      const int64_t count = end - column < 2 * strip ? end - column : strip;
      const int64_t next = position + count * message_size;
      checksum.advance(trip.into_message ? position : next);
      move(to_row + column * Move::kToSize, from_row + column * Move::kFromSize, count, from_ahead);
      position = next;
      column += count;
    }
    column = 0;
    from_row += s.from.stride;
    to_row += s.to.stride;
  }
}

// Rows of one element, as of a transposed tensor. They begin with a row: blocks end between elements.
template <int kBytes>
REALRL_HOST_DEVICE void copy_elements(const Segment &s) {
  const char *from = s.from.address;
  char *to = s.to.address;
  for (int64_t left = s.count; left > 0; left -= kBytes) {
    memcpy(to, from, kBytes);
    from += s.from.stride;
    to += s.to.stride;
  }
}

REALRL_HOST_DEVICE void copy_rows(const Segment &s, const Trip &trip, Checksum &checksum) {
  switch (s.row_elements) {
    case 1: return copy_elements<1>(s);
    case 2: return copy_elements<2>(s);
    case 4: return copy_elements<4>(s);
    case 8: return copy_elements<8>(s);
    case 16: return copy_elements<16>(s);
  }
  if (trip.stream && s.row_elements >= kStreamRowBytes) return move_rows(s, trip, checksum, Stream{});
  move_rows(s, trip, checksum, Copy{});
}

template <class From, class To>
REALRL_HOST_DEVICE void arrive_rows(const Segment &s, const Trip &trip, Checksum &checksum) {
  if (trip.eta == 1.0) return move_rows(s, trip, checksum, Arrive<From, To, false>{trip.eta});
  move_rows(s, trip, checksum, Arrive<From, To, true>{trip.eta});
}

template <class From>
REALRL_HOST_DEVICE void arrive_rows_from(const Segment &s, const Trip &trip, Checksum &checksum) {
  switch (s.to.kind) {
    case kFloat32: return arrive_rows<From, Float32>(s, trip, checksum);
    case kBFloat16: return arrive_rows<From, BFloat16>(s, trip, checksum);
    case kFloat16: return arrive_rows<From, Float16>(s, trip, checksum);
  }
}

REALRL_HOST_DEVICE void move_segment(const Segment &s, const Trip &trip, Checksum &checksum) {
  switch (s.from.kind) {
    case kByte: return copy_rows(s, trip, checksum);
    case kFloat32: return arrive_rows_from<Float32>(s, trip, checksum);
    case kBFloat16: return arrive_rows_from<BFloat16>(s, trip, checksum);
    case kFloat16: return arrive_rows_from<Float16>(s, trip, checksum);
    case kFloat64: return move_rows(s, trip, checksum, Arrive<Float64, Float64, true>{trip.eta});
  }
}

// Move what lies at the positions [first, last), and return their checksum if it is wanted.
REALRL_CLONES static uint64_t run_positions(const BoxesJob &job, int64_t first, int64_t last, bool sum) {
  Trip trip{first, job.into_message, !job.into_message && job.num_bytes >= kStreamBytes, job.eta};
  Checksum checksum(job.message, first, sum);
  for (int64_t i = first_box(job, first); i < job.num_boxes && job.boxes[i].position < last; ++i) {
    trip.position = std::max(first, job.boxes[i].position);
    move_segment(segment(job, job.boxes[i], first, last), trip, checksum);
  }
#if defined(__SSE2__)
  // Streamed stores would otherwise not be ordered before what publishes them.
  if (trip.stream) _mm_sfence();
#endif
  return sum ? checksum.total(last) : 0;
}

void boxes_cpu(const BoxesJob &job, uint64_t *checksum, int num_threads) {
  const int64_t units = (job.num_bytes + kShareBytes - 1) / kShareBytes;
  const int64_t shares = job.num_bytes >= kParallelBytes ? std::max(num_threads, 1) : 1;
  uint64_t total = 0;
#pragma omp parallel for schedule(static) num_threads(shares) if (shares > 1) reduction(+ : total)
  for (int64_t i = 0; i < shares; ++i) {
    const int64_t first = units * i / shares * kShareBytes;
    const int64_t last = std::min(units * (i + 1) / shares * kShareBytes, job.num_bytes);
    total += run_positions(job, first, last, checksum != nullptr);
  }
  if (checksum != nullptr) *checksum = total;
}

}  // namespace realrl
