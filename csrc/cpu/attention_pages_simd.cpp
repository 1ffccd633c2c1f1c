// Lays keys and values out as the products take them.
#include "attention_simd.h"
#include "packing_simd.h"

namespace realrl {
namespace REALRL_SIMD {

template <class T>
static void pack(const AttentionShape &shape, const T *qkv, const KeyTokens &at, int64_t length,
                 int64_t first_key, int64_t kv_head, T *page, T *turned) {
  const int64_t stride = (shape.num_heads + 2 * shape.num_kv_heads) * shape.head_dim;
  const int64_t end = smaller_of(first_key + kPageKeys, length);
  const int64_t from_prefix = larger_of(0, smaller_of(end, at.prefix_length) - first_key);
  const int64_t own = larger_of(0, first_key - at.prefix_length);
  const T *keys = qkv + (shape.num_heads + kv_head) * shape.head_dim;
  Tokens<T> tokens{{keys + (at.prefix_token + first_key) * stride, keys + (at.own_token + own) * stride},
                   {from_prefix, end - first_key - from_prefix},
                   stride};
  Tokens<T> values = tokens;
  for (auto &first : values.first) first += shape.num_kv_heads * shape.head_dim;
  const int64_t key_elements = kPageKeys * shape.head_dim, padded = up_to(shape.head_dim, kLanes);
  lay_by_dim(tokens, shape.head_dim, page, true);
  lay_by_key(values, shape.head_dim, page + key_elements);
  if (!turned) return;
  lay_by_key(tokens, shape.head_dim, turned);
  lay_by_dim(values, shape.head_dim, turned + kPageKeys * padded, true);
}

void pack_page(const AttentionShape &shape, const void *qkv, const KeyTokens &tokens, int64_t length,
               int64_t first_key, int64_t kv_head, void *page, void *turned) {
  if (shape.is_bf16)
    pack(shape, static_cast<const bf16 *>(qkv), tokens, length, first_key, kv_head, static_cast<bf16 *>(page),
         static_cast<bf16 *>(turned));
  else
    pack(shape, static_cast<const float *>(qkv), tokens, length, first_key, kv_head, static_cast<float *>(page),
         static_cast<float *>(turned));
}

// One token's words to a column of the keys, or of as many as there are in a row: those whole vectors at a time.
template <class T>
static void write_keys(const Tokens<T> &tokens, int64_t head_dim, int64_t offset, T *keys) {
  constexpr int64_t width = Step<T>::kWidth;
  if (tokens.count[0] >= 4) return lay_by_dim(tokens, head_dim, keys + offset * width, false);
  for (int64_t i = 0; i < tokens.count[0]; ++i)
    for (int64_t step = 0; step < head_dim / width; ++step)
      memcpy(keys + (step * kPageKeys + offset + i) * width, token(tokens, i) + step * width, 4);
}

// Two tokens that share a step are laid together; one alone leaves the other's place as it is.
template <class T>
static void write_values(const Tokens<T> &tokens, int64_t head_dim, int64_t offset, T *values) {
  constexpr int64_t width = Step<T>::kWidth;
  const int64_t padded = up_to(head_dim, kLanes), end = tokens.count[0];
  for (int64_t i = 0; i < end;) {
    T *to = values + (offset + i) / width * width * padded + (offset + i) % width;
    if ((offset + i) % width == 0 && i + width <= end) {
      lay_step(token(tokens, i), token(tokens, i + width - 1), head_dim, padded, to);
      i += width;
    } else {
      for (int64_t d = 0; d < head_dim; ++d) to[d * width] = token(tokens, i)[d];
      ++i;
    }
  }
}

template <class T>
static void write(const AttentionShape &shape, const T *qkv, int64_t num_tokens, int64_t offset, T *page) {
  const int64_t dim = shape.head_dim, stride = (shape.num_heads + 2 * shape.num_kv_heads) * dim;
  for (int64_t head = 0; head < shape.num_kv_heads; ++head) {
    const T *key = qkv + (shape.num_heads + head) * dim, *value = key + shape.num_kv_heads * dim;
    write_keys<T>({{key, key}, {num_tokens, 0}, stride}, dim, offset, page);
    write_values<T>({{value, value}, {num_tokens, 0}, stride}, dim, offset, page + kPageKeys * dim);
    page += page_head_elements(shape);
  }
}

void write_tokens(const AttentionShape &shape, const void *qkv, int64_t num_tokens, int64_t offset, void *page) {
  if (shape.is_bf16)
    write(shape, static_cast<const bf16 *>(qkv), num_tokens, offset, static_cast<bf16 *>(page));
  else
    write(shape, static_cast<const float *>(qkv), num_tokens, offset, static_cast<float *>(page));
}

}  // namespace REALRL_SIMD
}  // namespace realrl
