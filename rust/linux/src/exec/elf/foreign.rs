// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files that users take for programs: what they are, by their first bytes (see `magic(5)`), and what to do.

use crate::exec::elf::ElfError;

const RUNS_LINUX: &str = "Mayfly runs programs for Linux on x86-64";
const RUN_BY_A_RUNTIME: &str = "name the program that runs it (java, python3, …) as the program, and the file's path in the mounts among its \
                                arguments";

const FORMATS: [(&[u8], &str, &str); 9] = [
    (b"PK\x03\x04", "a ZIP archive (.jar, .pyz)", RUN_BY_A_RUNTIME),
    (
        b"\0asm",
        "a WebAssembly module",
        "compile it for Linux on x86-64, or name the runtime that runs it as the program",
    ),
    (b"MZ", "a program for Windows", RUNS_LINUX),
    (b"\xcf\xfa\xed\xfe", "a program for macOS", RUNS_LINUX),
    (b"\xca\xfe\xba\xbe", "a Java class, or a program for macOS", RUN_BY_A_RUNTIME),
    (b"!<arch>\n", "a static library", "link it into a program"),
    (b"BC\xc0\xde", "LLVM bitcode", "compile it to a program"),
    (b"\x1f\x8b", "a file compressed by gzip", "unpack it, and name the program in it"),
    (b"\xfd7zXZ\0", "a file compressed by xz", "unpack it, and name the program in it"),
];

/// The error for a file with this beginning, which is neither ELF nor a script that names its interpreter.
pub(super) fn recognise(head: &[u8]) -> ElfError {
    if let Some(&(_, what, hint)) = FORMATS.iter().find(|(magic, ..)| head.starts_with(magic)) {
        return ElfError::OtherFormat { what, hint };
    }
    if is_text(head) { ElfError::Text } else { ElfError::NotElf }
}

/// Whether the bytes are UTF-8, possibly cut in a character, without control characters other than white space.
fn is_text(head: &[u8]) -> bool {
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => {
            head.get(..error.valid_up_to()).and_then(|valid| std::str::from_utf8(valid).ok()).unwrap_or_default()
        }
        Err(_) => return false,
    };
    !text.is_empty() && text.chars().all(|char| !char.is_control() || char.is_ascii_whitespace())
}
