// Gated linear units (Shazeer 2020, arXiv:2002.05202, eq. 6): y = act(gate) * up, and their gradient, shared
// by the CPU and the CUDA kernels. `Math` has the type of some lanes, `Real`, and their sigmoid.
#pragma once

#include <cstdint>

#include "host_device.h"

namespace realrl {

// Rows of `width` gates and then as many ups.
struct GatedJob {
  const void *gate_up;  // [rows, 2 * width]
  int64_t rows, width;
  bool is_gelu, is_bf16;  // else SiLU, float32
};

// Both activations are x * sigmoid(inner(x)); `slope` is inner's derivative.
template <class Math>
struct Silu {
  using Real = typename Math::Real;
  static REALRL_HOST_DEVICE Real inner(Real x) { return x; }
  static REALRL_HOST_DEVICE Real slope(Real) { return Real{} + 1.0f; }
};

// 0.5 * x * (1 + tanh(u)) = x * sigmoid(2u) with u = sqrt(2 / pi) * (x + 0.044715 x^3), the approximation of
// Hendrycks & Gimpel 2016, arXiv:1606.08415.
template <class Math>
struct GeluTanh {
  using Real = typename Math::Real;
  static constexpr float kFactor = 1.5957691216f;  // 2 * sqrt(2 / pi)
  static REALRL_HOST_DEVICE Real inner(Real x) { return x * (x * x * (kFactor * 0.044715f) + kFactor); }
  static REALRL_HOST_DEVICE Real slope(Real x) { return x * x * (3 * kFactor * 0.044715f) + kFactor; }
};

template <template <class> class Activation, class Math, class Real = typename Math::Real>
REALRL_HOST_DEVICE Real gated_value(Real gate, Real up) {
  return gate * Math::sigmoid(Activation<Math>::inner(gate)) * up;
}

template <class Real>
struct GateAndUp {
  Real gate, up;
};

template <template <class> class Activation, class Math, class Real = typename Math::Real>
REALRL_HOST_DEVICE GateAndUp<Real> gated_gradient(Real gate, Real up, Real dy) {
  const Real s = Math::sigmoid(Activation<Math>::inner(gate)), active = gate * s;
  return {dy * up * (s + active * (1.0f - s) * Activation<Math>::slope(gate)), dy * active};
}

}  // namespace realrl
