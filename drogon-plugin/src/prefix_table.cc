// SPDX-License-Identifier: MIT OR Apache-2.0

#include "prefix_table.hpp"

#include <algorithm>
#include <utility>

#include "mayfly/server.hpp"

namespace mayfly {

namespace {

// Drogon gives braces and question marks in a route a meaning of their own, and compiles every route as a
// regular expression, though it matches routes like ours as strings.
void check(const std::string &prefix) {
    constexpr std::string_view special = "{}?*+()[]^$|\\";
    if (!prefix.starts_with('/') || prefix.find_first_of(special) != std::string::npos) {
        throw Error("path \"" + prefix + "\": a path starts with a slash and has none of " + std::string(special));
    }
}

} // namespace

PrefixTable::PrefixTable(std::vector<std::string> prefixes) : prefixes_(std::move(prefixes)) {
    for (auto &prefix : prefixes_) {
        check(prefix);
        while (prefix.size() > 1 && prefix.ends_with('/')) {
            prefix.pop_back();
        }
        const auto entry = below_.emplace(prefix, below(prefix)).first;
        longest_ = std::max(longest_, prefix.size());
        if (prefix == "/") {
            below_root_ = &entry->second;
        }
    }
}

std::string PrefixTable::below(std::string_view prefix) { return std::string(prefix == "/" ? "" : prefix) + "/*"; }

bool PrefixTable::is_prefix(std::string_view path) const { return below_.contains(path); }

const std::string *PrefixTable::route_below(std::string_view path) const {
    auto slash = path.rfind('/', longest_);
    if (slash == 0 && below_root_ == nullptr) {
        return nullptr; // The common case: "/", "/hello".
    }
    if (path.size() <= longest_ && is_prefix(path)) {
        return nullptr;
    }
    for (; slash != std::string_view::npos && slash > 0; slash = path.rfind('/', slash - 1)) {
        if (const auto entry = below_.find(path.substr(0, slash)); entry != below_.end()) {
            return &entry->second;
        }
    }
    return below_root_;
}

} // namespace mayfly
