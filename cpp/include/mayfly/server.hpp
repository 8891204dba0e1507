// SPDX-License-Identifier: MIT OR Apache-2.0
//
// The tenants of this process, and each thread's pool of their workers.

#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>

#include "mayfly/reply.hpp"
#include "mayfly/request.hpp"
#include "mayfly/waker.hpp"

namespace mayfly {

// An error of Mayfly. The text names the cause: the configuration's key, the path, the limit.
class Error : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

// Raises the soft limit on descriptors to the hard one. Throws Error if that is too low for a server that opens `later`
// more before Server::start(); the text says how many are needed and for what.
void require_descriptors(std::uint64_t later);

// Whether there are enough descriptors to keep a connection that was just accepted. If not, it must be closed: the last
// descriptors are for accepting, since a listener whose connection cannot be accepted reports it again at once, without
// end.
[[nodiscard]] bool has_room_for_connection() noexcept;

// The result of a call.
enum class Outcome {
    done,  // The reply holds a complete response: the tenant's, or an error.
    later, // The request takes longer than this thread may wait, and the reply is untouched: call call_later.
};

// The tenant that LoopPool::claims has found for a request, or none. It is valid for all pools of the same Server. Once
// another configuration is in force, LoopPool::call ignores it.
struct RouteHit {
    std::uint64_t epoch = 0; // 0: no tenant claims the request.
    std::size_t index = 0;

    explicit operator bool() const noexcept { return epoch != 0; }
    bool operator==(const RouteHit &) const noexcept = default;
};

// One thread's workers. One thread at a time may use it, preferably always the one that made it.
class LoopPool {
  public:
    LoopPool(LoopPool &&) noexcept;
    LoopPool &operator=(LoopPool &&) noexcept;
    ~LoopPool();

    // Finds the tenant, other than the default one, that has this host, as in the request's header, and this path, as
    // in RequestView. It allocates nothing, and costs the same with many tenants as with few.
    [[nodiscard]] RouteHit claims(std::string_view host, std::string_view path) noexcept;

    // Whether there is a default tenant, which serves what no other tenant claims. A reload may add or remove it.
    [[nodiscard]] bool has_default() noexcept;

    // Counts a request that the application has answered with 404, since neither a tenant nor a route of its own takes
    // it.
    void count_unrouted() noexcept;

    // Serves `request` on this thread: one run of a machine. It takes no longer than the tenant's inline
    // budget. `hit` is what claims() has returned for the request; without it the tenant is looked up.
    [[nodiscard]] Outcome call(const RequestView &request, Reply &reply, RouteHit hit = {}) noexcept;

    // Serves `request` in the background, and sends `reply`, which is not null, from there. To be called right after
    // the call that returned Outcome::later, with the same request: it may have begun to run, and then goes on.
    void call_later(const RequestView &request, std::unique_ptr<Reply> reply) noexcept;

    // Sets the waker that is called when this pool's thread should call tend() without having a request; null removes
    // it. Once this has returned, or the pool is destroyed, the former waker is not called any more.
    void set_waker(std::unique_ptr<Waker> waker) noexcept;

    // Does the pool's work besides requests: closes idle workers when memory is short. It takes little time.
    void tend() noexcept;

    // Lets call() return before a worker that has written many pages is reset, or one is handed over to be prepared for
    // its next request, so that the response can be written first. The caller then asks resets_are_due() after each
    // call, and calls reset_answered() when the response is written. A worker is reset before its next request in any
    // case.
    void defer_resets() noexcept;
    [[nodiscard]] bool resets_are_due() const noexcept;
    void reset_answered() noexcept;

  private:
    friend class Server;
    struct Impl;
    explicit LoopPool(std::unique_ptr<Impl> impl) noexcept;
    std::unique_ptr<Impl> impl_;
};

// The tenants, shared by all threads; they end with the last Server and LoopPool. Any thread may call any function.
class Server {
  public:
    // Boots the tenants that `config_json` describes, or {"tenants_file": "PATH"} (docs/configuration.md has all keys),
    // and starts the listener for operators and the watch over files, if it asks for them. It starts without a usable
    // engine, too: report_json() says why, and the routes of the tenants that need it answer 503.
    //
    // Throws Error if the configuration is refused.
    [[nodiscard]] static Server start(std::string_view config_json);

    Server(Server &&) noexcept;
    Server &operator=(Server &&) noexcept;
    ~Server();

    // The host and every tenant, as JSON. Throws Error.
    [[nodiscard]] std::string report_json() const;

    // The same figures in the format of Prometheus (text format 0.0.4). Throws Error.
    [[nodiscard]] std::string metrics() const;

    // Whether there is a default tenant. Throws Error.
    [[nodiscard]] bool has_default() const;

    // The following three wait for programs to boot, so an event loop must not call them. Requests are served in the
    // meantime.

    // Puts another configuration in force and returns the result as JSON: names of tenants under "added", "removed",
    // "changed" and "failed". Throws Error if the configuration is refused; then nothing has changed.
    std::string apply(std::string_view config_json) const;

    // Boots a tenant's program again and puts it in service; returns the number of its generation. Throws Error if it
    // does not boot; then the former generation goes on.
    std::uint64_t reload(std::string_view tenant) const;

    // Puts a tenant's former generation in service again and returns its number. Throws Error.
    std::uint64_t rollback(std::string_view tenant) const;

    // Reports to operators that the server is ending, and logs that requests have at most `at_most`. Service goes on as
    // before.
    void begin_end(std::chrono::milliseconds at_most) const noexcept;

    // Requests in the background that are not answered yet.
    [[nodiscard]] std::uint32_t in_work() const noexcept;

    // Answers waiting requests. Once it has returned, no other thread sends a reply that was passed to
    // LoopPool::call_later, no operator is served and no file is watched; otherwise pools go on.
    void shutdown() const noexcept;

    // Workers for the calling thread. Throws Error.
    [[nodiscard]] LoopPool loop_pool() const;

  private:
    struct Impl;
    explicit Server(std::unique_ptr<Impl> impl) noexcept;
    std::unique_ptr<Impl> impl_;
};

} // namespace mayfly
