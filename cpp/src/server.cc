// SPDX-License-Identifier: MIT OR Apache-2.0

#include "mayfly/server.hpp"

#include <utility>

#include "mayfly-bridge/src/lib.rs.h"

namespace mayfly {

namespace {

// Calls `work` and lets what cxx throws out as our own Error.
template <typename Work> auto translate_errors(Work &&work) {
    try {
        return work();
    } catch (const rust::Error &error) {
        throw Error(error.what());
    } catch (const std::invalid_argument &) {
        throw Error("the configuration is not UTF-8");
    }
}

} // namespace

struct LoopPool::Impl {
    rust::Box<ffi::LoopPool> pool;
};

LoopPool::LoopPool(std::unique_ptr<Impl> impl) noexcept : impl_(std::move(impl)) {}
LoopPool::LoopPool(LoopPool &&) noexcept = default;
LoopPool &LoopPool::operator=(LoopPool &&) noexcept = default;
LoopPool::~LoopPool() = default;

Outcome LoopPool::call(const RequestView &request, Reply &reply) noexcept {
    return impl_->pool->call(request, reply) == ffi::Outcome::Done ? Outcome::done : Outcome::needs_worker;
}

void LoopPool::call_later(const RequestView &request, std::unique_ptr<Reply> reply) noexcept {
    impl_->pool->call_later(request, std::move(reply));
}

struct Server::Impl {
    rust::Box<ffi::Server> server;
};

Server::Server(std::unique_ptr<Impl> impl) noexcept : impl_(std::move(impl)) {}
Server::Server(Server &&) noexcept = default;
Server &Server::operator=(Server &&) noexcept = default;
Server::~Server() = default;

Server Server::start(std::string_view config_json) {
    return translate_errors([&] {
        const rust::Str config(config_json.data(), config_json.size());
        return Server(std::make_unique<Impl>(Impl{ffi::start_server(config)}));
    });
}

std::string Server::report_json() const {
    return translate_errors([&] { return std::string(impl_->server->report_json()); });
}

std::vector<std::string> Server::routes() const {
    return translate_errors([&] {
        const auto routes = impl_->server->routes();
        return std::vector<std::string>(routes.begin(), routes.end());
    });
}

void Server::shutdown() noexcept { impl_->server->shutdown(); }

LoopPool Server::loop_pool() const {
    return translate_errors(
        [&] { return LoopPool(std::make_unique<LoopPool::Impl>(LoopPool::Impl{impl_->server->loop_pool()})); });
}

} // namespace mayfly
