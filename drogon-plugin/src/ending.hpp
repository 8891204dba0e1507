// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Graceful shutdown.

#pragma once

#include <chrono>

namespace mayfly {

// To be called before Drogon runs: end_in_order() needs to have seen all connections from the start.
void prepare_to_end();

// Shuts the server down: it accepts no more connections, answers the requests that have arrived, within `patience`,
// closes their connections, and then calls drogon::app().quit(). Waits for all that, or until `hurry` returns true. To
// be called once, and not on a loop. It starts no thread, which the system might refuse.
void end_in_order(std::chrono::milliseconds patience, bool (*hurry)()) noexcept;

} // namespace mayfly
