// How attention over packed tokens is cut into blocks of query rows, and how these are shared out.
#pragma once

#include <vector>

#include "attention.h"

namespace realrl {

// Packed tokens in segments, each of which may see another as its prefix.
struct PackedTokens {
  const void *qkv;  // [tokens, Q + 2K, D]
  const int32_t *cu_seqlens;
  const int32_t *prefix;  // [num_segments], an earlier segment or -1
  int64_t num_segments;
};

struct PackedSegment {
  int64_t first_token, length;
  KeyTokens keys;
  const int32_t *table;  // the pages of its prefix and of its own
};

// A page of a segment's own, and the tokens that stand in no page before: those from `first_token`.
struct Page {
  int64_t segment, first_key, first_token, num_tokens;
};

// Query rows of a segment, of every K/V head alike.
struct Block {
  int64_t segment, first_row, num_rows;
  int64_t cost;         // pairs of row and key, about
  int64_t last_shared;  // the last tile that it shares with the block before in its group; -1: none
};

// A segment and those that see it as their prefix: its keys' gradients are theirs alone.
struct SegmentGroup {
  std::vector<int64_t> segments, pages;
  int64_t first_block, end_block;
};

// Blocks of a group, one after the other, for one K/V head.
struct Task {
  int64_t group, kv_head, first_block, end_block;
  int64_t cost_left;  // of its group from here on
};

class AttentionPlan {
 public:
  AttentionPlan(const AttentionShape &shape, const PackedTokens &tokens, int num_threads);

  std::vector<PackedSegment> segments;
  std::vector<Page> pages;
  std::vector<Block> blocks;
  std::vector<SegmentGroup> groups;
  // Whole groups, which find their keys in the caches; large ones in pieces, so that no thread waits long for
  // the last. What remains of a group orders them: the most first, and a group's own blocks in their order.
  std::vector<Task> tasks;
  std::vector<int64_t> cut_pages;  // of the groups in pieces
  int num_threads;                 // that are worth waking

  bool is_whole(const Task &task) const;

 private:
  void add_segment(int64_t first_token, int64_t length, int64_t prefix);
  void add_blocks(int64_t segment);
  void add_tasks(int64_t group, bool cut);
  int64_t cost(int64_t first_block, int64_t end_block) const;

  AttentionShape shape_;
  std::vector<std::vector<int32_t>> tables_;
};

}  // namespace realrl
