// SPDX-License-Identifier: MIT OR Apache-2.0

//! Finding the host, and what it offers.

use core::ffi::{c_ulong, c_void};
use core::fmt;
use core::marker::PhantomData;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, Ordering};

use crate::abi;
use crate::request::Request;

unsafe extern "C" {
    /// `getauxval(3)`.
    safe fn getauxval(kind: c_ulong) -> c_ulong;
}

/// The host, found once in a process, by one thread, which is the one that serves.
#[derive(Debug)]
pub struct Host {
    page: &'static abi::Page,
    // The doorbell is for one thread at a time: neither Send nor Sync.
    _thread: PhantomData<*mut ()>,
}

/// Why there is no [`Host`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenError {
    /// The program runs outside Mayfly.
    Outside,
    /// The host's page is not one of Mayfly's.
    NotMayfly,
    /// The host speaks other versions of the interface than this crate.
    Abi {
        /// The oldest that it speaks.
        min: u32,
        /// The newest.
        max: u32,
    },
    /// There is a [`Host`] already.
    Taken,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outside => f.write_str("this program answers requests inside Mayfly only; try: mayfly run PROGRAM"),
            Self::NotMayfly => f.write_str("the host's page is not one of Mayfly's"),
            Self::Abi { min, max } => write!(
                f,
                "this program speaks ABI {} and this host ABI {min} to {max}; rebuild it with the host's mayfly-guest",
                abi::ABI
            ),
            Self::Taken => f.write_str("the host has been opened already"),
        }
    }
}

impl core::error::Error for OpenError {}

impl Host {
    /// Finds the host.
    ///
    /// ```
    /// use mayfly_guest::{Host, OpenError};
    ///
    /// match Host::open() {
    ///     Ok(host) => println!("requests of up to {} bytes", host.request_max()),
    ///     Err(OpenError::Outside) => println!("not inside Mayfly"),
    ///     Err(error) => eprintln!("{error}"),
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// There is none, or it cannot be spoken to, or it was found before.
    pub fn open() -> Result<Self, OpenError> {
        static TAKEN: AtomicBool = AtomicBool::new(false);
        let page = page()?;
        if TAKEN.swap(true, Ordering::Relaxed) {
            return Err(OpenError::Taken);
        }
        Ok(Self { page, _thread: PhantomData })
    }

    /// Most bytes of a request and its headers. Larger ones never reach the program.
    #[must_use]
    pub fn request_max(&self) -> u64 {
        self.page.request_max
    }

    /// Most bytes of a response: its body and its headers' names and values.
    #[must_use]
    pub fn response_max(&self) -> u64 {
        self.page.response_max
    }

    /// Most headers of a response.
    #[must_use]
    pub fn response_headers_max(&self) -> u32 {
        self.page.response_headers_max
    }

    /// Memory that all of the tenant's workers see at this address and nothing rolls back, and its size in bytes. It
    /// starts as zeroes and is aligned to a page. Others use it at the same time: reach it with atomics only.
    #[must_use]
    pub fn shared(&self) -> Option<(NonNull<u8>, usize)> {
        if self.page.flags & abi::PAGE_SHARED == 0 {
            return None;
        }
        Some((NonNull::new(self.page.shared)?, usize::try_from(self.page.shared_size).ok()?))
    }

    /// Says that the program answers the host's own requests to save and restore its state ([`Origin`](crate::Origin)).
    ///
    /// # Errors
    ///
    /// The error number with which the host refused: it does not know of this.
    pub fn hand_over(&mut self) -> Result<(), i32> {
        // SAFETY: HOOKS takes no argument.
        let answer = unsafe { self.ring(abi::OP_HOOKS, core::ptr::null()) };
        if answer < 0 { Err(errno(answer)) } else { Ok(()) }
    }

    /// Waits for the first request, and so ends the boot.
    ///
    /// ```
    /// use mayfly_guest::Host;
    ///
    /// let Ok(host) = Host::open() else { return }; // Outside Mayfly.
    /// let mut request = host.wait().expect("the host speaks this ABI");
    /// loop {
    ///     let headers = [("content-type", "text/plain")];
    ///     let (next, sent) = request.respond(200, &headers, b"Hello!").expect("it waits again");
    ///     if let Err(error) = sent {
    ///         eprintln!("{error}");
    ///     }
    ///     request = next;
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// The error number with which the host refused.
    pub fn wait(self) -> Result<Request, i32> {
        // SAFETY: WAIT takes no argument.
        let answer = unsafe { self.ring(abi::OP_WAIT, core::ptr::null()) };
        // SAFETY: this is an answer to WAIT.
        unsafe { self.request(answer) }
    }

    /// Rings the doorbell.
    ///
    /// # Safety
    ///
    /// `argument` is what the operation takes.
    pub(crate) unsafe fn ring(&self, operation: u64, argument: *const c_void) -> i64 {
        // SAFETY: the page is the host's, so its doorbell is a function of that type; a Host stays in its thread.
        unsafe { (self.page.doorbell)(operation, argument, abi::ABI) }
    }

    /// The request that an answer of the doorbell is.
    ///
    /// # Safety
    ///
    /// It answered WAIT or RESPOND.
    pub(crate) unsafe fn request(self, answer: i64) -> Result<Request, i32> {
        let Ok(address) = usize::try_from(answer) else { return Err(errno(answer)) };
        let raw = core::ptr::with_exposed_provenance(address);
        // SAFETY: the host gives the address of a request, which is valid until it is answered; Request::respond, which
        // answers it, consumes it.
        Ok(unsafe { Request::new(self, raw) })
    }
}

impl fmt::Debug for abi::Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Page")
            .field("request_max", &self.request_max)
            .field("response_max", &self.response_max)
            .finish_non_exhaustive()
    }
}

/// The positive error number of a doorbell's answer.
pub(crate) fn errno(answer: i64) -> i32 {
    i32::try_from(answer.unsigned_abs()).unwrap_or(i32::MAX)
}

fn page() -> Result<&'static abi::Page, OpenError> {
    let address = getauxval(abi::AT_MAYFLY);
    if address == 0 {
        return Err(OpenError::Outside);
    }
    let page = core::ptr::with_exposed_provenance::<abi::Page>(usize::try_from(address).unwrap_or(0));
    // SAFETY: the value of an AT_MAYFLY entry is the address of a page. Its first word shows whether it is Mayfly's.
    let magic = unsafe { page.cast::<u64>().read() };
    if magic != abi::MAGIC {
        return Err(OpenError::NotMayfly);
    }
    // SAFETY: it is Mayfly's page, which is never written as long as the process lives.
    let page = unsafe { &*page };
    if (u64::from(page.abi_min)..=u64::from(page.abi_max)).contains(&abi::ABI) {
        Ok(page)
    } else {
        Err(OpenError::Abi { min: page.abi_min, max: page.abi_max })
    }
}
