#pragma once

#include <cstdint>

namespace realrl {

// Let those who see `value` also see what was written before, and wake whoever waits.
void publish_counter(int32_t *counter, int32_t value);

// Whether the counter reached `value` within the time. It may give up earlier, as when a signal comes.
bool wait_counter(const int32_t *counter, int32_t value, double timeout_s);

}  // namespace realrl
