// Python's door to the CPU kernels. Addresses are `tensor.data_ptr()`; the caller in realrl/ops
// checks types and shapes, so nothing here depends on torch.
#include <pybind11/pybind11.h>

#include "boxes_cpu.h"
#include "counters_cpu.h"
#include "gae_cpu.h"
#include "simd_kernels.h"

namespace py = pybind11;

template <class T>
static T *pointer(std::uintptr_t address) {
  return reinterpret_cast<T *>(address);
}

static void gae(std::uintptr_t rewards, std::uintptr_t values, std::uintptr_t cu_seqlens,
                std::uintptr_t bootstrap, std::int64_t num_sequences, double gamma, double lam,
                std::uintptr_t advantages, std::uintptr_t returns, int num_threads) {
  const realrl::GaeInput in{pointer<const float>(rewards),
                            pointer<const float>(values),
                            pointer<const std::int32_t>(cu_seqlens),
                            pointer<const bool>(bootstrap),
                            num_sequences,
                            gamma,
                            lam};
  realrl::gae_cpu(in, {pointer<float>(advantages), pointer<float>(returns)}, num_threads);
}

static void move_boxes(std::uintptr_t boxes, std::int64_t num_boxes, std::uintptr_t message,
                       std::int64_t num_bytes, bool into_message, double eta, std::uintptr_t checksum,
                       int num_threads) {
  const realrl::BoxesJob job{pointer<const realrl::Box>(boxes), num_boxes, pointer<char>(message),
                             num_bytes, into_message, eta};
  realrl::boxes_cpu(job, pointer<std::uint64_t>(checksum), num_threads);
}

static realrl::NormJob norm_job(std::uintptr_t x, std::uintptr_t weight, std::int64_t rows, std::int64_t width,
                                float epsilon, float offset, bool is_bf16) {
  return {pointer<const void>(x), pointer<const void>(weight), rows, width, epsilon, offset, is_bf16};
}

static void rms_norm(std::uintptr_t x, std::uintptr_t weight, std::int64_t rows, std::int64_t width,
                     float epsilon, float offset, bool is_bf16, std::uintptr_t y, std::uintptr_t inverse,
                     int num_threads) {
  const auto job = norm_job(x, weight, rows, width, epsilon, offset, is_bf16);
  realrl::simd_kernels().rms_norm(job, pointer<void>(y), pointer<float>(inverse), num_threads);
}

static void rms_norm_backward(std::uintptr_t x, std::uintptr_t weight, std::int64_t rows, std::int64_t width,
                              float epsilon, float offset, bool is_bf16, std::uintptr_t dy,
                              std::uintptr_t inverse, std::uintptr_t dx, std::uintptr_t dweight,
                              int num_threads) {
  const auto job = norm_job(x, weight, rows, width, epsilon, offset, is_bf16);
  realrl::simd_kernels().rms_norm_backward(job, pointer<const void>(dy), pointer<const float>(inverse),
                                           pointer<void>(dx), pointer<float>(dweight), num_threads);
}

static std::string instruction_set() { return realrl::simd_kernels().name; }

static void publish(std::uintptr_t counter, std::int32_t value) {
  realrl::publish_counter(pointer<std::int32_t>(counter), value);
}

static bool wait_at_least(std::uintptr_t counter, std::int32_t value, double timeout_s) {
  return realrl::wait_counter(pointer<const std::int32_t>(counter), value, timeout_s);
}

PYBIND11_MODULE(_kernels, module) {
  using release_gil = py::call_guard<py::gil_scoped_release>;
  module.doc() = "C++ kernels on raw addresses; call them through realrl.ops";
  module.def("gae", &gae, release_gil());
  module.def("move_boxes", &move_boxes, release_gil());
  module.def("instruction_set", &instruction_set);
  module.def("rms_norm", &rms_norm, release_gil());
  module.def("rms_norm_backward", &rms_norm_backward, release_gil());
  module.def("publish", &publish, release_gil());
  module.def("wait_at_least", &wait_at_least, release_gil());
}
