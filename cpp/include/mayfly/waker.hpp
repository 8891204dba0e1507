// SPDX-License-Identifier: MIT OR Apache-2.0
//
// What wakes a thread that serves requests and has none.

#pragma once

namespace mayfly {

// Has a thread call LoopPool::tend() soon. It is called and destroyed on any thread, by one at a time, and must not
// block, nor call the pool itself.
class Waker {
  public:
    Waker() = default;
    Waker(const Waker &) = delete;
    Waker &operator=(const Waker &) = delete;
    virtual ~Waker() = default;

    virtual void wake() const noexcept = 0;
};

} // namespace mayfly
