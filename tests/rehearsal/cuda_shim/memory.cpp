// Checks each access of a kernel to memory before it happens: that it lies within one tensor or one variable
// in shared memory, at a multiple of its size, and that no thread without an order to this one accesses the
// same byte, unless both only read or both are atomic.
//
// Order comes from __syncthreads within a block and from __syncwarp within a warp. Blocks of a launch have none.
#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "state.h"

namespace rehearsal {
namespace {

// When a thread had access to a byte. All 0 stands for none, as launches and blocks count from 1.
struct Access {
  uint32_t number;    // of the launch, or of the block for shared memory
  uint32_t thread;    // in the grid, or in the block
  uint32_t barriers;  // that it had passed
  uint32_t time;      // of its lane
  bool is_atomic;
};

// The last write to a byte, and the first and the last read after it: with these, a write that has no
// order to any of several readers always meets one.
struct Byte {
  Access write, first_read, last_read;
};

struct Range {
  uintptr_t begin, end;
  bool is_shared;
  std::unique_ptr<Byte[]> bytes;  // made by the first access

  Byte *at(uintptr_t address) {
    if (bytes == nullptr) bytes = std::make_unique<Byte[]>(end - begin);
    return &bytes[address - begin];
  }
};

// By their last byte's end.
std::map<uintptr_t, Range> tensors;
std::vector<Range> shared_ranges;
std::map<std::string, size_t> shared_tags;

alignas(1024) char shared_memory[2 * kMostSharedBytes];
size_t shared_used = sizeof shared_memory, dynamic_offset, static_used;
// Between variables, so that an index that is one too large meets none of them.
constexpr size_t kGap = 256;

Range *find_range(uintptr_t address, size_t bytes) {
  const auto holds = [=](const Range &range) { return range.begin <= address && address + bytes <= range.end; };
  for (Range &range : shared_ranges) {
    if (holds(range)) return &range;
  }
  const auto found = tensors.upper_bound(address);
  return found != tensors.end() && holds(found->second) ? &found->second : nullptr;
}

bool is_ordered(const Access &before, const Access &now, const Range &range) {
  if (before.number != now.number || before.thread == now.thread) return true;
  const unsigned size = threads_per_block(), mine = range.is_shared ? 0 : block_in_grid();
  if (!range.is_shared && before.thread / size != mine) return false;
  if (before.barriers < now.barriers) return true;
  const unsigned number = before.thread - mine * size;
  return static_cast<int>(number / kLanes) == running->warp() && before.time <= running->times[number % kLanes];
}

[[noreturn]] void report_race(const Access &before, const char *did, const char *does, const Range &range) {
  const unsigned size = threads_per_block(), block = range.is_shared ? block_in_grid() : before.thread / size;
  fail("a race: thread %u of block %u has %s this byte of %s memory that this one %s, without a barrier between",
       before.thread % size, block, did, range.is_shared ? "shared" : "global", does);
}

void note_read(Byte &byte, const Access &now, const Range &range) {
  const bool both_atomic = byte.write.is_atomic && now.is_atomic;
  if (!both_atomic && !is_ordered(byte.write, now, range)) report_race(byte.write, "written", "reads", range);
  if (range.is_shared && byte.write.number != now.number) fail("shared memory is read that no thread has written");
  if (is_ordered(byte.first_read, now, range)) byte.first_read = now;
  byte.last_read = now;
}

void note_write(Byte &byte, const Access &now, const Range &range) {
  for (const Access *before : {&byte.write, &byte.first_read, &byte.last_read}) {
    if (before->is_atomic && now.is_atomic) continue;
    const char *did = before == &byte.write ? "written" : "read";
    if (!is_ordered(*before, now, range)) report_race(*before, did, "writes", range);
  }
  byte = {now, {}, {}};
}

std::string describe(uintptr_t address, size_t bytes) {
  uintptr_t distance = UINTPTR_MAX;
  std::string nearest = "no tensor is near";
  const auto compare = [&](const Range &range, const char *kind) {
    const bool is_before = address < range.begin;
    const uintptr_t away = is_before ? range.begin - address : address + bytes - range.end;
    if (!is_before && address + bytes <= range.end) return;
    if (away >= distance) return;
    distance = away;
    nearest = std::to_string(away) + (is_before ? " bytes before" : " bytes past the end") + " of " + kind +
              " of " + std::to_string(range.end - range.begin) + " bytes";
  };
  for (const Range &range : shared_ranges) compare(range, "shared memory");
  for (const auto &[end, range] : tensors) compare(range, "a tensor");
  return nearest;
}

enum class Kind { kRead, kWrite, kAtomic };

void check(const void *pointer, size_t bytes, Kind kind, const void *code) {
  if (running == nullptr || bytes == 0) return;
  running->code = code;
  const auto address = reinterpret_cast<uintptr_t>(pointer);
  const auto stack = reinterpret_cast<uintptr_t>(running->stack);
  if (stack <= address && address + bytes <= stack + kStackBytes) return;
  may_interrupt();
  Range *range = find_range(address, bytes);
  if (range == nullptr) {
    const char *does = kind == Kind::kRead ? "read" : "write";
    fail("out of bounds: a %s of %zu bytes, %s", does, bytes, describe(address, bytes).c_str());
  }
  const unsigned before = range->is_shared ? 0 : block_in_grid() * threads_per_block();
  const Access now{range->is_shared ? block_number : launch_number, before + running->number, running->barriers,
                   running->times[running->lane()], kind == Kind::kAtomic};
  Byte *byte = range->at(address);
  for (size_t i = 0; i < bytes; ++i) {
    if (kind != Kind::kWrite) note_read(byte[i], now, *range);
    if (kind != Kind::kRead) note_write(byte[i], now, *range);
  }
  running->code = nullptr;
}

// A place of `bytes` in shared memory, unknown to the kernel until it is made a range.
size_t reserve_shared(size_t bytes, size_t alignment) {
  const size_t offset = (shared_used + kGap + alignment - 1) / alignment * alignment;
  shared_used = offset + bytes;
  if (shared_used > sizeof shared_memory) fail("a block's shared memory does not suffice");
  return offset;
}

size_t add_shared(size_t bytes, size_t alignment) {
  const size_t offset = reserve_shared(bytes, alignment);
  const auto begin = reinterpret_cast<uintptr_t>(shared_memory + offset);
  shared_ranges.push_back({begin, begin + bytes, true, nullptr});
  return offset;
}

}  // namespace

void clear_shared_memory(size_t dynamic_bytes) {
  shared_ranges.clear();
  shared_tags.clear();
  // A NaN of each type.
  memset(shared_memory, 0xff, shared_used);
  shared_used = static_used = 0;
  dynamic_offset = add_shared(dynamic_bytes, 16);
}

void *shared_variable(const char *tag, size_t bytes, size_t alignment) {
  const auto found = shared_tags.find(tag);
  if (found != shared_tags.end()) return shared_memory + found->second;
  static_used += bytes;
  if (static_used > kStaticSharedBytes) fail("%zu bytes of static shared memory", static_used);
  return shared_memory + (shared_tags[tag] = add_shared(bytes, alignment));
}

void *dynamic_shared() { return shared_memory + dynamic_offset; }

void atomic_access(const void *address, size_t bytes) {
  if (reinterpret_cast<uintptr_t>(address) % bytes) fail("an atomic operation at a misaligned address");
  check(address, bytes, Kind::kAtomic, __builtin_return_address(0));
}

const char *fault_of_range(const void *address, size_t bytes) {
  return find_range(reinterpret_cast<uintptr_t>(address), bytes) ? nullptr : "not within one tensor";
}

}  // namespace rehearsal

using namespace rehearsal;

// What device.py calls: kernels may access these bytes, and no others.

extern "C" void rehearsal_add_tensor(uintptr_t begin, uint64_t bytes) {
  if (bytes == 0) return;
  tensors.erase(begin + bytes);
  tensors.emplace(begin + bytes, Range{begin, begin + bytes, false, nullptr});
}

extern "C" void rehearsal_forget_tensors() { tensors.clear(); }

// What the compiler's instrumentation calls.

#define REHEARSAL_HOOK(name, kind) \
  extern "C" void name(void *p) { check(p, kBytes, kind, __builtin_return_address(0)); }
#define REHEARSAL_ACCESS(bytes)                                   \
  namespace access##bytes {                                       \
  constexpr size_t kBytes = bytes;                                \
  REHEARSAL_HOOK(__tsan_read##bytes, Kind::kRead)                 \
  REHEARSAL_HOOK(__tsan_write##bytes, Kind::kWrite)               \
  REHEARSAL_HOOK(__tsan_unaligned_read##bytes, Kind::kRead)       \
  REHEARSAL_HOOK(__tsan_unaligned_write##bytes, Kind::kWrite)     \
  REHEARSAL_HOOK(__tsan_volatile_read##bytes, Kind::kRead)        \
  REHEARSAL_HOOK(__tsan_volatile_write##bytes, Kind::kWrite)      \
  }
REHEARSAL_ACCESS(1)
REHEARSAL_ACCESS(2)
REHEARSAL_ACCESS(4)
REHEARSAL_ACCESS(8)
REHEARSAL_ACCESS(16)
extern "C" void __tsan_read_range(void *p, size_t bytes) {
  check(p, bytes, Kind::kRead, __builtin_return_address(0));
}
extern "C" void __tsan_write_range(void *p, size_t bytes) {
  check(p, bytes, Kind::kWrite, __builtin_return_address(0));
}
extern "C" void __tsan_func_entry(void *) {}
extern "C" void __tsan_func_exit() {}
extern "C" void __tsan_init() {}

// The begin of what GCC and Clang hand over.
struct MismatchData {
  struct {
    const char *file;
    uint32_t line, column;
  } location;
  const void *type;
  unsigned char log_alignment;
};

extern "C" void __ubsan_handle_type_mismatch_v1(MismatchData *data, void *pointer) {
  if (running == nullptr) return;
  running->code = __builtin_return_address(0);
  fail("misaligned: %p is no multiple of %u", pointer, 1u << data->log_alignment);
}

extern "C" void __ubsan_handle_out_of_bounds(void *, void *index) {
  if (running == nullptr) return;
  running->code = __builtin_return_address(0);
  fail("out of bounds: index %lld of an array", reinterpret_cast<long long>(index));
}
