// SPDX-License-Identifier: MIT OR Apache-2.0
//! Assembles the guest kernel and the vDSO.

fn main() {
    println!("cargo::rerun-if-changed=src/guest/kernel.S");
    println!("cargo::rerun-if-changed=src/guest/kernel.h");
    println!("cargo::rerun-if-changed=src/guest/vdso.S");
    cc::Build::new().file("src/guest/kernel.S").file("src/guest/vdso.S").compile("mayfly_kernel");
}
