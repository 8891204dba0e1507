// SPDX-License-Identifier: MIT OR Apache-2.0
//! The executable that a zygote starts as: an ELF file of some 300 bytes, built in memory.
//!
//! ```text
//!   0  ELF header
//!  64  program header: PT_LOAD, all of the file at BASE, r-x
//! 120  program header: PT_GNU_STACK, rw-, so that no memory becomes executable by default
//! 176  code.S, bootstrap
//! ```
//!
//! It is not linked at the host pages themselves: the kernel puts a process's first stack at a random place below
//! 2^47, now and then where those pages belong, and would then refuse to start the program. From below it maps them
//! over whatever is there.

/// Where the file is mapped, until the zygote's first call unmaps it.
const BASE: u64 = 0x40_0000;
const HEADER: u64 = 64;
const PROGRAM_HEADER: u64 = 56;
const START: u64 = HEADER + 2 * PROGRAM_HEADER;

/// The file with this code (System V ABI, chapters 4 and 5; values of `elf.h`).
pub(crate) fn executable(code: &[u8]) -> Vec<u8> {
    let bytes = START + code.len() as u64;
    let mut file = Vec::with_capacity(bytes as usize);
    // 64-bit, little-endian, version 1, System V.
    file.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    let halves = |values: &[u16]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>();
    let words = |values: &[u32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>();
    let longs = |values: &[u64]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>();
    file.extend(halves(&[2, 62])); // ET_EXEC, EM_X86_64
    file.extend(words(&[1]));
    file.extend(longs(&[BASE + START, HEADER, 0])); // entry, program headers, no sections
    file.extend(words(&[0]));
    file.extend(halves(&[HEADER as u16, PROGRAM_HEADER as u16, 2, 0, 0, 0]));
    file.extend(words(&[1, 5])); // PT_LOAD, PF_R | PF_X
    file.extend(longs(&[0, BASE, BASE, bytes, bytes, 4096]));
    file.extend(words(&[0x6474_e551, 6])); // PT_GNU_STACK, PF_R | PF_W
    file.extend(longs(&[0, 0, 0, 0, 0, 16]));
    file.extend(code);
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_is_where_the_entry_point_says() {
        let file = executable(b"code");
        let entry = u64::from_le_bytes(file[24..32].try_into().unwrap());
        assert_eq!(&file[(entry - BASE) as usize..], b"code");
    }
}
