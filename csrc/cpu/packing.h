#pragma once

#include <cstdint>

namespace realrl {

// First-fit decreasing: the bin of each item, bins numbered in the order in which they are opened.
// An item longer than the budget goes alone.
void first_fit_decreasing(const int64_t *lengths, int64_t num_items, int64_t budget, int64_t *bins);

// The largest differencing method: the bin of each item, bins numbered by their first item.
// The sum of the lengths times (num_items + 1), plus num_items, must fit into 63 bits.
void karmarkar_karp(const int64_t *lengths, int64_t num_items, int64_t num_bins, int64_t *bins);

}  // namespace realrl
