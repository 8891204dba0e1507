// SPDX-License-Identifier: MIT OR Apache-2.0
//! Assembles the vDSO.

fn main() {
    println!("cargo::rerun-if-changed=src/vdso/vdso.S");
    println!("cargo::rerun-if-changed=src/vdso/vdso.h");
    cc::Build::new().file("src/vdso/vdso.S").compile("mayfly_vdso");
}
