#include "counters_cpu.h"

#include <algorithm>
#include <climits>
#include <ctime>

#ifdef __linux__
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace realrl {

// About a microsecond: the other process may well be waiting for this very core.
constexpr int kSpins = 30;

static bool reached(const int32_t *counter, int32_t value, int32_t *seen) {
  *seen = __atomic_load_n(counter, __ATOMIC_ACQUIRE);
  return *seen >= value;
}

static void pause_briefly() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#endif
}

static timespec duration(double seconds) {
  const double whole = static_cast<double>(static_cast<time_t>(seconds));
  return {static_cast<time_t>(whole), static_cast<long>((seconds - whole) * 1e9)};
}

// The futexes are not private: the processes map the counter at different addresses.
#ifdef __linux__
static void sleep_while(const int32_t *counter, int32_t seen, double timeout_s) {
  const timespec timeout = duration(timeout_s);
  syscall(SYS_futex, counter, FUTEX_WAIT, seen, &timeout, nullptr, 0);
}

static void wake_all(int32_t *counter) {
  syscall(SYS_futex, counter, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}
#else
static void sleep_while(const int32_t *, int32_t, double timeout_s) {
  const timespec nap = duration(std::min(timeout_s, 1e-3));
  nanosleep(&nap, nullptr);
}

static void wake_all(int32_t *) {}
#endif

void publish_counter(int32_t *counter, int32_t value) {
  __atomic_store_n(counter, value, __ATOMIC_RELEASE);
  wake_all(counter);
}

bool wait_counter(const int32_t *counter, int32_t value, double timeout_s) {
  int32_t seen;
  for (int i = 0; i < kSpins; ++i) {
    if (reached(counter, value, &seen)) return true;
    pause_briefly();
  }
  if (timeout_s > 0) sleep_while(counter, seen, timeout_s);
  return reached(counter, value, &seen);
}

}  // namespace realrl
