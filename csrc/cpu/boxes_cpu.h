#pragma once

#include "boxes.h"

namespace realrl {

// Move the boxes' elements between tensors and message, by `num_threads` threads where it pays.
// With `checksum`, positions are the message's bytes, and their sum goes there.
void boxes_cpu(const BoxesJob &job, uint64_t *checksum, int num_threads);

}  // namespace realrl
