// Python's door to the CPU kernels. Addresses are `tensor.data_ptr()`; the caller in realrl/ops
// checks types and shapes, so nothing here depends on torch.
#include <pybind11/pybind11.h>

#include "attention_cpu.h"
#include "boxes_cpu.h"
#include "counters_cpu.h"
#include "gae_cpu.h"
#include "packing.h"
#include "simd_kernels.h"

namespace py = pybind11;

template <class T>
static T *pointer(std::uintptr_t address) {
  return reinterpret_cast<T *>(address);
}

static void gae(std::uintptr_t rewards, std::uintptr_t values, std::uintptr_t cu_seqlens,
                std::uintptr_t bootstrap, std::uintptr_t lams, std::int64_t num_sequences, double gamma,
                std::uintptr_t advantages, std::uintptr_t returns, int num_threads) {
  const realrl::GaeInput in{pointer<const float>(rewards),
                            pointer<const float>(values),
                            pointer<const std::int32_t>(cu_seqlens),
                            pointer<const bool>(bootstrap),
                            pointer<const double>(lams),
                            num_sequences,
                            gamma};
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

// logits, labels, rows, stride, num_real, first, temperature, cap and is_bf16 of a LogitsJob.
using LogitsArguments = std::tuple<std::uintptr_t, std::uintptr_t, std::int64_t, std::int64_t, std::int64_t,
                                   std::int64_t, float, float, bool>;

static realrl::LogitsJob logits_job(const LogitsArguments &in) {
  return {pointer<void>(std::get<0>(in)), pointer<const std::int64_t>(std::get<1>(in)),
          std::get<2>(in),                std::get<3>(in),
          std::get<4>(in),                std::get<5>(in),
          std::get<6>(in),                std::get<7>(in),
          std::get<8>(in)};
}

static void logits_statistics(const LogitsArguments &job, std::uintptr_t statistics, int num_threads) {
  auto *rows = pointer<realrl::RowStatistics>(statistics);
  realrl::simd_kernels().logits_statistics(logits_job(job), rows, num_threads);
}

static void logits_gradient(const LogitsArguments &job, std::uintptr_t logsumexp, std::uintptr_t entropy,
                            std::uintptr_t grad_logprob, std::uintptr_t grad_entropy, int num_threads) {
  const realrl::LogitsGradient gradient{pointer<const float>(logsumexp),
                                        pointer<const float>(entropy),
                                        pointer<const float>(grad_logprob),
                                        pointer<const float>(grad_entropy)};
  realrl::simd_kernels().logits_gradient(logits_job(job), gradient, num_threads);
}

static realrl::PackedTokens packed_tokens(std::uintptr_t qkv, std::uintptr_t cu_seqlens, std::uintptr_t prefix,
                                          std::int64_t num_segments) {
  return {pointer<const void>(qkv), pointer<const std::int32_t>(cu_seqlens), pointer<const std::int32_t>(prefix),
          num_segments};
}

static void attention(const realrl::AttentionShape &shape, std::uintptr_t qkv, std::uintptr_t cu_seqlens,
                      std::uintptr_t prefix, std::int64_t num_segments, std::uintptr_t out, std::uintptr_t lse,
                      int num_threads) {
  const auto tokens = packed_tokens(qkv, cu_seqlens, prefix, num_segments);
  realrl::attention_cpu(shape, tokens, pointer<void>(out), pointer<float>(lse), num_threads);
}

static void attention_backward(const realrl::AttentionShape &shape, std::uintptr_t qkv,
                               std::uintptr_t cu_seqlens, std::uintptr_t prefix, std::int64_t num_segments,
                               std::uintptr_t out, std::uintptr_t lse, std::uintptr_t dout, std::uintptr_t dqkv,
                               int num_threads) {
  const auto tokens = packed_tokens(qkv, cu_seqlens, prefix, num_segments);
  realrl::attention_backward_cpu(shape, tokens, pointer<const void>(out), pointer<const float>(lse),
                                 pointer<const void>(dout), pointer<void>(dqkv), num_threads);
}

static void use_huge_pages(std::uintptr_t memory, std::int64_t num_bytes) {
  realrl::use_huge_pages(pointer<void>(memory), num_bytes);
}

static void write_pages(const realrl::AttentionShape &shape, std::uintptr_t qkv, std::uintptr_t slots,
                        std::int64_t num_tokens, std::uintptr_t pool, int num_threads) {
  realrl::write_pages_cpu(shape, pointer<const void>(qkv), pointer<const std::int64_t>(slots), num_tokens,
                          pointer<void>(pool), num_threads);
}

static void attend_pages(const realrl::AttentionShape &shape, std::uintptr_t q, std::int64_t token_stride,
                         std::uintptr_t page_table, std::int64_t table_width, std::uintptr_t lengths,
                         std::int64_t num_sequences, std::uintptr_t pool, std::uintptr_t out, int num_threads) {
  const realrl::NewestTokens tokens{pointer<const void>(q),           token_stride,
                                    pointer<const std::int32_t>(page_table), table_width,
                                    pointer<const std::int64_t>(lengths),    num_sequences};
  realrl::attend_pages_cpu(shape, tokens, pointer<const void>(pool), pointer<void>(out), num_threads);
}

static void bind_attention(py::module_ &module) {
  using release_gil = py::call_guard<py::gil_scoped_release>;
  using Shape = realrl::AttentionShape;
  py::class_<Shape>(module, "AttentionShape")
      .def(py::init([](std::int64_t num_heads, std::int64_t num_kv_heads, std::int64_t head_dim, float scale,
                       float softcap, std::int64_t window, bool is_bf16) {
        return Shape{num_heads, num_kv_heads, head_dim, scale, softcap, window, is_bf16};
      }))
      .def("page_bytes", &realrl::page_bytes);
  module.attr("PAGE_KEYS") = realrl::kPageKeys;
  module.def("attention", &attention, release_gil());
  module.def("attention_backward", &attention_backward, release_gil());
  module.def("use_huge_pages", &use_huge_pages);
  module.def("write_pages", &write_pages, release_gil());
  module.def("attend_pages", &attend_pages, release_gil());
}

static void gated(std::uintptr_t gate_up, std::int64_t rows, std::int64_t width, bool is_gelu, bool is_bf16,
                  std::uintptr_t y, int num_threads) {
  const realrl::GatedJob job{pointer<const void>(gate_up), rows, width, is_gelu, is_bf16};
  realrl::simd_kernels().gated(job, pointer<void>(y), num_threads);
}

static void gated_backward(std::uintptr_t gate_up, std::int64_t rows, std::int64_t width, bool is_gelu,
                           bool is_bf16, std::uintptr_t dy, std::uintptr_t d_gate_up, int num_threads) {
  const realrl::GatedJob job{pointer<const void>(gate_up), rows, width, is_gelu, is_bf16};
  realrl::simd_kernels().gated_backward(job, pointer<const void>(dy), pointer<void>(d_gate_up), num_threads);
}

static void rotate(std::uintptr_t x, std::uintptr_t cosines, std::uintptr_t sines, std::int64_t tokens,
                   std::int64_t heads, std::int64_t rotated_heads, std::int64_t half, bool inverse,
                   bool is_bf16, std::uintptr_t y, int num_threads) {
  const realrl::RotaryJob job{pointer<const void>(x),
                              pointer<const float>(cosines),
                              pointer<const float>(sines),
                              tokens,
                              heads,
                              rotated_heads,
                              half,
                              inverse,
                              is_bf16};
  realrl::simd_kernels().rotate(job, pointer<void>(y), num_threads);
}

static void draw(std::uintptr_t logits, bool is_bf16, std::int64_t rows, std::int64_t width,
                 float inverse_temperature, std::uintptr_t uniforms, std::uintptr_t tokens, int num_threads) {
  const realrl::DrawJob job{pointer<const void>(logits), is_bf16, rows, width, inverse_temperature,
                            pointer<const double>(uniforms)};
  realrl::simd_kernels().draw(job, pointer<std::int64_t>(tokens), num_threads);
}

static std::string instruction_set() { return realrl::simd_kernels().name; }

static void publish(std::uintptr_t counter, std::int32_t value) {
  realrl::publish_counter(pointer<std::int32_t>(counter), value);
}

static bool wait_at_least(std::uintptr_t counter, std::int32_t value, double timeout_s) {
  return realrl::wait_counter(pointer<const std::int32_t>(counter), value, timeout_s);
}

static void first_fit_decreasing(std::uintptr_t lengths, std::int64_t num_items, std::int64_t budget,
                                 std::uintptr_t bins) {
  realrl::first_fit_decreasing(pointer<const std::int64_t>(lengths), num_items, budget,
                               pointer<std::int64_t>(bins));
}

static void karmarkar_karp(std::uintptr_t lengths, std::int64_t num_items, std::int64_t num_bins,
                           std::uintptr_t bins) {
  realrl::karmarkar_karp(pointer<const std::int64_t>(lengths), num_items, num_bins,
                         pointer<std::int64_t>(bins));
}

PYBIND11_MODULE(_kernels, module) {
  using release_gil = py::call_guard<py::gil_scoped_release>;
  module.doc() = "C++ kernels on raw addresses; call them through realrl.ops";
  module.def("gae", &gae, release_gil());
  module.def("move_boxes", &move_boxes, release_gil());
  module.def("instruction_set", &instruction_set);
  module.def("rms_norm", &rms_norm, release_gil());
  module.def("rms_norm_backward", &rms_norm_backward, release_gil());
  module.def("first_fit_decreasing", &first_fit_decreasing, release_gil());
  module.def("karmarkar_karp", &karmarkar_karp, release_gil());
  module.def("logits_statistics", &logits_statistics, release_gil());
  module.def("logits_gradient", &logits_gradient, release_gil());
  bind_attention(module);
  module.def("gated", &gated, release_gil());
  module.def("gated_backward", &gated_backward, release_gil());
  module.def("rotate", &rotate, release_gil());
  module.def("draw", &draw, release_gil());
  module.def("publish", &publish, release_gil());
  module.def("wait_at_least", &wait_at_least, release_gil());
}
