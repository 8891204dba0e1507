// SPDX-License-Identifier: MIT OR Apache-2.0
//
// The end of the server in good order.

#pragma once

#include <chrono>
#include <stop_token>

namespace mayfly {

// To be called before Drogon runs: what end_in_order() needs to know, it has to be told from the start.
void prepare_to_end();

// Ends the server: no connection is accepted any more, requests that have come are answered, for which they have
// `patience`, and their connections are closed; then drogon::app().quit(). Waits for all that, or until `stop` is
// requested. Not on a loop. A second call returns at once.
void end_in_order(std::chrono::milliseconds patience, std::stop_token stop) noexcept;

} // namespace mayfly
