// Runs the blocks of a launch one after another, and the threads of a block as fibers in an order that a
// seed decides. A kernel that breaks a rule ends its launch with an error; the process goes on.
#include <dlfcn.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "state.h"

namespace rehearsal {

Thread *running = nullptr;
uint32_t launch_number = 0, block_number = 0;

namespace {

constexpr unsigned kMostThreads = 1024;
// One access in so many is interrupted, where the order is random.
constexpr unsigned kInterruptEvery = 16;
// At the end of each stack: whether a thread has overrun it.
constexpr uint64_t kCanary = 0x5afe57ac5afe57acULL;

std::map<const void *, Kernel> &kernels() {
  static std::map<const void *, Kernel> all;
  return all;
}

// Orders 0 and 1 are the plain ones, forwards and backwards; all others are random.
uint64_t order = 0, random_state = 1;
void *expected_stream = nullptr;
int processors = 1;

std::string message;
cudaError_t last_error = cudaSuccess;

struct {
  Kernel *kernel;
  dim3 grid, block;
  uint3 block_index;
  Body body;
  const void *arguments;
} job;

std::vector<Thread> threads;
std::deque<Thread *> ready;
jmp_buf scheduler;
bool has_failed;

uint64_t next_random() {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return random_state;
}

bool is_random() { return order > 1; }

// The instance out of "… [with auto kKernel = realrl::gae_kernel]".
std::string short_name(const char *pretty) {
  std::string name(pretty);
  const char *before = "kKernel = ";
  const size_t start = name.find(before);
  if (start != std::string::npos) name = name.substr(start + strlen(before));
  const size_t end = name.find_first_of(";]");
  return name.substr(0, end);
}

void note_failure(cudaError_t error, const std::string &what) {
  last_error = error;
  message = what;
}

std::string where() {
  char text[200];
  snprintf(text, sizeof text, ", block (%u, %u, %u)", job.block_index.x, job.block_index.y, job.block_index.z);
  std::string found = short_name(job.kernel->name) + text;
  if (running != nullptr) {
    snprintf(text, sizeof text, ", thread (%u, %u, %u)", running->index.x, running->index.y, running->index.z);
    found += text;
    // device.py makes a line of the source of it.
    Dl_info library;
    if (running->code != nullptr && dladdr(running->code, &library)) {
      const auto *base = static_cast<const char *>(library.dli_fbase);
      snprintf(text, sizeof text, ", code +%#tx", static_cast<const char *>(running->code) - base);
      found += text;
    }
  }
  return found + ", thread order " + std::to_string(order);
}

[[noreturn]] void end_launch(const std::string &what) {
  note_failure(cudaErrorLaunchFailure, what + ", in " + where());
  has_failed = true;
  _longjmp(scheduler, 1);
}

// Back to the scheduler, until it resumes this thread.
__attribute__((noinline)) void leave() {
  if (_setjmp(running->place) == 0) _longjmp(scheduler, 1);
}

void run_thread_body() {
  job.body(job.arguments);
  if (*reinterpret_cast<uint64_t *>(running->stack) != kCanary) end_launch("a thread's stack is too small");
  running->state = State::kExited;
  _longjmp(scheduler, 1);
}

void start(Thread &thread) {
  thread.started = true;
  *reinterpret_cast<uint64_t *>(thread.stack) = kCanary;
  ucontext_t context;
  getcontext(&context);
  context.uc_stack.ss_sp = thread.stack;
  // Stacks that begin at multiples of a power of two would share few lines of the caches.
  context.uc_stack.ss_size = kStackBytes - thread.number % 32 * 192;
  context.uc_link = nullptr;
  makecontext(&context, run_thread_body, 0);
  setcontext(&context);
}

__attribute__((noinline)) void resume(Thread &thread) {
  running = &thread;
  if (_setjmp(scheduler) == 0) {
    if (!thread.started) start(thread);
    _longjmp(thread.place, 1);
  }
  running = nullptr;
}

void make_ready(Thread &thread) {
  thread.state = State::kReady;
  ready.push_back(&thread);
}

Thread &take_ready() {
  size_t i = order == 0 ? 0 : ready.size() - 1;
  if (is_random()) {
    i = next_random() % ready.size();
    std::swap(ready[i], ready.back());
    i = ready.size() - 1;
  }
  Thread *taken = ready[i];
  i == 0 ? ready.pop_front() : ready.pop_back();
  return *taken;
}

// Why no thread can run: how many wait for what, and the first of each.
std::string standstill() {
  std::map<std::string, std::vector<unsigned>> groups;
  for (const Thread &thread : threads) {
    char what[100] = "have exited";
    if (thread.state == State::kAtBarrier) snprintf(what, sizeof what, "wait in __syncthreads");
    if (thread.state == State::kInWarp) {
      snprintf(what, sizeof what, "wait in %s of mask %08x", thread.operation, thread.mask);
    }
    groups[what].push_back(thread.number);
  }
  std::string text = "deadlock";
  for (const auto &[what, numbers] : groups) {
    text += text == "deadlock" ? ": " : "; ";
    text += std::to_string(numbers.size()) + " threads " + what + " (the first is " +
            std::to_string(numbers.front()) + ", the last " + std::to_string(numbers.back()) + ")";
  }
  return text;
}

void make_threads(dim3 block) {
  static char *stacks = static_cast<char *>(mmap(nullptr, kMostThreads * kStackBytes, PROT_READ | PROT_WRITE,
                                                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  threads.resize(block.x * block.y * block.z);
  ready.clear();
  for (unsigned n = 0; n < threads.size(); ++n) {
    Thread &thread = threads[n];
    memset(&thread, 0, sizeof thread);
    thread.stack = stacks + n * kStackBytes;
    thread.number = n;
    thread.index = {n % block.x, n / block.x % block.y, n / (block.x * block.y)};
    thread.times[thread.lane()] = 1;
    make_ready(thread);
  }
}

void run_block(uint3 index, size_t shared) {
  job.block_index = index;
  ++block_number;
  clear_shared_memory(shared);
  make_threads(job.block);
  while (!has_failed) {
    if (!ready.empty()) {
      resume(take_ready());
    } else {
      const bool is_done = std::all_of(threads.begin(), threads.end(),
                                       [](const Thread &thread) { return thread.state == State::kExited; });
      if (is_done) return;
      note_failure(cudaErrorLaunchFailure, standstill() + ", in " + where());
      has_failed = true;
    }
  }
}

// Why CUDA would refuse the launch; empty if it would not.
std::string refusal(const Kernel &kernel, dim3 grid, dim3 block, size_t shared, void *stream) {
  const uint64_t count = static_cast<uint64_t>(block.x) * block.y * block.z;
  if (count == 0 || count > kMostThreads || block.z > 64) return "a block of " + std::to_string(count) + " threads";
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return "an empty grid";
  if (grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535) return "too large a grid";
  if (shared > kernel.most_dynamic_shared) return std::to_string(shared) + " bytes of dynamic shared memory";
  if (stream != expected_stream) return "another stream than the current one";
  return "";
}

}  // namespace

Kernel &register_kernel(const char *name, const void *function) {
  return kernels().emplace(function, Kernel{name, 0, kStaticSharedBytes}).first->second;
}

void copy_arguments(void *to, const void *from, size_t bytes) { memcpy(to, from, bytes); }

void launch(Kernel &kernel, dim3 grid, dim3 block, size_t shared, void *stream, Body body, const void *arguments) {
  const std::string refused = refusal(kernel, grid, block, shared, stream);
  if (!refused.empty()) {
    return note_failure(cudaErrorInvalidConfiguration, "launched with " + refused + ": " + short_name(kernel.name));
  }
  ++kernel.launches;
  ++launch_number;
  has_failed = false;
  job = {&kernel, grid, block, {}, body, arguments};
  const unsigned blocks = grid.x * grid.y * grid.z;
  std::vector<unsigned> numbers(blocks);
  for (unsigned i = 0; i < blocks; ++i) numbers[i] = order == 1 ? blocks - 1 - i : i;
  for (unsigned i = blocks; is_random() && i > 1; --i) std::swap(numbers[i - 1], numbers[next_random() % i]);
  for (unsigned i : numbers) {
    if (has_failed) return;
    run_block({i % grid.x, i / grid.x % grid.y, i / (grid.x * grid.y)}, shared);
  }
}

void fail(const char *format, ...) {
  char text[500];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  end_launch(text);
}

uint3 thread_index() { return running->index; }
int lane_index() { return running->lane(); }
uint3 block_index() { return job.block_index; }
dim3 block_size() { return job.block; }
dim3 grid_size() { return job.grid; }
unsigned threads_per_block() { return static_cast<unsigned>(threads.size()); }
unsigned block_in_grid() {
  return job.block_index.x + job.grid.x * (job.block_index.y + job.grid.y * job.block_index.z);
}

void may_interrupt() {
  if (!is_random() || next_random() % kInterruptEvery) return;
  make_ready(*running);
  leave();
}

void wait_for_block() {
  running->state = State::kAtBarrier;
  const bool is_last = std::all_of(threads.begin(), threads.end(),
                                   [](const Thread &thread) { return thread.state == State::kAtBarrier; });
  if (is_last) {
    for (Thread &thread : threads) {
      ++thread.barriers;
      make_ready(thread);
    }
  }
  leave();
}

void wait_for_warp(const char *operation, unsigned mask, uint64_t value, uint64_t (&values)[kLanes]) {
  Thread &me = *running;
  if (!(mask >> me.lane() & 1)) fail("%s of mask %08x by lane %d, which it does not name", operation, mask, me.lane());
  me.state = State::kInWarp;
  me.operation = operation;
  me.mask = mask;
  me.value = value;
  const unsigned first = me.warp() * kLanes;
  bool is_last = true;
  for (int lane = 0; lane < kLanes; ++lane) {
    if (!(mask >> lane & 1)) continue;
    if (first + lane >= threads.size()) fail("%s of mask %08x: the block has no lane %d", operation, mask, lane);
    const Thread &other = threads[first + lane];
    if (other.state == State::kExited) fail("%s of mask %08x: lane %d has exited", operation, mask, lane);
    const bool is_here = other.state == State::kInWarp && other.mask == mask && !strcmp(other.operation, operation);
    is_last = is_last && is_here;
  }
  if (is_last) {
    uint64_t all[kLanes] = {};
    for (int lane = 0; lane < kLanes; ++lane) {
      if (mask >> lane & 1) all[lane] = threads[first + lane].value;
    }
    for (int lane = 0; lane < kLanes; ++lane) {
      if (!(mask >> lane & 1)) continue;
      memcpy(threads[first + lane].values, all, sizeof all);
      make_ready(threads[first + lane]);
    }
  }
  leave();
  memcpy(values, me.values, sizeof values);
}

void order_warp(unsigned mask) {
  Thread &me = *running;
  uint64_t values[kLanes];
  wait_for_warp("__syncwarp", mask, me.times[me.lane()], values);
  for (int lane = 0; lane < kLanes; ++lane) {
    if (mask >> lane & 1) me.times[lane] = static_cast<uint32_t>(values[lane]);
  }
  ++me.times[me.lane()];
}

}  // namespace rehearsal

using namespace rehearsal;

cudaError_t cudaGetLastError() {
  const cudaError_t error = last_error;
  last_error = cudaSuccess;
  return error;
}

const char *cudaGetErrorString(cudaError_t error) { return error == cudaSuccess ? "no error" : message.c_str(); }

cudaError_t cudaGetDevice(int *device) {
  *device = 0;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr, int) {
  *value = processors;
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *address, int value, size_t bytes, cudaStream_t stream) {
  const char *fault = stream == expected_stream ? fault_of_range(address, bytes) : "another stream";
  if (fault != nullptr) {
    note_failure(cudaErrorInvalidValue, std::string("cudaMemsetAsync: ") + fault);
    return cudaErrorInvalidValue;
  }
  memset(address, value, bytes);
  return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void *function, cudaFuncAttribute, int value) {
  const auto found = kernels().find(function);
  if (found == kernels().end() || value < 0 || static_cast<size_t>(value) > kMostSharedBytes) {
    note_failure(cudaErrorInvalidValue, "cudaFuncSetAttribute: " + std::to_string(value) + " bytes");
    return cudaErrorInvalidValue;
  }
  found->second.most_dynamic_shared = value;
  return cudaSuccess;
}

// What device.py calls.

extern "C" void rehearsal_start(uint64_t thread_order, int num_processors, void *stream) {
  order = thread_order;
  random_state = (thread_order + 1) * 0x9e3779b97f4a7c15ULL;
  processors = num_processors;
  expected_stream = stream;
  last_error = cudaSuccess;
}

// The i-th instance of a kernel; null past the last.
extern "C" const char *rehearsal_kernel(int64_t i, int64_t *launches) {
  if (i >= static_cast<int64_t>(kernels().size())) return nullptr;
  const Kernel &kernel = std::next(kernels().begin(), i)->second;
  *launches = kernel.launches;
  static std::string name;
  name = short_name(kernel.name);
  return name.c_str();
}
