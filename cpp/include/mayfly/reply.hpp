// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Where a response goes.

#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace mayfly {

// Receives one response: the body or that there is none, then the status, then each header. Status and headers are
// valid, so that nothing here has to check them. A second body() or status() starts over: what came before it is void,
// because an error takes the place of a response that could not be read to its end.
//
// A reply that is given to LoopPool::call_later may be used and destroyed on any thread, by one at a time; it
// gets send() when the response is complete. One that is destroyed without it was given up, and owes its client an
// answer.
//
// Nothing here may throw: there is Rust on the stack.
class Reply {
  public:
    virtual ~Reply() = default;

    // Returns `size` bytes to be overwritten with the body. They are valid until the next call.
    virtual std::span<char> body(std::size_t size) noexcept = 0;

    // In the place of body(): there is none, for the request or the status rules it out (HEAD, 304). `length` is that
    // of the body which a GET would have been answered with, if the tenant has said it.
    virtual void no_body(std::optional<std::uint64_t> /*length*/) noexcept { body(0); }

    // `status` is 200 to 599.
    virtual void status(std::uint16_t status) noexcept = 0;

    // `name` is a token of RFC 9110 in any case, `value` has no CR, LF or NUL. Both are valid during the call.
    virtual void header(std::string_view name, std::string_view value) noexcept = 0;

    // The response is complete. Called for replies given to LoopPool::call_later, and only for them.
    virtual void send() noexcept = 0;

  protected:
    Reply() = default;
    Reply(const Reply &) = default;
    Reply &operator=(const Reply &) = default;
};

} // namespace mayfly
