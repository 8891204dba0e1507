// SPDX-License-Identifier: MIT OR Apache-2.0
//! Assembles the guest kernel.

fn main() {
    println!("cargo::rerun-if-changed=src/guest/kernel.S");
    println!("cargo::rerun-if-changed=src/guest/kernel.h");
    cc::Build::new().file("src/guest/kernel.S").compile("mayfly_kernel");
}
