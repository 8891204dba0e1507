// SPDX-License-Identifier: MIT OR Apache-2.0
//! Calls of functions in another program, the tenant's storage program.
//!
//! The program rings the doorbell with a `struct mayfly_peer_call`. The data that it names is copied out once, checked,
//! and kept here until the worker's caller has carried the call out; then the result is copied into the program's
//! buffer. Every byte of the structure is hostile: a call that breaks a rule gets an error number and is never carried
//! out.
//!
//! The floor above decides how to carry a call out. It turns the call into a request for a worker of the storage
//! program: the method is [`METHOD_CALL`](crate::METHOD_CALL), the path the function's name, the body the argument.

use mayfly_engine::Machine;
use mayfly_linux::{CopyError, Process, Step};

use crate::abi::{CALL_BYTES, u64_at};
use crate::run::Runner;

/// A function of the storage program that a program calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerCall<'a> {
    /// The function's name: 1 to 128 visible ASCII characters.
    pub name: &'a [u8],
    /// Its argument; may be empty.
    pub argument: &'a [u8],
}

/// Why a call has no result. The program gets an error number for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerError {
    /// There is no storage program: `ENOTCONN`.
    NoPeer,
    /// It has no such function: `ENOENT`.
    UnknownFunction,
    /// Argument or result is above a limit: `EMSGSIZE`.
    TooLarge,
    /// It took too long: `ETIMEDOUT`.
    TimedOut,
    /// Too many calls wait for it: `EBUSY`.
    Busy,
    /// It failed: `EIO`.
    Failed,
}

impl PeerError {
    fn errno(self) -> i32 {
        match self {
            Self::NoPeer => libc::ENOTCONN,
            Self::UnknownFunction => libc::ENOENT,
            Self::TooLarge => libc::EMSGSIZE,
            Self::TimedOut => libc::ETIMEDOUT,
            Self::Busy => libc::EBUSY,
            Self::Failed => libc::EIO,
        }
    }
}

/// Longest name of a function.
const NAME_MAX: usize = 128;
/// An argument's buffer up to this size is kept from call to call.
const KEPT_BYTES: usize = 64 << 10;

/// The host's side of a worker's calls.
#[derive(Debug)]
pub(crate) struct Peer {
    name: [u8; NAME_MAX],
    name_len: usize,
    argument: Vec<u8>,
    result: u64,
    capacity: u64,
    waits: bool,
}

/// What the program gets at once, or how its request ends.
#[derive(Debug)]
pub(crate) enum Refusal {
    Errno(i32),
    Ends(Step),
    /// Must be read again on a thread that may block.
    NotHere,
}

impl From<CopyError> for Refusal {
    fn from(error: CopyError) -> Self {
        match error {
            CopyError::BadAddress => Self::Errno(libc::EFAULT),
            CopyError::Ends(step) => Self::Ends(step),
            CopyError::NotHere => Self::NotHere,
        }
    }
}

impl Peer {
    pub(crate) fn new() -> Self {
        Self { name: [0; NAME_MAX], name_len: 0, argument: Vec::new(), result: 0, capacity: 0, waits: false }
    }

    /// Copies the call at `address`, whose argument may have `argument_max` bytes.
    pub(crate) fn read(
        &mut self,
        runner: &Runner,
        machine: &mut Machine,
        address: u64,
        argument_max: u64,
    ) -> Result<(), Refusal> {
        let mut raw = [0; CALL_BYTES];
        runner.copy_in(machine, address, &mut raw)?;
        let [name, name_size, argument, argument_size, result, capacity] =
            [0, 8, 16, 24, 32, 40].map(|at| u64_at(&raw, at));
        if name_size == 0 || name_size > NAME_MAX as u64 {
            return Err(Refusal::Errno(libc::EINVAL));
        }
        if argument_size > argument_max {
            return Err(Refusal::Errno(PeerError::TooLarge.errno()));
        }
        self.name_len = name_size as usize;
        let bytes = &mut self.name[..self.name_len];
        runner.copy_in(machine, name, bytes)?;
        if !bytes.iter().all(u8::is_ascii_graphic) {
            return Err(Refusal::Errno(libc::EINVAL));
        }
        self.argument.clear();
        self.argument.resize(argument_size as usize, 0);
        if !self.argument.is_empty() {
            runner.copy_in(machine, argument, &mut self.argument)?;
        }
        (self.result, self.capacity, self.waits) = (result, capacity, true);
        Ok(())
    }

    /// The call that waits for its result.
    pub(crate) fn call(&self) -> Option<PeerCall<'_>> {
        self.waits.then(|| PeerCall { name: &self.name[..self.name_len], argument: &self.argument })
    }

    pub(crate) fn waits(&self) -> bool {
        self.waits
    }

    /// The call is over, with or without a result.
    pub(crate) fn forget(&mut self) {
        self.waits = false;
        if self.argument.capacity() > KEPT_BYTES {
            self.argument = Vec::new();
        }
    }

    /// Copies the result, of which there may be `result_max` bytes, into the program's buffer. Returns what the
    /// doorbell answers: the result's size or a negative error number.
    pub(crate) fn answer(
        &mut self,
        process: &Process,
        machine: &mut Machine,
        answer: Result<&[u8], PeerError>,
        result_max: u64,
    ) -> Result<i64, Step> {
        self.forget();
        let written = answer.map_err(|error| Refusal::Errno(error.errno())).and_then(|result| {
            let size = result.len() as u64;
            if size > result_max.min(self.capacity) {
                return Err(Refusal::Errno(PeerError::TooLarge.errno()));
            }
            if !result.is_empty() {
                process.copy_out(machine, self.result, result)?;
            }
            Ok(result.len() as i64)
        });
        match written {
            Ok(size) => Ok(size),
            Err(Refusal::Errno(errno)) => Ok(-i64::from(errno)),
            // The call has been made already, so this copy may block.
            Err(Refusal::NotHere) => Err(Step::Poison("a copy that may wait did not".into())),
            Err(Refusal::Ends(step)) => Err(step),
        }
    }
}
