// SPDX-License-Identifier: MIT OR Apache-2.0

#include "tenant_controller.hpp"

#include <algorithm>
#include <atomic>
#include <charconv>
#include <exception>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include <drogon/HttpAppFramework.h>

#include "connection_gate.hpp"
#include "mayfly/gate.hpp"
#include "not_found.hpp"
#include "path_stash.hpp"

namespace mayfly {

namespace {

constexpr std::string_view unguarded =
    R"({"error":"internal","reason":"the application has replaced Drogon's connection callback: )"
    R"(it has to call mayfly::set_connection_callback() instead"})";

drogon::HttpResponsePtr json(int status, std::string_view body) {
    auto response = drogon::HttpResponse::newHttpResponse(static_cast<drogon::HttpStatusCode>(status), drogon::CT_NONE);
    response->setContentTypeString("application/json");
    response->setBody(std::string(body));
    return response;
}

// The tenants' only route. Clients may ask for this path, too: PathStash has no path for their requests.
const std::string route = "/_mayfly/tenant";

// Drogon answers OPTIONS requests by itself unless this attribute is set.
const std::string options_attribute = "drogon.customCORShandling";

const std::string host_header = "host";
const std::string refused_path(refused_target);
const std::string refused_header(refused_field);
const std::string cookie_header(cookie_field);

std::string_view host(const drogon::HttpRequest &request) {
    const auto &headers = request.headers();
    const auto found = headers.find(host_header);
    return found == headers.end() ? std::string_view() : found->second;
}

// Makes an event loop tend its pool, once for all calls that come before it does.
class LoopWaker final : public Waker {
  public:
    LoopWaker(trantor::EventLoop *loop, LoopPool &pool) : loop_(loop), pool_(pool) {}

    void wake() const noexcept override {
        if (is_queued_->exchange(true)) {
            return;
        }
        try {
            // The pool belongs to the loop's thread, and queued functions run only while the loop exists.
            loop_->queueInLoop([&pool = pool_, is_queued = is_queued_] {
                is_queued->store(false);
                pool.tend();
            });
        } catch (const std::exception &) {
            is_queued_->store(false); // The next call tries again.
        }
    }

  private:
    trantor::EventLoop *loop_;
    LoopPool &pool_;
    std::shared_ptr<std::atomic_bool> is_queued_ = std::make_shared<std::atomic_bool>(false);
};

} // namespace

TenantController::PerThread::PerThread(LoopPool a_pool) : pool(std::move(a_pool)) {
    if (auto *loop = trantor::EventLoop::getEventLoopOfCurrentThread(); loop != nullptr) {
        pool.set_waker(std::make_unique<LoopWaker>(loop, pool));
        // The loop ends before the thread's own objects are destroyed.
        loop->runOnQuit([this] { pool.set_waker(nullptr); });
        pool.defer_resets();
    }
    of_this_thread() = this;
}

TenantController::PerThread::~PerThread() { of_this_thread() = nullptr; }

TenantController::PerThread *&TenantController::PerThread::of_this_thread() noexcept {
    thread_local PerThread *of_this_thread = nullptr;
    return of_this_thread;
}

void TenantController::PerThread::queue_resets() {
    if (has_queued_resets || !pool.resets_are_due()) {
        return;
    }
    has_queued_resets = true;
    trantor::EventLoop::getEventLoopOfCurrentThread()->queueInLoop([this] {
        has_queued_resets = false;
        pool.reset_answered();
    });
}

TenantController::TenantController(Server server, std::optional<drogon::DefaultHandler> others)
    : server_(std::make_shared<const Server>(std::move(server))), others_(std::move(others)) {}

void TenantController::register_routes() {
    auto &app = drogon::app();
    // No constraint: tenants handle every method.
    registerMethod(&TenantController::serve, route, {}, false, "mayfly::TenantController::serve");
    registerMethod(&TenantController::refuse, refused_path, {}, false, "mayfly::TenantController::refuse");
    app.registerPreRoutingAdvice([this](const drogon::HttpRequestPtr &request) { before_routing(request); });
    app.registerPreSendingAdvice(
        [this](const drogon::HttpRequestPtr &request, const drogon::HttpResponsePtr &response) {
            before_sending(*request, *response);
        });
    takes_default_ = others_.has_value() || server()->has_default();
    if (takes_default_) {
        app.setDefaultHandler([this](const drogon::HttpRequestPtr &request, Callback &&callback) {
            serve_default(request, std::move(callback));
        });
    }
    // Each loop gets its workers before it has many requests, and after the server has all its threads: where processes
    // are few, a worker must not take the last one from a thread.
    app.registerBeginningAdvice([this] {
        auto &app = drogon::app();
        for (std::size_t index = 0; index < app.getThreadNum(); ++index) {
            app.getIOLoop(index)->queueInLoop([this] { this_thread_if_any(); });
        }
    });
}

std::shared_ptr<const Server> TenantController::server() const {
    const std::lock_guard lock(mutex_);
    if (!server_) {
        throw Error("the server is shutting down");
    }
    return server_;
}

void TenantController::shutdown() {
    std::shared_ptr<const Server> server;
    {
        const std::lock_guard lock(mutex_);
        server = std::move(server_);
    }
    if (server) {
        server->shutdown();
    }
}

void TenantController::before_routing(const drogon::HttpRequestPtr &request) noexcept {
    auto *per_thread = this_thread_if_any();
    if (per_thread == nullptr || request->path() == refused_path) {
        return;
    }
    if (const auto hit = per_thread->pool.claims(host(*request), request->getOriginalPath())) {
        if (request->method() == drogon::Options) {
            request->attributes()->insert(options_attribute, true);
        }
        PathStash::put(*request, route, hit);
    } else if (per_thread->pool.has_default()) {
        if (!takes_default_) {
            if (!warned_.test_and_set()) {
                LOG_WARN
                    << "Mayfly: the default tenant came with a reload and is served only after a restart: Drogon's "
                       "default handler belongs to the application. Call mayfly::set_default_handler() to "
                       "change that.";
            }
        } else if (request->path() == "/") {
            // Drogon replaces the path by that of its home page before it calls the default handler.
            PathStash::keep(*request);
        }
    } else if (ConnectionGate::may_have_fields()) {
        request->removeHeader(cookie_header); // Only tenants get it.
    }
}

void TenantController::before_sending(const drogon::HttpRequest &request,
                                      const drogon::HttpResponse &response) noexcept {
    // Drogon names the route of a request that one took, tenants' requests included.
    if (response.statusCode() != drogon::k404NotFound || !request.matchedPathPattern().empty()) {
        return;
    }
    if (auto *per_thread = PerThread::of_this_thread(); per_thread != nullptr) {
        count_unrouted(*per_thread);
        return;
    }
    // An application answers on any thread. One that serves no requests must not get workers for that.
    try {
        drogon::app().getIOLoop(0)->queueInLoop([this] {
            if (auto *per_thread = PerThread::of_this_thread(); per_thread != nullptr) {
                count_unrouted(*per_thread);
            }
        });
    } catch (const std::exception &) {
        // Without memory, one count is missing.
    }
}

void TenantController::count_unrouted(PerThread &per_thread) const noexcept {
    if (!takes_default_ || !per_thread.pool.has_default()) {
        per_thread.pool.count_unrouted();
    }
}

void TenantController::serve(const drogon::HttpRequestPtr &request, Callback &&callback) {
    if (const auto hit = PathStash::take(*request)) {
        respond(request, *hit, std::move(callback));
    } else {
        serve_default(request, std::move(callback));
    }
}

void TenantController::serve_default(const drogon::HttpRequestPtr &request, Callback &&callback) {
    PathStash::take(*request);
    if (takes_default_ && this_thread().pool.has_default()) {
        respond(request, {}, std::move(callback));
    } else if (others_ && *others_) {
        (*others_)(request, std::move(callback));
    } else {
        callback(not_found(request)); // As Drogon does without a default handler.
    }
}

void TenantController::refuse(const drogon::HttpRequestPtr &request, Callback &&callback) {
    // "STATUS BODY", from the gate. The request asks to close the connection.
    const std::string_view refusal = request->getHeader(refused_header);
    int status = drogon::k400BadRequest;
    std::from_chars(refusal.data(), refusal.data() + refusal.size(), status);
    callback(json(status, refusal.substr(std::min(refusal.find(' ') + 1, refusal.size()))));
}

void TenantController::respond(const drogon::HttpRequestPtr &request, RouteHit hit, Callback &&callback) {
    if (!ConnectionGate::is_behind(*request)) {
        if (!warned_of_gate_.test_and_set()) {
            LOG_ERROR << "Mayfly: tenants' requests are refused: " << unguarded;
        }
        callback(json(drogon::k500InternalServerError, unguarded));
        return;
    }
    auto &per_thread = this_thread();
    auto &pool = per_thread.pool;
    const auto view = per_thread.adapter.view(*request);
    HttpReply reply(*request);
    if (pool.call(view, reply, hit) == Outcome::done) {
        callback(reply.take());
        per_thread.queue_resets();
        return;
    }
    // An advice of the application may have moved the request to a thread that has no loop.
    auto *loop = trantor::EventLoop::getEventLoopOfCurrentThread();
    pool.call_later(view, std::make_unique<DeferredHttpReply>(request, std::move(callback),
                                                              loop != nullptr ? loop : drogon::app().getLoop()));
}

TenantController::PerThread &TenantController::this_thread() {
    thread_local PerThread per_thread(server()->loop_pool());
    return per_thread;
}

TenantController::PerThread *TenantController::this_thread_if_any() noexcept {
    try {
        return &this_thread();
    } catch (const std::exception &error) {
        LOG_WARN << "Mayfly: no workers for an event loop: " << error.what();
        return nullptr;
    }
}

} // namespace mayfly
