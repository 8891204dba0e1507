// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guest ABI, version 1: the host's side of `tenants/sdk/mayfly.h`.
//!
//! ```text
//! doorbell page     [ struct mayfly_page | ... | entry ]                       user r-x, shared by all workers
//! inbox             [ struct mayfly_request | random | headers | strings | body | zeroes ]   user r--, host writes
//! ```

use mayfly_machine::layout;

/// Oldest and newest version of the ABI that this host speaks.
pub(crate) const ABI_MIN: u32 = 1;
pub(crate) const ABI_MAX: u32 = 1;

/// Type of the auxiliary-vector entry that holds the doorbell page's address.
pub(crate) const AT_MAYFLY: u64 = 0x4d59_464c;
const MAGIC: &[u8; 8] = b"MAYFLY1\0";

/// Operations.
pub(crate) const OP_WAIT: u64 = 1;
pub(crate) const OP_RESPOND: u64 = 2;
pub(crate) const OP_CALL: u64 = 3;
pub(crate) const OP_HOOKS: u64 = 4;

/// What the doorbell answers: there is no such operation; the operation is not allowed now.
pub(crate) const ENOSYS: i64 = -(libc::ENOSYS as i64);
pub(crate) const EPROTO: i64 = -(libc::EPROTO as i64);

/// Whether this host speaks version `abi` of the ABI.
#[inline]
pub(crate) fn speaks(abi: u64) -> bool {
    (u64::from(ABI_MIN)..=u64::from(ABI_MAX)).contains(&abi)
}

/// Most headers that a response may have.
pub(crate) const RESPONSE_HEADERS_MAX: u32 = 64;

/// Size of `struct mayfly_request`.
pub(crate) const REQUEST_BYTES: usize = 136;
/// Offset of the 16 bytes that `AT_RANDOM` points to; fresh for each request.
pub(crate) const RANDOM_OFFSET: u64 = 144;
/// Where the header table starts.
pub(crate) const HEADERS_OFFSET: usize = 160;
/// Size of `struct mayfly_header`.
pub(crate) const HEADER_BYTES: usize = 32;
/// Zeroes behind the body.
pub(crate) const PADDING_BYTES: usize = 64;
/// Size of `struct mayfly_response`.
pub(crate) const RESPONSE_BYTES: usize = 32;
/// Size of `struct mayfly_peer_call`.
pub(crate) const CALL_BYTES: usize = 48;

/// Methods of requests that the host makes itself. None is an HTTP token, so no client can send one.
pub(crate) const METHOD_SAVE: &[u8] = b"mayfly:save";
pub(crate) const METHOD_RESTORE: &[u8] = b"mayfly:restore";
/// The method of a call by another program. The caller that carries calls out makes such requests.
pub const METHOD_CALL: &[u8] = b"mayfly:call";

/// The 64-bit number at an offset of a structure.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

const _: () = assert!(REQUEST_BYTES as u64 <= RANDOM_OFFSET && RANDOM_OFFSET + 16 <= HEADERS_OFFSET as u64);

/// Size of `struct mayfly_page`.
const PAGE_HEADER_BYTES: usize = 64;
/// Bit of the page's flags: the program has shared memory.
const PAGE_SHARED: u32 = 1;

const _: () = assert!(PAGE_HEADER_BYTES as u64 <= layout::DOORBELL_ENTRY_OFFSET);

/// `struct mayfly_page`; `shared_bytes` is the size of the program's shared memory, if it has any.
pub(crate) fn page_header(request_max: u64, response_max: u64, shared_bytes: Option<u64>) -> [u8; PAGE_HEADER_BYTES] {
    let mut page = [0; PAGE_HEADER_BYTES];
    page[..8].copy_from_slice(MAGIC);
    page[8..12].copy_from_slice(&ABI_MIN.to_le_bytes());
    page[12..16].copy_from_slice(&ABI_MAX.to_le_bytes());
    page[16..24].copy_from_slice(&layout::DOORBELL_ENTRY.to_le_bytes());
    page[24..32].copy_from_slice(&request_max.to_le_bytes());
    page[32..40].copy_from_slice(&response_max.to_le_bytes());
    page[40..44].copy_from_slice(&RESPONSE_HEADERS_MAX.to_le_bytes());
    if let Some(bytes) = shared_bytes {
        page[44..48].copy_from_slice(&PAGE_SHARED.to_le_bytes());
        page[48..56].copy_from_slice(&layout::SHARED.to_le_bytes());
        page[56..64].copy_from_slice(&bytes.to_le_bytes());
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sdk_header_says_the_same() {
        let header = include_str!("../../../tenants/sdk/mayfly.h");
        let line = |name: &str| {
            let start = format!("#define {name} ");
            header.lines().find_map(|line| line.strip_prefix(&start)).unwrap_or_else(|| panic!("{name} in mayfly.h"))
        };
        assert!(line("MAYFLY_ABI").starts_with("1u"));
        assert!(line("AT_MAYFLY").starts_with("0x4d59464cul"));
        assert!(line("MAYFLY_MAGIC").contains("0x0031594c4659414d"));
        assert_eq!(u64::from_le_bytes(*MAGIC), 0x0031_594c_4659_414d);
        assert!(line("MAYFLY_OP_WAIT").starts_with("UINT64_C(1)"));
        for (name, operation) in [("RESPOND", OP_RESPOND), ("CALL", OP_CALL), ("HOOKS", OP_HOOKS)] {
            assert!(line(&format!("MAYFLY_OP_{name}")).starts_with(&format!("UINT64_C({operation})")), "{name}");
        }
        for (name, method) in [("SAVE", METHOD_SAVE), ("RESTORE", METHOD_RESTORE), ("CALL", METHOD_CALL)] {
            let method = String::from_utf8(method.to_vec()).unwrap();
            assert!(line(&format!("MAYFLY_METHOD_{name}")).starts_with(&format!("\"{method}\"")), "{name}");
        }
        assert!(line("MAYFLY_PAGE_SHARED").starts_with(&format!("{PAGE_SHARED}u")));
        for (kind, size) in [
            ("page", PAGE_HEADER_BYTES),
            ("request", REQUEST_BYTES),
            ("response", RESPONSE_BYTES),
            ("header", HEADER_BYTES),
            ("peer_call", CALL_BYTES),
        ] {
            assert!(header.contains(&format!("MAYFLY_SIZE(mayfly_{kind}, {size});")), "{kind}");
        }
    }
}
