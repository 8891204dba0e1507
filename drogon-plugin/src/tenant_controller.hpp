// SPDX-License-Identifier: MIT OR Apache-2.0
//
// The routes of the tenants.

#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include <drogon/HttpController.h>

#include "http_reply.hpp"
#include "mayfly/server.hpp"
#include "prefix_table.hpp"
#include "request_adapter.hpp"

namespace mayfly {

// Gives requests to the tenants. Which tenant has a request is Mayfly's to say; Drogon's router only tells
// tenants' paths from others.
//
// Each path prefix is two exact routes in Drogon's router, which are hash look-ups. Drogon's own means for "and
// all below" is a regular expression, and the standard library's matcher recurses once per character: a client
// could end the process with one long path (docs/decisions/0030-exact-routes.md). So an observer gives a path
// below a prefix the name of the prefix's second route before Drogon routes it, and the handler gives it back.
class TenantController final : public drogon::HttpController<TenantController, false> {
  public:
    METHOD_LIST_BEGIN
    // The routes come from the configuration: register_routes().
    METHOD_LIST_END

    // Throws Error if a tenant's path cannot be a route.
    explicit TenantController(Server server);

    // Registers the tenants' routes. To be called once, before Drogon's routers are initialised.
    void register_routes();

    // What runs, as JSON. Throws Error after shutdown().
    [[nodiscard]] std::string report_json();

    // Ends what works for the tenants in the background. The loops must still run.
    void shutdown();

    // Handles a request for a prefix itself.
    void serve(const drogon::HttpRequestPtr &request, Callback &&callback);

    // Handles a request for what lies below a prefix.
    void serve_below(const drogon::HttpRequestPtr &request, Callback &&callback);

  private:
    // What a thread that serves requests has for itself.
    struct PerThread {
        LoopPool pool;
        RequestAdapter adapter;
    };

    void before_routing(const drogon::HttpRequestPtr &request) const;
    PerThread &this_thread();
    void prepare_thread() noexcept;
    LoopPool new_pool();
    Server &running(); // With mutex_ held.

    std::mutex mutex_;             // Guards server_; no request takes it but a thread's first.
    std::optional<Server> server_; // Empty after shutdown().
    const PrefixTable prefixes_;
};

} // namespace mayfly
