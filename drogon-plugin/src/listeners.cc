// SPDX-License-Identifier: MIT OR Apache-2.0

#include "listeners.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <cstring>
#include <optional>
#include <string_view>
#include <thread>
#include <vector>

#include <dirent.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <drogon/HttpAppFramework.h>

namespace mayfly {

namespace {

// The maximum number of times that the kernel is asked whether connections still wait to be accepted.
constexpr int looks = 50;

struct Address {
    sockaddr_storage storage{};
    socklen_t size = sizeof(sockaddr_storage);

    [[nodiscard]] in_port_t port() const noexcept {
        // The port has the same offset in both families.
        return reinterpret_cast<const sockaddr_in *>(&storage)->sin_port;
    }

    [[nodiscard]] bool is_internet() const noexcept {
        return storage.ss_family == AF_INET || storage.ss_family == AF_INET6;
    }

    [[nodiscard]] bool same_host(const sockaddr *other) const noexcept {
        if (storage.ss_family != other->sa_family) {
            return false;
        }
        if (storage.ss_family == AF_INET) {
            const auto *a = reinterpret_cast<const sockaddr_in *>(&storage);
            const auto *b = reinterpret_cast<const sockaddr_in *>(other);
            return a->sin_addr.s_addr == b->sin_addr.s_addr;
        }
        const auto *a = reinterpret_cast<const sockaddr_in6 *>(&storage);
        const auto *b = reinterpret_cast<const sockaddr_in6 *>(other);
        return std::memcmp(&a->sin6_addr, &b->sin6_addr, sizeof a->sin6_addr) == 0;
    }
};

std::optional<Address> address_of(int descriptor) noexcept {
    Address address;
    if (getsockname(descriptor, reinterpret_cast<sockaddr *>(&address.storage), &address.size) != 0 ||
        !address.is_internet()) {
        return std::nullopt;
    }
    return address;
}

bool option(int descriptor, int name) noexcept {
    int value = 0;
    socklen_t size = sizeof value;
    return getsockopt(descriptor, SOL_SOCKET, name, &value, &size) == 0 && value != 0;
}

// Calls `visit` with each descriptor that the process has at this moment.
template <typename Visit> void for_each_descriptor(DIR *directory, Visit visit) {
    if (directory == nullptr) {
        return;
    }
    rewinddir(directory);
    while (const auto *entry = readdir(directory)) {
        const std::string_view name = entry->d_name;
        int descriptor = 0;
        const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), descriptor);
        if (error == std::errc() && end == name.data() + name.size()) {
            visit(descriptor);
        }
    }
}

bool drogon_listens_on(const Address &address, const std::vector<trantor::InetAddress> &listeners) {
    return std::ranges::any_of(listeners, [&](const trantor::InetAddress &listener) {
        return listener.portNetEndian() == address.port() && address.same_host(listener.getSockAddr());
    });
}

std::vector<int> listening(DIR *directory, const std::vector<trantor::InetAddress> &listeners) {
    std::vector<int> found;
    for_each_descriptor(directory, [&](int descriptor) {
        if (option(descriptor, SO_ACCEPTCONN)) {
            if (const auto address = address_of(descriptor); address && drogon_listens_on(*address, listeners)) {
                found.push_back(descriptor);
            }
        }
    });
    return found;
}

// Drops the packets that open a connection: SYN without ACK. Those of handshakes in progress pass.
void refuse_handshakes(int descriptor) noexcept {
    // Not documented in tcp(7): a filter of a TCP socket sees packets from the TCP header on, whose 14th byte has the
    // flags (RFC 9293, 3.1).
    constexpr unsigned flags_at = 13;
    constexpr unsigned syn = 0x02;
    constexpr unsigned ack = 0x10;
    std::array<sock_filter, 5> program{
        sock_filter BPF_STMT(BPF_LD | BPF_B | BPF_ABS, flags_at),
        sock_filter BPF_STMT(BPF_ALU | BPF_AND | BPF_K, syn | ack),
        sock_filter BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, syn, 0, 1),
        sock_filter BPF_STMT(BPF_RET | BPF_K, 0),
        sock_filter BPF_STMT(BPF_RET | BPF_K, ~0U),
    };
    const sock_fprog filter{static_cast<unsigned short>(program.size()), program.data()};
    // Where it is refused, connections that are made in the next milliseconds are reset.
    (void)setsockopt(descriptor, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof filter);
}

bool has_waiting(const std::vector<int> &listening) noexcept {
    return std::ranges::any_of(listening, [](int descriptor) {
        pollfd waiting{descriptor, POLLIN, 0};
        return poll(&waiting, 1, 0) > 0 && (waiting.revents & POLLIN) != 0;
    });
}

} // namespace

Listeners::Listeners() noexcept
    : descriptors_(opendir("/proc/self/fd")), null_(open("/dev/null", O_RDONLY | O_CLOEXEC)) {}

Listeners::~Listeners() {
    if (descriptors_ != nullptr) {
        closedir(descriptors_);
    }
    if (null_ >= 0) {
        close(null_);
    }
}

int Listeners::stop(std::chrono::milliseconds settle) const {
    const auto found = listening(descriptors_, drogon::app().getListeners());
    std::ranges::for_each(found, refuse_handshakes);
    std::this_thread::sleep_for(settle);
    for (int look = 0; look < looks && has_waiting(found); ++look) {
        std::this_thread::sleep_for(settle / 4);
    }
    int stopped = 0;
    for (const int descriptor : found) {
        stopped += dup3(null_, descriptor, O_CLOEXEC) == descriptor ? 1 : 0;
    }
    return stopped;
}

int Listeners::connections() const {
    const auto listeners = drogon::app().getListeners();
    int count = 0;
    for_each_descriptor(descriptors_, [&](int descriptor) {
        const auto address = address_of(descriptor);
        if (!address || option(descriptor, SO_ACCEPTCONN)) {
            return;
        }
        // An accepted connection has the listener's port; the listener's host may be the unspecified address.
        count += std::ranges::any_of(listeners,
                                     [&](const auto &listener) { return listener.portNetEndian() == address->port(); })
                     ? 1
                     : 0;
    });
    return count;
}

} // namespace mayfly
