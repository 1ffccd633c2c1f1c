// What threads.cpp and memory.cpp know of each other.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <cstdint>

#include "cuda_runtime.h"

namespace rehearsal {

enum class State { kReady, kAtBarrier, kInWarp, kExited };

// A thread of the running block, on a stack of its own.
//
//   ready --> running --+--> ready      it may be interrupted at each access to memory
//                       +--> at barrier --> ready, once all threads of the block are there
//                       +--> in warp    --> ready, once all lanes of the mask are there
//                       +--> exited
struct Thread {
  jmp_buf place;
  char *stack;  // its lowest address
  uint3 index;
  unsigned number;  // in the block
  State state;
  bool started;
  const void *code;  // of the access to memory that is being checked
  // What it waits for in its warp, and what it brings.
  const char *operation;
  unsigned mask;
  uint64_t value;
  uint64_t values[kLanes];
  // Barriers passed, and the newest time of each lane of its warp that __syncwarp has shown to it.
  uint32_t barriers;
  uint32_t times[kLanes];

  int lane() const { return static_cast<int>(number % kLanes); }
  int warp() const { return static_cast<int>(number / kLanes); }
};

constexpr size_t kStackBytes = 64 << 10;
constexpr size_t kStaticSharedBytes = 48 << 10;
constexpr size_t kMostSharedBytes = 227 << 10;

// The thread that runs; null outside of kernels.
extern Thread *running;

// Counts launches and, for shared memory, blocks: accesses of other numbers are forgotten.
extern uint32_t launch_number, block_number;

unsigned threads_per_block();
unsigned block_in_grid();

// Lets other threads run, now and then.
void may_interrupt();

// Shared memory as a block finds it.
void clear_shared_memory(size_t dynamic_bytes);

// Why these bytes cannot be accessed by the host's functions; null if they can.
const char *fault_of_range(const void *address, size_t bytes);

}  // namespace rehearsal
