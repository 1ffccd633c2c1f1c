#include "attention_cpu.h"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

#include <omp.h>
#include <sys/mman.h>
#include <unistd.h>

#include "simd_kernels.h"

namespace realrl {
namespace {

struct Free {
  void operator()(char *memory) const { std::free(memory); }
};
using Memory = std::unique_ptr<char, Free>;

Memory memory_of(int64_t num_bytes) {
  void *memory = nullptr;
  if (posix_memalign(&memory, 64, num_bytes > 64 ? num_bytes : 64) != 0) throw std::bad_alloc();
  return Memory(static_cast<char *>(memory));
}

int64_t token_elements(const AttentionShape &shape) {
  return (shape.num_heads + 2 * shape.num_kv_heads) * shape.head_dim;
}

template <class Tensor>
Tensor *at(const AttentionShape &shape, Tensor *tensor, int64_t element);

template <>
const void *at(const AttentionShape &shape, const void *tensor, int64_t element) {
  return static_cast<const char *>(tensor) + element * element_bytes(shape);
}

template <>
void *at(const AttentionShape &shape, void *tensor, int64_t element) {
  return static_cast<char *>(tensor) + element * element_bytes(shape);
}

// Attention over packed tokens, whose keys it lays into pages of its own.
class Packed {
 public:
  Packed(const AttentionShape &shape, const PackedTokens &tokens, int num_threads)
      : shape_(shape),
        tokens_(tokens),
        plan_(shape, tokens, num_threads),
        scratch_(memory_of(scratch_bytes(shape) * plan_.num_threads)),
        pages_(memory_of(page_bytes(shape) * plan_.pages.size())) {}

  void forward(void *out, float *lse) {
    const auto work = [&](int64_t block, int64_t kv_head, void *scratch) {
      const PackedSegment &segment = segment_of(block);
      const int64_t row = segment.first_token * shape_.num_heads;
      simd_kernels().attend(shape_, rows(block), pages(segment, kv_head),
                            at(shape_, out, row * shape_.head_dim), lse + row, scratch);
    };
    run([&](int64_t page, int64_t kv_head) { lay_page(page, kv_head); }, work, [](int64_t, int64_t) {});
  }

  void backward(const void *out, const float *lse, const void *dout, void *dqkv) {
    turned_ = memory_of(page_bytes(shape_) * plan_.pages.size());
    head_floats_ = tokens_.cu_seqlens[tokens_.num_segments] * padded_dim(shape_);
    gradients_ = memory_of(2 * shape_.num_kv_heads * head_floats_ * sizeof(float));
    std::vector<int32_t> done(shape_.num_kv_heads * plan_.blocks.size(), 0);
    const auto prepare = [&](int64_t page, int64_t kv_head) {
      lay_page(page, kv_head);
      clear_gradients(plan_.pages[page], kv_head);
    };
    const auto work = [&](int64_t block, int64_t kv_head, void *scratch) {
      const int64_t first_token = segment_of(block).first_token;
      const int64_t row = first_token * shape_.num_heads, element = row * shape_.head_dim;
      const BackwardRows given{rows(block), at(shape_, out, element), at(shape_, dout, element), lse + row,
                               at(shape_, dqkv, first_token * token_elements(shape_))};
      int32_t *mine = &done[kv_head * plan_.blocks.size() + block];
      const int64_t last_shared = plan_.blocks[block].last_shared;
      const Turn turn{last_shared < 0 ? nullptr : mine - 1, mine, last_shared};
      simd_kernels().attend_backward(shape_, given, backward_keys(block, kv_head), turn, scratch);
    };
    const auto finish = [&](int64_t page, int64_t kv_head) {
      const int64_t first = plan_.pages[page].first_token, end = first + plan_.pages[page].num_tokens;
      simd_kernels().store_key_gradients(shape_, dk(kv_head), dv(kv_head), kv_head, first, end, dqkv);
    };
    run(prepare, work, finish);
  }

 private:
  // A whole group is prepared and finished beside its work, while its pages are in the caches; those in pieces
  // before and after.
  template <class Prepare, class Work, class Finish>
  void run(const Prepare &prepare, const Work &work, const Finish &finish) {
    for_cut_pages(prepare);
    for_tasks([&](const Task &task, void *scratch) {
      const bool whole = plan_.is_whole(task);
      const std::vector<int64_t> &pages = plan_.groups[task.group].pages;
      for (size_t i = 0; whole && i < pages.size(); ++i) prepare(pages[i], task.kv_head);
      for (int64_t block = task.first_block; block < task.end_block; ++block) work(block, task.kv_head, scratch);
      for (size_t i = 0; whole && i < pages.size(); ++i) finish(pages[i], task.kv_head);
    });
    for_cut_pages(finish);
  }

  template <class Act>
  void for_cut_pages(const Act &act) {
    const int64_t num_pages = plan_.cut_pages.size();
    if (!num_pages) return;
#pragma omp parallel for collapse(2) schedule(static) num_threads(plan_.num_threads)
    for (int64_t page = 0; page < num_pages; ++page)
      for (int64_t kv_head = 0; kv_head < shape_.num_kv_heads; ++kv_head) act(plan_.cut_pages[page], kv_head);
  }

  // Takes tasks in their order, so that whoever waits for a turn waits for a block that has begun.
  template <class Work>
  void for_tasks(const Work &work) {
    const int64_t num_tasks = plan_.tasks.size();
    std::atomic<int64_t> next{0};
#pragma omp parallel num_threads(plan_.num_threads)
    {
      char *scratch = scratch_.get() + omp_get_thread_num() * scratch_bytes(shape_);
      for (int64_t taken; (taken = next.fetch_add(1)) < num_tasks;) work(plan_.tasks[taken], scratch);
    }
  }

  void lay_page(int64_t page, int64_t kv_head) {
    const PackedSegment &segment = plan_.segments[plan_.pages[page].segment];
    const int64_t element = (page * shape_.num_kv_heads + kv_head) * page_head_elements(shape_);
    void *turned = turned_ ? at<void>(shape_, turned_.get(), element) : nullptr;
    simd_kernels().pack_page(shape_, tokens_.qkv, segment.keys, segment.keys.prefix_length + segment.length,
                             plan_.pages[page].first_key, kv_head, at<void>(shape_, pages_.get(), element),
                             turned);
  }

  void clear_gradients(const Page &page, int64_t kv_head) {
    const int64_t dim = padded_dim(shape_);
    for (float *sums : {dk(kv_head), dv(kv_head)})
      std::memset(sums + page.first_token * dim, 0, page.num_tokens * dim * sizeof(float));
  }

  const PackedSegment &segment_of(int64_t block) const { return plan_.segments[plan_.blocks[block].segment]; }

  QueryRows rows(int64_t index) const {
    const Block &block = plan_.blocks[index];
    const PackedSegment &segment = segment_of(index);
    const int64_t stride = token_elements(shape_);
    return {at(shape_, tokens_.qkv, segment.first_token * stride), stride, block.first_row, block.num_rows,
            segment.keys.prefix_length};
  }

  KeyPages pages(const PackedSegment &segment, int64_t kv_head) const {
    return {pages_.get(), segment.table, kv_head, false};
  }

  BackwardKeys backward_keys(int64_t block, int64_t kv_head) const {
    const PackedSegment &segment = segment_of(block);
    return {pages(segment, kv_head), turned_.get(), segment.keys, dk(kv_head), dv(kv_head)};
  }

  // Float32 sums of the keys' and values' gradients: [tokens, Dp] of one K/V head.
  float *dk(int64_t kv_head) const { return head_gradients(2 * kv_head); }
  float *dv(int64_t kv_head) const { return head_gradients(2 * kv_head + 1); }
  float *head_gradients(int64_t index) const {
    return reinterpret_cast<float *>(gradients_.get()) + index * head_floats_;
  }

  const AttentionShape shape_;
  const PackedTokens tokens_;
  const AttentionPlan plan_;
  const Memory scratch_, pages_;
  Memory turned_, gradients_;
  int64_t head_floats_ = 0;
};

}  // namespace

void attention_cpu(const AttentionShape &shape, const PackedTokens &tokens, void *out, float *lse,
                   int num_threads) {
  Packed(shape, tokens, num_threads).forward(out, lse);
}

void attention_backward_cpu(const AttentionShape &shape, const PackedTokens &tokens, const void *out,
                            const float *lse, const void *dout, void *dqkv, int num_threads) {
  Packed(shape, tokens, num_threads).backward(out, lse, dout, dqkv);
}

void use_huge_pages(void *memory, int64_t num_bytes) {
#ifdef MADV_HUGEPAGE
  const std::uintptr_t page = sysconf(_SC_PAGESIZE), first = reinterpret_cast<std::uintptr_t>(memory);
  const std::uintptr_t begin = (first + page - 1) / page * page, end = (first + num_bytes) / page * page;
  // Advice that is not taken changes nothing but the speed.
  if (begin < end) madvise(reinterpret_cast<void *>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

// Tokens in a row that go into places in a row of one page, from `first` on.
static int64_t run_length(const int64_t *slots, int64_t first, int64_t end) {
  int64_t next = first + 1;
  while (next < end && slots[next] == slots[next - 1] + 1 && slots[next] % kPageKeys != 0) ++next;
  return next - first;
}

void write_pages_cpu(const AttentionShape &shape, const void *qkv, const int64_t *slots, int64_t num_tokens,
                     void *pool, int num_threads) {
#pragma omp parallel for schedule(static) num_threads(num_threads) if (num_tokens > 4 * kPageKeys)
  for (int64_t first = 0; first < num_tokens; first += kPageKeys) {
    const int64_t end = first + kPageKeys < num_tokens ? first + kPageKeys : num_tokens;
    for (int64_t token = first, count; token < end; token += count) {
      count = run_length(slots, token, end);
      char *page = static_cast<char *>(pool) + slots[token] / kPageKeys * page_bytes(shape);
      simd_kernels().write_tokens(shape, at(shape, qkv, token * token_elements(shape)), count,
                                  slots[token] % kPageKeys, page);
    }
  }
}

void attend_pages_cpu(const AttentionShape &shape, const NewestTokens &tokens, const void *pool, void *out,
                      int num_threads) {
  const int64_t group = shape.num_heads / shape.num_kv_heads, out_stride = shape.num_heads * shape.head_dim;
  const Memory scratch = memory_of(scratch_bytes(shape) * num_threads);
#pragma omp parallel for collapse(2) schedule(dynamic, 1) num_threads(num_threads)
  for (int64_t s = 0; s < tokens.num_sequences; ++s)
    for (int64_t kv_head = 0; kv_head < shape.num_kv_heads; ++kv_head)
      for (int64_t row = 0; row < group; row += kBlockRows) {
        const QueryRows rows{at(shape, tokens.q, s * tokens.token_stride), tokens.token_stride, row,
                             group - row < kBlockRows ? group - row : kBlockRows, tokens.lengths[s] - 1};
        const KeyPages pages{pool, tokens.page_table + s * tokens.table_width, kv_head, true};
        simd_kernels().attend(shape, rows, pages, at(shape, out, s * out_stride), nullptr,
                              scratch.get() + omp_get_thread_num() * scratch_bytes(shape));
      }
}

}  // namespace realrl
