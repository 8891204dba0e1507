// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Wakes a thread that serves requests while it has none.

#pragma once

namespace mayfly {

// Makes a thread call LoopPool::tend() soon. It is called and destroyed on any thread, by one at a time. It must not
// block, and must not call the pool itself.
class Waker {
  public:
    Waker() = default;
    Waker(const Waker &) = delete;
    Waker &operator=(const Waker &) = delete;
    virtual ~Waker() = default;

    virtual void wake() const noexcept = 0;
};

} // namespace mayfly
