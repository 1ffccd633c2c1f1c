#include "gae_cpu.h"

namespace realrl {

// Below this many tokens, waking the threads costs more than the work.
constexpr int64_t kParallelTokens = 1 << 14;

static void run_sequence(const GaeSequence &sequence) {
  const double discount = sequence.discount();
  double advantage = 0.0;
  for (int64_t t = sequence.length - 1; t >= 0; --t) {
    advantage = gae_step(sequence.delta(t), discount, advantage);
    sequence.write(t, advantage);
  }
}

void gae_cpu(const GaeInput &in, const GaeOutput &out, int num_threads) {
  const bool parallel = num_threads > 1 && in.cu_seqlens[in.num_sequences] >= kParallelTokens;
#pragma omp parallel for schedule(dynamic) num_threads(num_threads) if (parallel)
  for (int64_t i = 0; i < in.num_sequences; ++i) {
    run_sequence(gae_sequence(in, out, i));
  }
}

}  // namespace realrl
