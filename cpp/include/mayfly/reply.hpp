// SPDX-License-Identifier: MIT OR Apache-2.0
//
// The receiver of a response.

#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace mayfly {

// Receives one response: body() or no_body(), then status(), then header() for each header. Status and headers are
// valid, so that implementations need not check them. A second body() or status() starts over and voids what came
// before: an error replaces a response that could not be read to its end.
//
// A reply that is passed to LoopPool::call_later may be used and destroyed on any thread, by one at a time; send() is
// called when the response is complete. If it is destroyed without that, the request was given up, and its destructor
// has to answer the client.
//
// No function may throw: there is Rust on the stack.
class Reply {
  public:
    virtual ~Reply() = default;

    // Returns `size` bytes to be overwritten with the body. They are valid until the next call.
    virtual std::span<char> body(std::size_t size) noexcept = 0;

    // Instead of body(): there is no body, because the request or the status excludes it (HEAD, 304). `length` is that
    // of the body that a GET would get, if the tenant has named it.
    virtual void no_body(std::optional<std::uint64_t> /*length*/) noexcept { body(0); }

    // `status` is 200 to 599.
    virtual void status(std::uint16_t status) noexcept = 0;

    // `name` is a token of RFC 9110 in any case, `value` has no CR, LF or NUL. Both are valid during the call.
    virtual void header(std::string_view name, std::string_view value) noexcept = 0;

    // The response is complete. Called only for replies that were passed to LoopPool::call_later.
    virtual void send() noexcept = 0;

  protected:
    Reply() = default;
    Reply(const Reply &) = default;
    Reply &operator=(const Reply &) = default;
};

} // namespace mayfly
