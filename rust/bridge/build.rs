// SPDX-License-Identifier: MIT OR Apache-2.0
//! Compiles the C++ half of the bridge into the staticlib.

fn main() {
    let cpp = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cpp");
    let mut build = cxx_build::bridge("src/lib.rs");
    build
        .std("c++20")
        .include(cpp.join("include"))
        .include(cpp.join("src"))
        .flag_if_supported("-Wall")
        .flag_if_supported("-Wextra")
        .compile("mayfly_bridge_cxx");

    println!("cargo:rerun-if-changed=src/lib.rs");
    for header in ["src/ffi.hpp", "include/mayfly/reply.hpp", "include/mayfly/request.hpp", "include/mayfly/waker.hpp"]
    {
        println!("cargo:rerun-if-changed={}", cpp.join(header).display());
    }
}
