// SPDX-License-Identifier: MIT OR Apache-2.0

#include "mayfly/server.hpp"

#include <algorithm>
#include <utility>

#include "mayfly-bridge/src/lib.rs.h"

namespace mayfly {

namespace {

// Calls `work`, and turns what cxx throws into Error.
template <typename Work> auto translate_errors(Work &&work) {
    try {
        return work();
    } catch (const rust::Error &error) {
        throw Error(error.what());
    } catch (const std::invalid_argument &) {
        throw Error("not UTF-8");
    }
}

// Throws std::invalid_argument if `text` is not UTF-8.
rust::Str utf8(std::string_view text) { return {text.data(), text.size()}; }

} // namespace

void require_descriptors(std::uint64_t later) {
    translate_errors([&] { ffi::require_descriptors(later); });
}

bool has_room_for_connection() noexcept { return ffi::has_room_for_connection(); }

struct LoopPool::Impl {
    rust::Box<ffi::LoopPool> pool;
};

LoopPool::LoopPool(std::unique_ptr<Impl> impl) noexcept : impl_(std::move(impl)) {}
LoopPool::LoopPool(LoopPool &&) noexcept = default;
LoopPool &LoopPool::operator=(LoopPool &&) noexcept = default;
LoopPool::~LoopPool() = default;

RouteHit LoopPool::claims(std::string_view host, std::string_view path) noexcept {
    const auto hit = impl_->pool->claims(ffi::bytes(host), ffi::bytes(path));
    return {.epoch = hit.epoch, .index = hit.index};
}

bool LoopPool::has_default() noexcept { return impl_->pool->has_default(); }

void LoopPool::count_unrouted() noexcept { impl_->pool->count_unrouted(); }

Outcome LoopPool::call(const RequestView &request, Reply &reply, RouteHit hit) noexcept {
    return impl_->pool->call({hit.epoch, hit.index}, request, reply) == ffi::Outcome::Done ? Outcome::done
                                                                                           : Outcome::later;
}

void LoopPool::call_later(const RequestView &request, std::unique_ptr<Reply> reply) noexcept {
    impl_->pool->call_later(request, std::move(reply));
}

void LoopPool::set_waker(std::unique_ptr<Waker> waker) noexcept { impl_->pool->set_waker(std::move(waker)); }

void LoopPool::tend() noexcept { impl_->pool->tend(); }

void LoopPool::defer_resets() noexcept { impl_->pool->defer_resets(); }

bool LoopPool::resets_are_due() const noexcept { return impl_->pool->resets_are_due(); }

void LoopPool::reset_answered() noexcept { impl_->pool->reset_answered(); }

struct Server::Impl {
    rust::Box<ffi::Server> server;
};

Server::Server(std::unique_ptr<Impl> impl) noexcept : impl_(std::move(impl)) {}
Server::Server(Server &&) noexcept = default;
Server &Server::operator=(Server &&) noexcept = default;
Server::~Server() = default;

Server Server::start(std::string_view config_json) {
    return translate_errors([&] { return Server(std::make_unique<Impl>(Impl{ffi::start_server(utf8(config_json))})); });
}

std::string Server::report_json() const {
    return translate_errors([&] { return std::string(impl_->server->report_json()); });
}

std::string Server::metrics() const {
    return translate_errors([&] { return std::string(impl_->server->metrics()); });
}

bool Server::has_default() const {
    return translate_errors([&] { return impl_->server->has_default(); });
}

std::string Server::apply(std::string_view config_json) const {
    return translate_errors([&] { return std::string(impl_->server->apply(utf8(config_json))); });
}

std::uint64_t Server::reload(std::string_view tenant) const {
    return translate_errors([&] { return impl_->server->reload(utf8(tenant)); });
}

std::uint64_t Server::rollback(std::string_view tenant) const {
    return translate_errors([&] { return impl_->server->rollback(utf8(tenant)); });
}

void Server::begin_end(std::chrono::milliseconds at_most) const noexcept {
    impl_->server->begin_end(static_cast<std::uint64_t>(std::max<std::int64_t>(at_most.count(), 0)));
}

std::uint32_t Server::in_work() const noexcept { return impl_->server->in_work(); }

void Server::shutdown() const noexcept { impl_->server->shutdown(); }

LoopPool Server::loop_pool() const {
    return translate_errors(
        [&] { return LoopPool(std::make_unique<LoopPool::Impl>(LoopPool::Impl{impl_->server->loop_pool()})); });
}

} // namespace mayfly
