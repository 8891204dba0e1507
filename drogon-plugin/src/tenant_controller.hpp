// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Routes requests from Drogon to the tenants.

#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>

#include <drogon/HttpAppFramework.h>
#include <drogon/HttpController.h>

#include "http_reply.hpp"
#include "mayfly/server.hpp"
#include "request_adapter.hpp"

namespace mayfly {

// Passes requests to the tenants. Mayfly finds a request's tenant by host and path, and tenants may change at any time;
// so Drogon's router has one route for all of them.
//
//   before_routing   asks whether a tenant claims the request, and if so gives it the path of that route
//   refuse           answers the requests that replace those that ConnectionGate has refused, in their order
//   serve            gets all requests of that route, and restores their own paths
//   serve_default    gets what has no route and no file in Drogon, and passes it to the default tenant, if there is
//                    one, or to the application
//   before_sending   counts what nothing took
//
// The route is an exact one, found by a hash look-up: Drogon's patterns are regular expressions, and the standard
// library's matcher recurses once per character, so that one long path would end the process
// (docs/decisions/0030-exact-routes.md, 0034-one-route.md).
class TenantController final : public drogon::HttpController<TenantController, false> {
  public:
    METHOD_LIST_BEGIN
    // register_routes() adds the routes: the handlers need this object.
    METHOD_LIST_END

    // `others`, if it is not empty, answers requests of no tenant. Without it, Drogon's default handler stays the
    // application's if there is no default tenant at the start.
    TenantController(Server server, std::optional<drogon::DefaultHandler> others);

    // To be called once, before Drogon's routers are initialised.
    void register_routes();

    // The tenants. The caller may keep them for any time. Throws Error after shutdown().
    [[nodiscard]] std::shared_ptr<const Server> server() const;

    // Ends the tenants' background work. The loops must still run.
    void shutdown();

    // Answers for a request that the gate has refused.
    void refuse(const drogon::HttpRequestPtr &request, Callback &&callback);

    // Handles a request that was claimed.
    void serve(const drogon::HttpRequestPtr &request, Callback &&callback);

  private:
    // The state of one thread that serves requests.
    struct PerThread {
        explicit PerThread(LoopPool a_pool);
        ~PerThread();
        PerThread(const PerThread &) = delete;
        PerThread &operator=(const PerThread &) = delete;

        // That of this thread if it has one already; null otherwise.
        static PerThread *&of_this_thread() noexcept;

        // Resets the workers that are due, if any, once the loop has written the responses of this round.
        void queue_resets();

        LoopPool pool;
        RequestAdapter adapter;
        bool has_queued_resets = false;
    };

    void before_routing(const drogon::HttpRequestPtr &request) noexcept;
    // Counts a 404 of Drogon's own.
    void before_sending(const drogon::HttpRequest &request, const drogon::HttpResponse &response) noexcept;
    void count_unrouted(PerThread &per_thread) const noexcept;
    void serve_default(const drogon::HttpRequestPtr &request, Callback &&callback);
    void respond(const drogon::HttpRequestPtr &request, RouteHit hit, Callback &&callback);
    PerThread &this_thread();
    PerThread *this_thread_if_any() noexcept;

    mutable std::mutex mutex_;             // Guards server_; only a thread's first request takes it.
    std::shared_ptr<const Server> server_; // Empty after shutdown().
    const std::optional<drogon::DefaultHandler> others_;
    bool takes_default_ = true; // Set before there are requests.
    std::atomic_flag warned_;
    std::atomic_flag warned_of_gate_;
};

} // namespace mayfly
