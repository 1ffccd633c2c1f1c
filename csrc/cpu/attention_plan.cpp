#include "attention_plan.h"

#include <algorithm>

namespace realrl {

// Multiplications for which a thread is worth waking, about.
static constexpr int64_t kThreadWork = 1 << 18;

AttentionPlan::AttentionPlan(const AttentionShape &shape, const PackedTokens &tokens, int most_threads)
    : shape_(shape) {
  std::vector<SegmentGroup> found(tokens.num_segments);
  for (int64_t s = 0; s < tokens.num_segments; ++s) {
    const int64_t first_page = pages.size();
    add_segment(tokens.cu_seqlens[s], tokens.cu_seqlens[s + 1] - tokens.cu_seqlens[s], tokens.prefix[s]);
    SegmentGroup &group = found[tokens.prefix[s] < 0 ? s : tokens.prefix[s]];
    group.segments.push_back(s);
    for (int64_t page = first_page; page < static_cast<int64_t>(pages.size()); ++page) group.pages.push_back(page);
  }
  for (SegmentGroup &group : found) {
    group.first_block = blocks.size();
    for (const int64_t segment : group.segments) add_blocks(segment);
    group.end_block = blocks.size();
    if (group.end_block > group.first_block) groups.push_back(std::move(group));
  }
  const int64_t total = cost(0, blocks.size()) * shape.num_kv_heads;
  num_threads = static_cast<int>(std::clamp<int64_t>(total * shape.head_dim / kThreadWork, 1, most_threads));
  for (size_t g = 0; g < groups.size(); ++g) {
    const int64_t first = groups[g].first_block, end = groups[g].end_block;
    add_tasks(g, num_threads > 1 && end - first > 1 && cost(first, end) * 4 * num_threads > total);
  }
  std::stable_sort(tasks.begin(), tasks.end(),
                   [](const Task &a, const Task &b) { return a.cost_left > b.cost_left; });
}

void AttentionPlan::add_segment(int64_t first_token, int64_t length, int64_t prefix) {
  const KeyTokens keys = prefix < 0
                             ? KeyTokens{0, 0, first_token}
                             : KeyTokens{segments[prefix].first_token, segments[prefix].length, first_token};
  // The tile in which the prefix ends also holds tokens of the segment's own.
  const int64_t num_shared = keys.prefix_length / kPageKeys, segment = segments.size();
  std::vector<int32_t> table;
  if (num_shared) table.assign(tables_[prefix].begin(), tables_[prefix].begin() + num_shared);
  for (int64_t key = num_shared * kPageKeys; length > 0 && key < keys.prefix_length + length; key += kPageKeys) {
    const int64_t own = std::max(key, keys.prefix_length);
    const int64_t end = std::min(key + kPageKeys, keys.prefix_length + length);
    table.push_back(static_cast<int32_t>(pages.size()));
    pages.push_back({segment, key, first_token + own - keys.prefix_length, end - own});
  }
  tables_.push_back(std::move(table));
  segments.push_back({first_token, length, keys, tables_.back().data()});
}

void AttentionPlan::add_blocks(int64_t index) {
  const PackedSegment &segment = segments[index];
  const int64_t group = shape_.num_heads / shape_.num_kv_heads, num_rows = segment.length * group;
  const int64_t last_of_prefix = (segment.keys.prefix_length + kPageKeys - 1) / kPageKeys - 1;
  for (int64_t row = 0; row < num_rows; row += kBlockRows) {
    const int64_t count = std::min(kBlockRows, num_rows - row);
    const int64_t num_keys = std::min(segment.keys.prefix_length + (row + count) / group + 1, shape_.window);
    blocks.push_back({index, row, count, count * num_keys, row ? INT64_MAX : last_of_prefix});
  }
}

int64_t AttentionPlan::cost(int64_t first_block, int64_t end_block) const {
  int64_t total = 0;
  for (int64_t block = first_block; block < end_block; ++block) total += blocks[block].cost;
  return total;
}

void AttentionPlan::add_tasks(int64_t index, bool cut) {
  const SegmentGroup &group = groups[index];
  const int64_t step = cut ? 1 : group.end_block - group.first_block;
  for (int64_t kv_head = 0; kv_head < shape_.num_kv_heads; ++kv_head) {
    int64_t left = cost(group.first_block, group.end_block);
    for (int64_t block = group.first_block; block < group.end_block; block += step) {
      tasks.push_back({index, kv_head, block, block + step, left});
      left -= blocks[block].cost;
    }
  }
  if (cut) cut_pages.insert(cut_pages.end(), group.pages.begin(), group.pages.end());
}

bool AttentionPlan::is_whole(const Task &task) const {
  const SegmentGroup &group = groups[task.group];
  return task.first_block == group.first_block && task.end_block == group.end_block;
}

}  // namespace realrl
