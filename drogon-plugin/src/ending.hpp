// SPDX-License-Identifier: MIT OR Apache-2.0
//
// The end of the server in good order.

#pragma once

#include <chrono>

namespace mayfly {

// To be called before Drogon runs: what end_in_order() needs to know, it has to be told from the start.
void prepare_to_end();

// Ends the server: no connection is accepted any more, requests that have come are answered, for which they have
// `patience`, and their connections are closed; then drogon::app().quit(). Waits for all that, or until `hurry` says
// so. Not on a loop, and once. It starts no thread, which the system might not give.
void end_in_order(std::chrono::milliseconds patience, bool (*hurry)()) noexcept;

} // namespace mayfly
