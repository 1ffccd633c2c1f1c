// Python's door to the CPU kernels. Addresses are `tensor.data_ptr()`; the caller in realrl/ops
// checks types and shapes, so nothing here depends on torch.
#include <pybind11/pybind11.h>

#include "gae_cpu.h"

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

PYBIND11_MODULE(_kernels, module) {
  module.doc() = "C++ kernels on raw addresses; call them through realrl.ops";
  module.def("gae", &gae, py::call_guard<py::gil_scoped_release>());
}
