// Bins for items of integer lengths. realrl/ops/packing.py has the same algorithms in Python and says where
// they are from; both give the same bins, ties included.
#include "packing.h"

#include <algorithm>
#include <numeric>
#include <queue>
#include <utility>
#include <vector>

namespace realrl {

static std::vector<int64_t> longest_first(const int64_t *lengths, int64_t num_items) {
  std::vector<int64_t> order(num_items);
  std::iota(order.begin(), order.end(), int64_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [lengths](int64_t a, int64_t b) { return lengths[a] > lengths[b]; });
  return order;
}

// The room left in each bin, in the leaves of a tree whose inner nodes hold the larger of their two children.
// Bins that are not open yet have all their room, so the first that fits is at worst the next to open.
class Rooms {
 public:
  Rooms(int64_t num_bins, int64_t budget) {
    while (leaves_ < num_bins) leaves_ *= 2;
    most_.assign(2 * leaves_, budget);
  }

  int64_t first_with(int64_t room) const {
    int64_t node = 1;
    while (node < leaves_) {
      node *= 2;
      if (most_[node] < room) ++node;
    }
    return node - leaves_;
  }

  int64_t room(int64_t bin) const { return most_[leaves_ + bin]; }

  void set(int64_t bin, int64_t room) {
    int64_t node = leaves_ + bin;
    most_[node] = room;
    while (node /= 2) most_[node] = std::max(most_[2 * node], most_[2 * node + 1]);
  }

 private:
  int64_t leaves_ = 1;
  std::vector<int64_t> most_;
};

void first_fit_decreasing(const int64_t *lengths, int64_t num_items, int64_t budget, int64_t *bins) {
  constexpr int64_t kClosed = -1;
  Rooms rooms(num_items, budget);
  int64_t num_bins = 0;
  for (const int64_t item : longest_first(lengths, num_items)) {
    // Those that are too long come first, so the next bin is the one after the last.
    const bool alone = lengths[item] > budget;
    const int64_t bin = alone ? num_bins : rooms.first_with(lengths[item]);
    rooms.set(bin, alone ? kClosed : rooms.room(bin) - lengths[item]);
    bins[item] = bin;
    num_bins = std::max(num_bins, bin + 1);
  }
}

namespace {

// Items that share a bin: a chain through `next`.
struct Part {
  int64_t total;
  int64_t first;
  int64_t last;
};

bool heavier(const Part &a, const Part &b) { return a.total > b.total; }

// Parts in falling order; of the `num_bins`, those that are missing are empty.
struct Partition {
  std::vector<Part> parts;
  int64_t number;

  int64_t difference(int64_t num_bins) const {
    const bool is_full = static_cast<int64_t>(parts.size()) == num_bins;
    return parts.front().total - (is_full ? parts.back().total : 0);
  }
};

struct Entry {
  int64_t difference;
  int64_t number;
  int64_t slot;

  // The largest difference comes first, then the lowest number.
  bool operator<(const Entry &other) const {
    return difference != other.difference ? difference < other.difference : number > other.number;
  }
};

class Differencing {
 public:
  Differencing(const int64_t *lengths, int64_t num_items, int64_t num_bins)
      : num_bins_(num_bins), next_(num_items, -1), partitions_(num_items), number_(num_items) {
    std::vector<Entry> entries;
    entries.reserve(num_items);
    for (int64_t i = 0; i < num_items; ++i) {
      // Lengths first, and among equal ones the number of items.
      const int64_t total = lengths[i] * (num_items + 1) + 1;
      partitions_[i] = {{{total, i, i}}, i};
      entries.push_back({partitions_[i].difference(num_bins), i, i});
    }
    heap_ = std::priority_queue<Entry>(std::less<Entry>(), std::move(entries));
  }

  const std::vector<Part> &run() {
    while (heap_.size() > 1) {
      const int64_t a = pop(), b = pop();
      const bool swap = partitions_[b].parts.size() > partitions_[a].parts.size();
      const int64_t into = swap ? b : a, from = swap ? a : b;
      combine(partitions_[into].parts, partitions_[from].parts);
      partitions_[from].parts = {};
      partitions_[into].number = number_++;
      heap_.push({partitions_[into].difference(num_bins_), partitions_[into].number, into});
    }
    return partitions_[heap_.top().slot].parts;
  }

  int64_t next(int64_t item) const { return next_[item]; }

 private:
  int64_t pop() {
    const int64_t slot = heap_.top().slot;
    heap_.pop();
    return slot;
  }

  // The largest of one with the smallest of the other, and so on.
  void combine(std::vector<Part> &into, const std::vector<Part> &from) {
    const int64_t size = into.size(), added = from.size();
    const int64_t kept = std::min(size, num_bins_ - added);
    // An empty bin of `into` takes a part as it is, and those are the largest of `from`.
    const int64_t empty = std::min(num_bins_ - size, added);
    for (int64_t place = kept; place < size; ++place) join(into[place], from[num_bins_ - 1 - place]);
    into.insert(into.end(), from.begin(), from.begin() + empty);
    const auto tail = into.begin() + kept;
    std::stable_sort(tail, into.end(), heavier);
    std::inplace_merge(std::upper_bound(into.begin(), tail, *tail, heavier), tail, into.end(), heavier);
  }

  void join(Part &a, const Part &b) {
    next_[a.last] = b.first;
    a = {a.total + b.total, a.first, b.last};
  }

  const int64_t num_bins_;
  std::vector<int64_t> next_;
  std::vector<Partition> partitions_;
  std::priority_queue<Entry> heap_;
  int64_t number_;
};

}  // namespace

static void number_by_first_item(int64_t *bins, int64_t num_items, int64_t num_bins) {
  std::vector<int64_t> number(num_bins, -1);
  int64_t count = 0;
  for (int64_t i = 0; i < num_items; ++i) {
    if (number[bins[i]] < 0) number[bins[i]] = count++;
    bins[i] = number[bins[i]];
  }
}

void karmarkar_karp(const int64_t *lengths, int64_t num_items, int64_t num_bins, int64_t *bins) {
  if (num_items == 0) return;
  Differencing differencing(lengths, num_items, num_bins);
  int64_t bin = 0;
  for (const Part &part : differencing.run()) {
    for (int64_t item = part.first; item >= 0; item = differencing.next(item)) bins[item] = bin;
    ++bin;
  }
  number_by_first_item(bins, num_items, num_bins);
}

}  // namespace realrl
