// SPDX-License-Identifier: MIT OR Apache-2.0

use proptest::prelude::*;

use super::*;

/// A program header to write.
#[derive(Clone, Copy, Debug)]
struct Header {
    kind: u32,
    flags: u32,
    offset: u64,
    address: u64,
    file_size: u64,
    memory_size: u64,
    align: u64,
}

const TEXT: Header = Header {
    kind: abi::PT_LOAD,
    flags: abi::PF_R | abi::PF_X,
    offset: 0,
    address: 0x40_0000,
    file_size: 0x1800,
    memory_size: 0x1800,
    align: 0x1000,
};
const DATA: Header = Header {
    kind: abi::PT_LOAD,
    flags: abi::PF_R | abi::PF_W,
    offset: 0x1800,
    address: 0x40_2800,
    file_size: 0x100,
    memory_size: 0x2000,
    align: 0x1000,
};

const FILE_SIZE: usize = 0x2000;

/// An ELF file with these program headers and an entry at the start of `TEXT`'s second page.
fn file(kind: u16, entry: u64, headers: &[Header]) -> Vec<u8> {
    let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
    bytes.resize(IDENT_SIZE, 0);
    bytes.extend(kind.to_le_bytes());
    bytes.extend(abi::EM_X86_64.to_le_bytes());
    bytes.extend(1_u32.to_le_bytes());
    bytes.extend(entry.to_le_bytes());
    bytes.extend((HEADER_SIZE as u64).to_le_bytes());
    bytes.extend(0_u64.to_le_bytes());
    bytes.extend(0_u32.to_le_bytes());
    for half in [HEADER_SIZE as u16, PROGRAM_HEADER_SIZE, headers.len() as u16, 0, 0, 0] {
        bytes.extend(half.to_le_bytes());
    }
    for header in headers {
        bytes.extend(header.kind.to_le_bytes());
        bytes.extend(header.flags.to_le_bytes());
        for word in [header.offset, header.address, header.address, header.file_size, header.memory_size, header.align]
        {
            bytes.extend(word.to_le_bytes());
        }
    }
    bytes.resize(FILE_SIZE.max(bytes.len()), 0);
    bytes
}

fn program(headers: &[Header]) -> Result<Image, ElfError> {
    Image::parse(&file(abi::ET_EXEC, 0x40_1000, headers))
}

/// The reason to refuse a program with `TEXT` and this segment.
fn refusal(segment: Header) -> &'static str {
    match program(&[TEXT, segment]) {
        Err(ElfError::Segment { index: 1, reason }) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_static_program_keeps_its_addresses() {
    let image = program(&[TEXT, DATA]).unwrap();
    assert_eq!(image.entry, 0x40_1000);
    assert_eq!((image.headers, image.header_count), (0x40_0040, 2));
    assert_eq!(image.end(), 0x40_5000);
    assert!(!image.executable_stack);
    let [text, data] = &image.segments[..] else { panic!() };
    assert_eq!((text.pages.start(), text.pages.end()), (0x40_0000, 0x40_2000));
    assert_eq!(text.prot, Prot::READ | Prot::EXEC);
    assert_eq!((data.pages.start(), data.pages.end()), (0x40_2000, 0x40_5000));
    assert_eq!(data.prot, Prot::READ | Prot::WRITE);
    assert_eq!((data.address, data.data.clone()), (0x40_2800, 0x1800..0x1900));
}

#[test]
fn a_position_independent_program_is_moved_as_a_whole() {
    let low = |header: Header| Header { address: header.address - 0x40_0000, ..header };
    let image = Image::parse(&file(abi::ET_DYN, 0x1000, &[low(TEXT), low(DATA)])).unwrap();
    assert_eq!(image.entry, PIE_BASE + 0x1000);
    assert_eq!(image.headers, PIE_BASE + 0x40);
    assert_eq!(image.segments[1].address, PIE_BASE + 0x2800);

    let huge = Header { align: 1 << 21, ..low(TEXT) };
    let image = Image::parse(&file(abi::ET_DYN, 0x1000, &[huge])).unwrap();
    assert_eq!(image.segments[0].pages.start() % (1 << 21), 0);
}

#[test]
fn the_stack_is_executable_only_on_request() {
    let stack = |flags| Header { kind: abi::PT_GNU_STACK, flags, ..DATA };
    assert!(!program(&[TEXT, stack(abi::PF_R | abi::PF_W)]).unwrap().executable_stack);
    assert!(program(&[TEXT, stack(abi::PF_R | abi::PF_W | abi::PF_X)]).unwrap().executable_stack);
}

#[test]
fn a_foreign_file_is_refused_by_name() {
    let good = file(abi::ET_EXEC, 0x40_1000, &[TEXT, DATA]);
    let with = |at: usize, bytes: &[u8]| {
        let mut bad = good.clone();
        bad[at..at + bytes.len()].copy_from_slice(bytes);
        Image::parse(&bad).unwrap_err()
    };
    assert_eq!(Image::parse(b""), Err(ElfError::NotElf));
    for (script, interpreter) in [
        (&b"#!/bin/sh\nexit 0\n"[..], "/bin/sh"),
        (b"#! /usr/bin/env python3", "/usr/bin/env python3"),
        (b"#!", ""),
        (b"#!\xff\n", "\u{fffd}"),
    ] {
        assert_eq!(Image::parse(script), Err(ElfError::Script { interpreter: interpreter.to_owned() }));
    }
    for text in ["import os\n", "console.log('\u{e9}')\r\n\t", "x"] {
        assert_eq!(Image::parse(text.as_bytes()), Err(ElfError::Text));
    }
    let cut = ["x".repeat(255), "\u{e9}".into()].concat();
    assert_eq!(Image::parse(cut.as_bytes()), Err(ElfError::Text), "the beginning ends within a character");
    for binary in [&b"a\0b"[..], b"\xff\xfe", b"a\x1bb", b"\xe9"] {
        assert!(matches!(Image::parse(binary), Err(ElfError::NotElf | ElfError::Text)), "{binary:?}");
    }
    assert_eq!(Image::parse(b"a\0b"), Err(ElfError::NotElf));
    for (head, name) in
        [(&b"PK\x03\x04\x14"[..], ".jar"), (b"\0asm\x01\0\0\0", "WebAssembly"), (b"MZ\x90\0", "Windows")]
    {
        let error = Image::parse(head).unwrap_err();
        assert!(matches!(error, ElfError::OtherFormat { .. }) && error.to_string().contains(name), "{error}");
    }
    assert_eq!(with(4, &[1]), ElfError::Not64Bit);
    assert_eq!(with(4, &[3]), ElfError::Malformed("unknown class"));
    assert_eq!(with(5, &[2]), ElfError::BigEndian);
    assert_eq!(with(5, &[0]), ElfError::Malformed("unknown byte order"));
    assert_eq!(with(6, &[9]), ElfError::Malformed("unknown version"));
    assert_eq!(with(18, &[183]), ElfError::ForeignMachine { machine: abi::EM_AARCH64 });
    assert!(with(18, &[183]).to_string().contains("64-bit Arm"));
    assert_eq!(with(16, &[1]), ElfError::NotProgram { kind: abi::ET_REL });
    assert_eq!(with(16, &[4]), ElfError::NotProgram { kind: abi::ET_CORE });
    assert_eq!(with(54, &[32]), ElfError::ProgramHeaders { count: 2, size: 32 });
    assert_eq!(with(56, &[0xff, 0xff]), ElfError::ProgramHeaders { count: 0xffff, size: 56 });
    assert_eq!(with(56, &[0, 0]), ElfError::NoSegments);
}

#[test]
fn a_dynamic_program_names_its_interpreter() {
    let mut bytes = file(
        abi::ET_DYN,
        0x1000,
        &[Header { kind: abi::PT_INTERP, offset: 0x1000, file_size: 28, ..TEXT }, Header { address: 0, ..TEXT }],
    );
    bytes[0x1000..0x101c].copy_from_slice(b"/lib64/ld-linux-x86-64.so.2\0");
    let image = Image::parse(&bytes).unwrap();
    assert_eq!(image.interpreter.as_deref(), Some(&b"/lib64/ld-linux-x86-64.so.2"[..]));
    let elsewhere = Image::parse_at(&bytes, 0x7000_0000_0000).unwrap();
    assert_eq!((elsewhere.entry, elsewhere.span()), (0x7000_0000_1000, image.span()));
    bytes.truncate(0x1900);
    bytes[64 + 8..64 + 16].copy_from_slice(&u64::MAX.to_le_bytes());
    assert_eq!(Image::parse(&bytes).unwrap().interpreter, Some(Vec::new()), "a path outside of the file");
}

#[test]
fn every_truncation_is_an_error() {
    let good = file(abi::ET_EXEC, 0x40_1000, &[TEXT, DATA]);
    for len in 0..0x1900 {
        assert!(Image::parse(&good[..len]).is_err(), "cut to {len} bytes");
    }
    assert!(matches!(Image::parse(&good[..63]), Err(ElfError::Truncated { what: "the file header", .. })));
    assert!(matches!(
        Image::parse(&good[..100]),
        Err(ElfError::Truncated { what: "the table of program headers", .. })
    ));
    assert!(Image::parse(&good[..0x1900]).is_ok(), "bytes after the last segment's data are ignored");
}

#[test]
fn impossible_segments_are_refused() {
    assert!(refusal(Header { file_size: 0x3000, ..DATA }).contains("more bytes in the file"));
    assert!(refusal(Header { offset: 0x1900, ..DATA }).contains("different offsets within its page"));
    assert!(refusal(Header { offset: u64::MAX - 0x7ff, ..DATA }).contains("past the end of the file"));
    assert!(refusal(Header { memory_size: u64::MAX, ..DATA }).contains("wraps"));
    assert!(refusal(Header { memory_size: u64::MAX - 0x40_2800, ..DATA }).contains("wraps"));
    assert!(refusal(Header { address: u64::MAX - 0x7ff, ..DATA }).contains("wraps"));
    assert!(refusal(Header { address: 0x800, ..DATA }).contains("outside"));
    assert!(refusal(Header { address: layout::USER_END - 0x800, ..DATA }).contains("outside"));
    assert!(refusal(Header { address: 0xffff_8000_0000_0800, ..DATA }).contains("outside"));
    assert!(refusal(Header { address: 0x40_1800, ..DATA }).contains("shares pages"));
    assert!(refusal(Header { address: 0x30_0800, ..DATA }).contains("lies below"));
}

#[test]
fn empty_segments_are_ignored() {
    assert_eq!(program(&[TEXT, Header { file_size: 0, memory_size: 0, ..DATA }]).unwrap().segments.len(), 1);
    assert_eq!(program(&[Header { file_size: 0, memory_size: 0, ..TEXT }]), Err(ElfError::NoSegments));
}

#[test]
fn the_entry_must_be_executable() {
    for entry in [0, 0x3f_ffff, 0x40_2000, 0x40_2800, u64::MAX] {
        assert_eq!(Image::parse(&file(abi::ET_EXEC, entry, &[TEXT, DATA])), Err(ElfError::Entry { entry }));
    }
    let entry = u64::MAX;
    let image = Image::parse(&file(abi::ET_DYN, entry, &[Header { address: 0, ..TEXT }]));
    assert!(matches!(image, Err(ElfError::Entry { .. })), "an entry that wraps around is refused");
}

/// Asserts the module's guarantees for an image, whatever the file was.
fn check(image: &Image, file: &[u8]) {
    let mut end = layout::USER_MIN;
    for segment in &image.segments {
        assert!(segment.pages.start() >= end);
        assert!(!segment.pages.is_empty());
        assert!(segment.data.start <= segment.data.end && segment.data.end <= file.len());
        assert!(segment.pages.contains(segment.address));
        assert!(segment.address + segment.data.len() as u64 <= segment.pages.end());
        end = segment.pages.end();
    }
    assert!(end <= layout::USER_END);
    assert!(image.segments.iter().any(|s| s.prot.contains(Prot::EXEC) && s.pages.contains(image.entry)));
}

fn any_word() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        0..0x4000_u64,
        (0..0x4000_u64).prop_map(|x| u64::MAX - x),
        (0..0x4000_u64).prop_map(|x| 0x40_0000 + x),
        (0..0x4000_u64).prop_map(|x| layout::USER_END - 0x2000 + x),
        (0..64_u32).prop_map(|bit| 1 << bit),
    ]
}

prop_compose! {
    fn any_header()(
        kind in prop_oneof![
                Just(abi::PT_LOAD), Just(abi::PT_LOAD), Just(abi::PT_GNU_STACK), Just(abi::PT_INTERP), any::<u32>()
            ],
        flags in 0..8_u32,
        words in prop::array::uniform5(any_word()),
        congruent in any::<bool>(),
    ) -> Header {
        let [offset, address, file_size, memory_size, align] = words;
        let offset = if congruent { offset & !0xfff | address & 0xfff } else { offset };
        Header { kind, flags, offset, address, file_size, memory_size, align }
    }
}

proptest! {
    #[test]
    fn any_bytes_are_an_error_or_a_sound_image(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        if let Ok(image) = Image::parse(&bytes) {
            check(&image, &bytes);
        }
    }

    #[test]
    fn any_damage_to_a_program_is_an_error_or_a_sound_image(
        dynamic in any::<bool>(),
        damage in prop::collection::vec((0..0x140_usize, any::<u8>()), 0..6),
        len in prop_oneof![Just(FILE_SIZE), 0..FILE_SIZE],
    ) {
        let kind = if dynamic { abi::ET_DYN } else { abi::ET_EXEC };
        let mut bytes = file(kind, 0x40_1000, &[TEXT, DATA]);
        for (at, value) in damage {
            bytes[at] = value;
        }
        bytes.truncate(len);
        if let Ok(image) = Image::parse(&bytes) {
            check(&image, &bytes);
        }
    }

    #[test]
    fn any_program_headers_are_an_error_or_a_sound_image(
        dynamic in any::<bool>(),
        entry in any_word(),
        headers in prop::collection::vec(any_header(), 0..6),
    ) {
        let kind = if dynamic { abi::ET_DYN } else { abi::ET_EXEC };
        let mut all = vec![TEXT];
        all.extend(headers);
        let bytes = file(kind, entry, &all);
        if let Ok(image) = Image::parse(&bytes) {
            check(&image, &bytes);
        }
    }
}
