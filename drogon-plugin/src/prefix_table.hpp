// SPDX-License-Identifier: MIT OR Apache-2.0
//
// The path prefixes that belong to tenants.

#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace mayfly {

// Tells for a request's path which Drogon route is to have it. Each prefix, "/hello" say, has two: "/hello"
// itself, and the one for all that lies below it, written "/hello/*" (for Drogon a path like any other).
//
// A prefix ends at a slash: "/hello" owns "/hello", "/hello/" and "/hello/a/b", but not "/helloX". The longest
// prefix wins. The prefix "/" owns every path.
class PrefixTable {
  public:
    // Throws Error if a prefix cannot be a route of Drogon's.
    explicit PrefixTable(std::vector<std::string> prefixes);

    // The prefixes, without a slash at the end (but for "/").
    [[nodiscard]] const std::vector<std::string> &prefixes() const noexcept { return prefixes_; }

    // The route for what lies below `prefix`.
    [[nodiscard]] static std::string below(std::string_view prefix);

    // Whether `path` is a prefix itself.
    [[nodiscard]] bool is_prefix(std::string_view path) const;

    // The route for `path` if it lies below a prefix and is none itself, or nullptr.
    //
    // The work is bounded by the longest prefix, not by `path`, which comes from a client.
    [[nodiscard]] const std::string *route_below(std::string_view path) const;

  private:
    struct Hash : std::hash<std::string_view> {
        using is_transparent = void;
    };

    std::vector<std::string> prefixes_;
    std::unordered_map<std::string, std::string, Hash, std::equal_to<>> below_; // prefix -> its route below
    const std::string *below_root_ = nullptr;                                   // into below_
    std::size_t longest_ = 0;
};

} // namespace mayfly
