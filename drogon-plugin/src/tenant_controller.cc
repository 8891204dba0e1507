// SPDX-License-Identifier: MIT OR Apache-2.0

#include "tenant_controller.hpp"

#include <string>
#include <utility>

#include <drogon/HttpAppFramework.h>

namespace mayfly {

namespace {

// Attribute of a request whose path was replaced for routing: the path.
const std::string path_attribute = "mayfly.path";

// Drogon answers OPTIONS requests by itself unless this attribute is set.
const std::string options_attribute = "drogon.customCORShandling";

} // namespace

TenantController::TenantController(Server server) : server_(std::move(server)), prefixes_(server_->routes()) {}

void TenantController::register_routes() {
    auto &app = drogon::app();
    for (const auto &prefix : prefixes_.prefixes()) {
        // No constraint: every method is the tenant's.
        registerMethod(&TenantController::serve, prefix, {}, false, "mayfly::TenantController::serve");
        registerMethod(&TenantController::serve_below, PrefixTable::below(prefix), {}, false,
                       "mayfly::TenantController::serve_below");
    }
    app.registerPreRoutingAdvice([this](const drogon::HttpRequestPtr &request) { before_routing(request); });

    // The first thing that each loop does, so that it has workers before it has requests.
    for (std::size_t index = 0; index < app.getThreadNum(); ++index) {
        app.getIOLoop(index)->queueInLoop([this] { prepare_thread(); });
    }
}

std::string TenantController::report_json() {
    const std::lock_guard lock(mutex_);
    return running().report_json();
}

void TenantController::shutdown() {
    const std::lock_guard lock(mutex_);
    if (server_) {
        server_->shutdown();
        server_.reset();
    }
}

void TenantController::before_routing(const drogon::HttpRequestPtr &request) const {
    const auto &path = request->getOriginalPath();
    const auto *route = prefixes_.route_below(path);
    if (request->method() == drogon::Options && (route != nullptr || prefixes_.is_prefix(path))) {
        request->attributes()->insert(options_attribute, true);
    }
    if (route != nullptr) {
        request->attributes()->insert(path_attribute, request->path());
        request->setPath(*route);
    }
}

void TenantController::serve_below(const drogon::HttpRequestPtr &request, Callback &&callback) {
    if (const auto &path = request->attributes()->get<std::string>(path_attribute); !path.empty()) {
        request->setPath(path);
    }
    serve(request, std::move(callback));
}

void TenantController::serve(const drogon::HttpRequestPtr &request, Callback &&callback) {
    auto &[pool, adapter] = this_thread();
    const auto view = adapter.view(*request);
    HttpReply reply;
    if (pool.call(view, reply) == Outcome::done) {
        callback(reply.take());
        return;
    }
    auto *loop = trantor::EventLoop::getEventLoopOfCurrentThread();
    pool.call_later(view, std::make_unique<DeferredHttpReply>(std::move(callback), loop));
}

TenantController::PerThread &TenantController::this_thread() {
    thread_local PerThread per_thread{new_pool(), {}};
    return per_thread;
}

void TenantController::prepare_thread() noexcept {
    try {
        this_thread();
    } catch (const Error &error) {
        LOG_WARN << "Mayfly: no workers for an event loop: " << error.what();
    }
}

LoopPool TenantController::new_pool() {
    const std::lock_guard lock(mutex_);
    return running().loop_pool();
}

Server &TenantController::running() {
    if (!server_) {
        throw Error("the server is shutting down");
    }
    return *server_;
}

} // namespace mayfly
