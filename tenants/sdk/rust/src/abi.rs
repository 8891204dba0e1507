// SPDX-License-Identifier: MIT OR Apache-2.0

//! The binary interface between program and host, version 1, as `mayfly.h` and `docs/guest-sdk.md` define it.

use core::ffi::{c_ulong, c_void};
use core::mem::{offset_of, size_of};

/// Version of the interface.
pub const ABI: u64 = 1;
/// Type of the auxiliary-vector entry whose value is the address of [`Page`].
pub const AT_MAYFLY: c_ulong = 0x4d59_464c;
/// "MAYFLY1" and a NUL.
pub const MAGIC: u64 = u64::from_le_bytes(*b"MAYFLY1\0");

pub const OP_WAIT: u64 = 1;
pub const OP_RESPOND: u64 = 2;
pub const OP_CALL: u64 = 3;
pub const OP_HOOKS: u64 = 4;

pub const METHOD_CALL: &[u8] = b"mayfly:call";
pub const METHOD_SAVE: &[u8] = b"mayfly:save";
pub const METHOD_RESTORE: &[u8] = b"mayfly:restore";

/// Flag of the page: there is shared memory.
pub const PAGE_SHARED: u32 = 1;

/// The doorbell: returns a negative errno, or what the operation says.
pub type Doorbell = unsafe extern "C" fn(operation: u64, argument: *const c_void, abi: u64) -> i64;

/// The host's description for the program; read-only.
#[repr(C)]
pub struct Page {
    pub magic: u64,
    pub abi_min: u32,
    pub abi_max: u32,
    pub doorbell: Doorbell,
    pub request_max: u64,
    pub response_max: u64,
    pub response_headers_max: u32,
    pub flags: u32,
    pub shared: *mut u8,
    pub shared_size: u64,
}

/// Bytes that another owner holds.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Bytes {
    pub data: *const u8,
    pub size: usize,
}

/// A header field.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Header {
    pub name: Bytes,
    pub value: Bytes,
}

/// A request, which the host has written and only it can write.
#[repr(C)]
pub struct Request {
    pub abi: u32,
    pub header_count: u32,
    pub id: u64,
    pub unix_ns: u64,
    pub monotonic_ns: u64,
    pub entropy: [u8; 32],
    pub method: Bytes,
    pub path: Bytes,
    pub query: Bytes,
    pub body: Bytes,
    pub headers: *const Header,
}

/// A response.
#[repr(C)]
pub struct Response {
    pub status: u32,
    pub header_count: u32,
    pub headers: *const Header,
    pub body: Bytes,
}

/// A call of a function of the storage program.
#[repr(C)]
pub struct PeerCall {
    pub name: Bytes,
    pub argument: Bytes,
    pub result: *mut u8,
    pub capacity: usize,
}

const _: () = {
    assert!(size_of::<Page>() == 64 && offset_of!(Page, doorbell) == 16 && offset_of!(Page, shared) == 48);
    assert!(size_of::<Header>() == 32);
    assert!(size_of::<Request>() == 136 && offset_of!(Request, entropy) == 32 && offset_of!(Request, method) == 64);
    assert!(offset_of!(Request, headers) == 128);
    assert!(size_of::<Response>() == 32 && offset_of!(Response, body) == 16);
    assert!(size_of::<PeerCall>() == 48);
};

impl Bytes {
    /// The bytes of a slice.
    pub fn of(slice: &[u8]) -> Self {
        Self { data: slice.as_ptr(), size: slice.len() }
    }

    /// The slice that these bytes are.
    ///
    /// # Safety
    ///
    /// `data` points to `size` bytes that stay as they are for `'a`.
    pub unsafe fn as_slice<'a>(self) -> &'a [u8] {
        if self.size == 0 {
            return &[];
        }
        // SAFETY: the caller's promise; with a size above 0 the host gives no null.
        unsafe { core::slice::from_raw_parts(self.data, self.size) }
    }
}
