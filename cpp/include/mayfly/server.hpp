// SPDX-License-Identifier: MIT OR Apache-2.0
//
// The tenants of this process, and each thread's share of their workers.

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

// Why Mayfly refused. The text names the cause: the configuration's key, the path, the limit.
class Error : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

// Raises the process's limit on descriptors to what it may have, and throws Error, which says how many are needed and
// for what, if it is too low for a server that opens `later` more before Server::start().
void require_descriptors(std::uint64_t later);

// Whether a connection that was just accepted can be kept. If not it is to be closed: the last descriptors are for
// accepting, since a listener whose connection cannot be accepted reports it again at once, and for ever.
[[nodiscard]] bool has_room_for_connection() noexcept;

// What became of a request.
enum class Outcome {
    done,  // The reply holds a complete response, be it the tenant's or an error.
    later, // It takes longer than this thread may wait, and the reply is untouched: give the request to call_later.
};

// The tenant that LoopPool::claims has found for a request, or none. Every pool of the same Server takes it. It counts
// for nothing once another configuration is in force.
struct RouteHit {
    std::uint64_t epoch = 0; // 0: no tenant claims the request.
    std::size_t index = 0;

    explicit operator bool() const noexcept { return epoch != 0; }
    bool operator==(const RouteHit &) const noexcept = default;
};

// One thread's workers. It is to be used by one thread at a time, best always by the one that made it.
class LoopPool {
  public:
    LoopPool(LoopPool &&) noexcept;
    LoopPool &operator=(LoopPool &&) noexcept;
    ~LoopPool();

    // Finds the tenant, other than the default one, that has this host, as in the request's header, and this path, as
    // in RequestView. It allocates nothing, and costs the same with many tenants as with few.
    [[nodiscard]] RouteHit claims(std::string_view host, std::string_view path) noexcept;

    // Whether there is a tenant that has what no other tenant has, at this moment: reloads bring and take it.
    [[nodiscard]] bool has_default() noexcept;

    // Serves `request` on this thread: one run of a virtual machine. It does not take longer than the tenant's
    // budget allows. `hit` is what claims() has returned for the request; without it the tenant is looked up.
    [[nodiscard]] Outcome call(const RequestView &request, Reply &reply, RouteHit hit = {}) noexcept;

    // Has `request` served in the background and sends `reply`, which is not null, from there. To be called right after
    // the call that returned Outcome::later, with the same request: which may be running already, and goes on then.
    void call_later(const RequestView &request, std::unique_ptr<Reply> reply) noexcept;

    // Has `waker` called when this pool's thread is to call tend(), though it may have no request; null: none is.
    // Once this has returned, or the pool is destroyed, the one before is not called any more.
    void set_waker(std::unique_ptr<Waker> waker) noexcept;

    // Does what is to be done besides requests: closes idle workers when memory is short. Quick.
    void tend() noexcept;

  private:
    friend class Server;
    struct Impl;
    explicit LoopPool(std::unique_ptr<Impl> impl) noexcept;
    std::unique_ptr<Impl> impl_;
};

// The tenants, shared by all threads; they end with the last Server and LoopPool. Every function may be called on any
// thread.
class Server {
  public:
    // Boots the tenants that `config_json` describes, or {"tenants_file": "PATH"} (docs/configuration.md has all keys),
    // and starts the listener for operators and the watch over files, if it asks for them. Without a usable KVM it
    // starts all the same: report_json() says why, and each tenant's routes answer 503.
    //
    // Throws Error if the configuration is refused.
    [[nodiscard]] static Server start(std::string_view config_json);

    Server(Server &&) noexcept;
    Server &operator=(Server &&) noexcept;
    ~Server();

    // What runs, as JSON: the host and every tenant. Throws Error.
    [[nodiscard]] std::string report_json() const;

    // The same figures as Prometheus reads them (text format 0.0.4). Throws Error.
    [[nodiscard]] std::string metrics() const;

    // Whether there is a tenant that has what no other tenant has. Throws Error.
    [[nodiscard]] bool has_default() const;

    // The following three wait for programs to boot, so an event loop must not call them. Requests are served
    // meanwhile.

    // Puts another configuration in force and returns what came of it, as JSON: names of tenants under "added",
    // "removed", "changed" and "failed". Throws Error if it is refused; nothing has changed then.
    std::string apply(std::string_view config_json) const;

    // Boots a tenant's program again and lets it answer; returns its generation's number. Throws Error if it does
    // not boot; what ran before goes on.
    std::uint64_t reload(std::string_view tenant) const;

    // Lets a tenant's former generation answer again and returns its number. Throws Error.
    std::uint64_t rollback(std::string_view tenant) const;

    // Tells operators that the server ends, and the log that requests have `at_most` for it. Everything is served as
    // before.
    void begin_end(std::chrono::milliseconds at_most) const noexcept;

    // Requests in the background that are not answered yet.
    [[nodiscard]] std::uint32_t in_work() const noexcept;

    // Answers the requests that wait. Once it has returned no reply given to LoopPool::call_later is sent by another
    // thread, no operator is served and no file is watched; pools go on otherwise.
    void shutdown() const noexcept;

    // Workers for the calling thread. Throws Error.
    [[nodiscard]] LoopPool loop_pool() const;

  private:
    struct Impl;
    explicit Server(std::unique_ptr<Impl> impl) noexcept;
    std::unique_ptr<Impl> impl_;
};

} // namespace mayfly
