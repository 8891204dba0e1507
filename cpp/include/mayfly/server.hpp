// SPDX-License-Identifier: MIT OR Apache-2.0
//
// The tenants of this process, and each thread's share of their workers.

#pragma once

#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "mayfly/reply.hpp"
#include "mayfly/request.hpp"

namespace mayfly {

// Why Mayfly refused. The text names the cause: the configuration's key, the path, the limit.
class Error : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

// What became of a request.
enum class Outcome {
    done,         // The reply holds a complete response, be it the tenant's or an error.
    needs_worker, // No worker is at hand, and the reply is untouched: give the request to call_later.
};

// One thread's workers. It is to be used by one thread at a time, best always by the one that made it.
class LoopPool {
  public:
    LoopPool(LoopPool &&) noexcept;
    LoopPool &operator=(LoopPool &&) noexcept;
    ~LoopPool();

    // Serves `request` on this thread: one run of a virtual machine. It does not block longer than the
    // tenant's budget allows.
    [[nodiscard]] Outcome call(const RequestView &request, Reply &reply) noexcept;

    // Copies `request`, has it served in the background, and sends `reply` from there. `reply` is not null.
    void call_later(const RequestView &request, std::unique_ptr<Reply> reply) noexcept;

  private:
    friend class Server;
    struct Impl;
    explicit LoopPool(std::unique_ptr<Impl> impl) noexcept;
    std::unique_ptr<Impl> impl_;
};

// The tenants, booted once and shared by all threads; they end with the last Server and LoopPool.
class Server {
  public:
    // Boots the tenants that `config_json` describes (docs/plugin.md has its keys). Without a usable KVM it
    // starts all the same: report_json() says why, and each tenant's routes answer 503.
    //
    // Throws Error if the configuration is refused.
    [[nodiscard]] static Server start(std::string_view config_json);

    Server(Server &&) noexcept;
    Server &operator=(Server &&) noexcept;
    ~Server();

    // What runs, as JSON: the host and every tenant. Throws Error.
    [[nodiscard]] std::string report_json() const;

    // The path prefixes that belong to tenants, as configured. Throws Error.
    [[nodiscard]] std::vector<std::string> routes() const;

    // Answers the requests that wait for a worker. Once it has returned no reply given to LoopPool::call_later is
    // sent by another thread; pools go on otherwise.
    void shutdown() noexcept;

    // Workers for the calling thread. Throws Error.
    [[nodiscard]] LoopPool loop_pool() const;

  private:
    struct Impl;
    explicit Server(std::unique_ptr<Impl> impl) noexcept;
    std::unique_ptr<Impl> impl_;
};

} // namespace mayfly
