// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Answers every part of the request as JSON:
//
//     {"abi":1,"id":7,"unix_ns":…,"monotonic_ns":…,"entropy":"<64 hex digits>","method":"GET","path":"/echo",
//      "query":"a=b","headers":[{"name":"host","value":"localhost"},…],"body":"…"}
//
// What is not UTF-8 comes as base64 in a field whose name says so: "body_base64", "value_base64", and so on.
// Memory is bounded: one buffer of the largest response, made at boot. What does not fit is answered with 500.

#include <cstring>
#include <limits>
#include <memory>

#include "mayfly.h"

namespace {

bool is_utf8(std::string_view text) {
    for (std::size_t i = 0; i < text.size();) {
        const auto at = [&](std::size_t offset) -> unsigned {
            return i + offset < text.size() ? static_cast<unsigned char>(text[i + offset]) : 0u;
        };
        const unsigned lead = at(0);
        const std::size_t length = lead < 0x80   ? 1
                                   : lead < 0xc2 ? 0
                                   : lead < 0xe0 ? 2
                                   : lead < 0xf0 ? 3
                                   : lead < 0xf5 ? 4
                                                 : 0;
        if (length == 0) return false;
        // The second byte's range excludes overlong forms, surrogates and what lies above U+10FFFF.
        const unsigned low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
        const unsigned high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
        if (length > 1 && (at(1) < low || at(1) > high)) return false;
        for (std::size_t offset = 2; offset < length; ++offset)
            if ((at(offset) & 0xc0) != 0x80) return false;
        i += length;
    }
    return true;
}

// Writes JSON into a buffer of fixed size. Past its end nothing is written and fits() is false.
class Json {
  public:
    Json(char *buffer, std::size_t capacity) : buffer_(buffer), capacity_(capacity) {}

    bool fits() const { return fits_; }
    std::string_view text() const { return {buffer_, size_}; }

    Json &raw(std::string_view text) {
        if (text.size() > capacity_ - size_) {
            fits_ = false;
        } else if (!text.empty()) {
            std::memcpy(buffer_ + size_, text.data(), text.size());
            size_ += text.size();
        }
        return *this;
    }

    Json &number(std::string_view name, std::uint64_t value) {
        char digits[std::numeric_limits<std::uint64_t>::digits10 + 1];
        char *first = digits + sizeof digits;
        do {
            *--first = static_cast<char>('0' + value % 10);
            value /= 10;
        } while (value != 0);
        return key(name, "").raw({first, static_cast<std::size_t>(digits + sizeof digits - first)});
    }

    Json &hex(std::string_view name, const std::uint8_t *bytes, std::size_t size) {
        key(name, "").raw("\"");
        for (std::size_t i = 0; i < size; ++i)
            byte(bytes[i]);
        return raw("\"");
    }

    // A string, whatever bytes it has.
    Json &bytes(std::string_view name, const mayfly_bytes &bytes) {
        const std::string_view text = mayfly::view(bytes);
        return is_utf8(text) ? key(name, "").string(text) : key(name, "_base64").base64(text);
    }

  private:
    Json &key(std::string_view name, std::string_view suffix) { return raw("\"").raw(name).raw(suffix).raw("\":"); }

    Json &byte(unsigned char value) {
        static constexpr char digits[] = "0123456789abcdef";
        const char pair[] = {digits[value >> 4], digits[value & 15]};
        return raw({pair, sizeof pair});
    }

    Json &string(std::string_view text) {
        raw("\"");
        std::size_t plain = 0; // Start of what needs no escape and is not yet written.
        for (std::size_t i = 0; i < text.size(); ++i) {
            const char c = text[i];
            if (static_cast<unsigned char>(c) >= 0x20 && c != '"' && c != '\\') continue;
            raw(text.substr(plain, i - plain));
            plain = i + 1;
            switch (c) {
            case '"':
                raw("\\\"");
                break;
            case '\\':
                raw("\\\\");
                break;
            case '\n':
                raw("\\n");
                break;
            case '\r':
                raw("\\r");
                break;
            case '\t':
                raw("\\t");
                break;
            default:
                raw("\\u00").byte(static_cast<unsigned char>(c));
            }
        }
        return raw(text.substr(plain)).raw("\"");
    }

    Json &base64(std::string_view text) {
        static constexpr char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        raw("\"");
        for (std::size_t i = 0; i < text.size(); i += 3) {
            const std::size_t count = text.size() - i < 3 ? text.size() - i : 3;
            unsigned group = 0;
            for (std::size_t k = 0; k < 3; ++k)
                group = group << 8 | (k < count ? static_cast<unsigned char>(text[i + k]) : 0u);
            char four[] = {digits[group >> 18], digits[group >> 12 & 63], digits[group >> 6 & 63], digits[group & 63]};
            if (count < 3) four[3] = '=';
            if (count < 2) four[2] = '=';
            raw({four, sizeof four});
        }
        return raw("\"");
    }

    char *buffer_;
    std::size_t capacity_;
    std::size_t size_ = 0;
    bool fits_ = true;
};

void describe(const mayfly::Request &request, Json &json) {
    json.raw("{").number("abi", request.abi).raw(",").number("id", request.id);
    json.raw(",").number("unix_ns", request.unix_ns).raw(",").number("monotonic_ns", request.monotonic_ns);
    json.raw(",").hex("entropy", request.entropy, sizeof request.entropy);
    json.raw(",").bytes("method", request.method).raw(",").bytes("path", request.path);
    json.raw(",").bytes("query", request.query).raw(",\"headers\":[");
    for (std::uint32_t i = 0; i < request.header_count; ++i) {
        const mayfly_header &header = request.headers[i];
        json.raw(i == 0 ? "{" : ",{").bytes("name", header.name).raw(",").bytes("value", header.value).raw("}");
    }
    json.raw("],").bytes("body", request.body).raw("}\n");
}

} // namespace

int main() {
    constexpr std::size_t header_size = sizeof "content-type" + sizeof "application/json";
    const mayfly_page *host = mayfly_host();
    const std::size_t capacity = host && host->response_max > header_size ? host->response_max - header_size : 0;
    const std::unique_ptr<char[]> buffer(new char[capacity]);
    for (;;) {
        const mayfly::Request &request = mayfly::wait();
        Json json(buffer.get(), capacity);
        describe(request, json);
        if (json.fits())
            mayfly::respond(200, "application/json", json.text());
        else
            mayfly::respond(500, "application/json", "{\"error\":\"the response would be too large\"}\n");
    }
}
