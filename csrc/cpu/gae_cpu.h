#pragma once

#include "gae.h"

namespace realrl {

// Each sequence by one of `num_threads` threads.
void gae_cpu(const GaeInput &in, const GaeOutput &out, int num_threads);

}  // namespace realrl
