// SPDX-License-Identifier: MIT OR Apache-2.0

#include "mayfly/gate.hpp"

#include <utility>

#include "mayfly-bridge/src/lib.rs.h"

namespace mayfly {

struct Gate::Impl {
    rust::Box<ffi::Gate> gate;
};

void Gate::announce(std::string_view framework) noexcept { ffi::announce_gate({framework.data(), framework.size()}); }

Gate::Gate() : impl_(std::make_unique<Impl>(Impl{ffi::new_gate()})) {}
Gate::Gate(Gate &&) noexcept = default;
Gate &Gate::operator=(Gate &&) noexcept = default;
Gate::~Gate() = default;

Gate::Result Gate::take(std::string_view input) noexcept {
    const auto result = impl_->gate->take(ffi::bytes(input));
    return {
        .consumed = result.consumed,
        .passed = result.is_unchanged ? input.substr(0, result.consumed) : ffi::text(impl_->gate->output()),
        .is_unchanged = result.is_unchanged,
        .says_continue = result.says_continue,
        .is_broken = result.is_broken,
    };
}

} // namespace mayfly
