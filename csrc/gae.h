// Arithmetic of generalised advantage estimation, shared by the CPU and the CUDA kernel.
// Source: Schulman et al. 2016, arXiv:1506.02438, eq. 11 and 12.
#pragma once

#include <cstdint>

#include "host_device.h"

namespace realrl {

// A packed batch: sequence i has rewards [cu_seqlens[i], cu_seqlens[i+1]) and one value more than
// rewards, beginning at values[cu_seqlens[i] + i].
struct GaeInput {
  const float *rewards;         // [T]
  const float *values;          // [T + B]
  const int32_t *cu_seqlens;    // [B + 1]
  const bool *bootstrap;        // [B]
  const double *lams;           // [B]
  int64_t num_sequences;        // B
  double gamma;
};

struct GaeOutput {
  float *advantages;  // [T]
  float *returns;     // [T]
};

// One sequence of a batch.
struct GaeSequence {
  const float *rewards;
  const float *values;
  float *advantages;
  float *returns;
  int64_t length;
  bool bootstrap;
  double gamma;
  double lam;

  REALRL_HOST_DEVICE double discount() const { return gamma * lam; }

  // Temporal-difference error of token t. The state after the last token is worth nothing unless
  // the sequence was cut off there.
  REALRL_HOST_DEVICE double delta(int64_t t) const {
    const bool worthless = t + 1 == length && !bootstrap;
    const double next = worthless ? 0.0 : static_cast<double>(values[t + 1]);
    return static_cast<double>(rewards[t]) + gamma * next - static_cast<double>(values[t]);
  }

  REALRL_HOST_DEVICE void write(int64_t t, double advantage) const {
    advantages[t] = static_cast<float>(advantage);
    returns[t] = static_cast<float>(advantage + static_cast<double>(values[t]));
  }
};

REALRL_HOST_DEVICE GaeSequence gae_sequence(const GaeInput &in, const GaeOutput &out, int64_t i) {
  const int64_t start = in.cu_seqlens[i];
  return {in.rewards + start,     in.values + start + i, out.advantages + start,
          out.returns + start,    in.cu_seqlens[i + 1] - start,
          in.bootstrap[i],        in.gamma,
          in.lams[i]};
}

// A_t = delta_t + discount * A_{t+1}.
REALRL_HOST_DEVICE double gae_step(double delta, double discount, double next_advantage) {
  return delta + discount * next_advantage;
}

}  // namespace realrl
