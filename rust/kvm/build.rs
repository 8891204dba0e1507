// SPDX-License-Identifier: MIT OR Apache-2.0
//! Assembles the guest kernel and the vDSO.

fn main() {
    println!("cargo::rerun-if-changed=src/kernel.S");
    println!("cargo::rerun-if-changed=src/kernel.h");
    println!("cargo::rerun-if-changed=src/vdso.S");
    cc::Build::new().file("src/kernel.S").file("src/vdso.S").compile("mayfly_kernel");
}
