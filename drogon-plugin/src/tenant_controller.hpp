// SPDX-License-Identifier: MIT OR Apache-2.0
//
// How requests get from Drogon to the tenants.

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

// Gives requests to the tenants. Which tenant has a request, by its host and its path, is Mayfly's to say, and may
// change at any time; so Drogon's router knows one route for all of them.
//
//   before_routing   asks whether a tenant claims the request, and if so gives it the path of that route
//   refuse           has what stands for requests that ConnectionGate has refused, in their order among the others
//   serve            has all requests of that route, and gives them their own paths back
//   serve_default    has what Drogon has no route and no file for, and gives it to the default tenant, if there is one,
//   or to
//                    the application
//
// The route is an exact one, which is a hash look-up: Drogon's patterns are regular expressions, and the standard
// library's matcher recurses once per character, so that one long path would end the process
// (docs/decisions/0030-exact-routes.md, 0034-one-route.md).
class TenantController final : public drogon::HttpController<TenantController, false> {
  public:
    METHOD_LIST_BEGIN
    // register_routes() does it: the handlers need this object.
    METHOD_LIST_END

    // `others` has what is nobody's, if it is not empty. Without it Drogon's default handler stays the application's if
    // there is no default tenant yet.
    TenantController(Server server, std::optional<drogon::DefaultHandler> others);

    // To be called once, before Drogon's routers are initialised.
    void register_routes();

    // The tenants. They may be used as long as one likes; after shutdown() there are none. Throws Error then.
    [[nodiscard]] std::shared_ptr<const Server> server() const;

    // Ends what works for the tenants in the background. The loops must still run.
    void shutdown();

    // Answers for a request that the gate has refused.
    void refuse(const drogon::HttpRequestPtr &request, Callback &&callback);

    // Handles a request that was claimed.
    void serve(const drogon::HttpRequestPtr &request, Callback &&callback);

  private:
    // What a thread that serves requests has for itself.
    struct PerThread {
        explicit PerThread(LoopPool a_pool);
        PerThread(const PerThread &) = delete;
        PerThread &operator=(const PerThread &) = delete;

        LoopPool pool;
        RequestAdapter adapter;
    };

    void before_routing(const drogon::HttpRequestPtr &request) noexcept;
    void serve_default(const drogon::HttpRequestPtr &request, Callback &&callback);
    void respond(const drogon::HttpRequestPtr &request, RouteHit hit, Callback &&callback);
    PerThread &this_thread();
    PerThread *this_thread_if_any() noexcept;

    mutable std::mutex mutex_;             // Guards server_; no request takes it but a thread's first.
    std::shared_ptr<const Server> server_; // Empty after shutdown().
    const std::optional<drogon::DefaultHandler> others_;
    bool takes_default_ = true; // Set before there are requests.
    std::atomic_flag warned_;
    std::atomic_flag warned_of_gate_;
};

} // namespace mayfly
