// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Serves a Python program that Pythran has transpiled. The program has
//
//     on_init()            called once, before the program is frozen
//     on_client_request()  called for each request; returns a function that returns (content type, page)

#include "mayfly.h"
#include "page.hpp" // made by `pythran -E`

namespace {

namespace program = __pythran_page;

std::string_view view(const pythonic::types::str &text) { return text.chars(); }

void answer() {
    const auto generator = program::on_client_request()();
    const auto response = generator();
    mayfly::respond(200, view(std::get<0>(response)), view(std::get<1>(response)));
}

} // namespace

int main() {
    program::on_init()();
    for (;;) {
        mayfly::wait();
        answer();
    }
}
