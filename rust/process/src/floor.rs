// SPDX-License-Identifier: MIT OR Apache-2.0
//! The floor: the least that a system call of a program costs here, for comparison with Mayfly's figures.

use std::fs::File;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use mayfly_machine::layout::{PAGE_SIZE, USER_MIN};
use mayfly_machine::{Prot, Regs};

use crate::error::{ForkError, RingError, StartError};
use crate::host::Host;
use crate::ring::order::Order;
use crate::ring::ring::Event;
use crate::stub::{Nursery, Stub, StubFiles};
use crate::sys::memory::sealed;
use crate::zygote::zygote::Region;

/// `mov $39, %eax; syscall; jmp .-9`: getpid, which is answered by value, for ever.
const BY_VALUE: [u8; 9] = [0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7];
/// `xor %eax, %eax; syscall; jmp .-6`: read, which is trapped, for ever.
const TRAPPED: [u8; 6] = [0x31, 0xc0, 0x0f, 0x05, 0xeb, 0xfa];
/// Rounds before those that are measured.
const WARM: usize = 2_000;

/// What took how long, a round each, in the order of the rounds.
#[derive(Debug)]
pub struct Floor {
    /// A system call that is answered by value: SEND, the stub's turn, RECV.
    pub by_value: Vec<Duration>,
    /// One that is trapped: the same, with a signal's frame.
    pub trapped: Vec<Duration>,
    /// An order and the ring behind it: mprotect of one page.
    pub ordered: Vec<Duration>,
    /// Birth of a stub.
    pub birth: Vec<Duration>,
    /// Its end, reaping included.
    pub end: Vec<Duration>,
}

/// Why the floor could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum FloorError {
    /// The zygote.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A stub.
    #[error(transparent)]
    Fork(#[from] ForkError),
    /// A round.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// The program did something else than it was made for.
    #[error("the program's event was {0:?}")]
    Event(Box<Event>),
}

impl Floor {
    /// Measures on the calling thread: `rounds` switches of each kind, and a hundredth of that many births.
    ///
    /// # Errors
    ///
    /// [`FloorError`] if a stub cannot be made, or does not do as it should.
    pub fn measure(host: &Host, rounds: usize) -> Result<Self, FloorError> {
        let nursery = Nursery::new(host)?;
        let by_value = timed(rounds, &mut start(&nursery, &BY_VALUE)?, |stub| {
            stub.answer(1)?;
            match stub.receive()? {
                Event::Call { .. } => Ok(()),
                other => Err(FloorError::Event(other.into())),
            }
        })?;
        let regs = Regs { rip: USER_MIN, ..Regs::default() };
        let mut trapping = start(&nursery, &TRAPPED)?;
        let trapped = timed(rounds, &mut trapping, |stub| {
            stub.resume(&regs, None)?;
            match stub.receive()? {
                Event::Signal(_) => Ok(()),
                other => Err(FloorError::Event(other.into())),
            }
        })?;
        let read = Prot::READ | Prot::EXEC;
        let protect = Order::protect(USER_MIN, PAGE_SIZE, read).map_err(|_| FloorError::Ring(RingError::NotWaiting))?;
        let ordered = timed(rounds, &mut trapping, |stub| Ok(stub.order(&[protect])?))?;
        let (mut birth, mut end) = (Vec::new(), Vec::new());
        let memory = sealed(c"mayfly-floor", &[]).map_err(ForkError::Memory)?;
        let files = StubFiles { memory: memory.as_fd(), image: None };
        for _ in 0..rounds / 100 {
            let before = Instant::now();
            let stub = nursery.stub(&[], files)?;
            birth.push(before.elapsed());
            let before = Instant::now();
            stub.end()?;
            end.push(before.elapsed());
        }
        Ok(Self { by_value, trapped, ordered, birth, end })
    }
}

/// A stub whose program makes a call that is answered by value, for ever.
#[derive(Debug)]
pub struct Rounds(Stub);

impl Rounds {
    /// Makes the stub, and receives its first call.
    ///
    /// # Errors
    ///
    /// [`FloorError`] if it cannot be made.
    pub fn new(host: &Host) -> Result<Self, FloorError> {
        start(&Nursery::new(host)?, &BY_VALUE).map(Self)
    }

    /// One SEND, the program's turn, one RECV.
    ///
    /// # Errors
    ///
    /// [`FloorError`] if the stub fails.
    #[inline]
    pub fn round_trip(&mut self) -> Result<(), FloorError> {
        self.0.answer(1)?;
        match self.0.receive()? {
            Event::Call { .. } => Ok(()),
            other => Err(FloorError::Event(other.into())),
        }
    }
}

/// Makes bare stubs: without any of a program's memory.
#[derive(Debug)]
pub struct Births {
    nursery: Nursery,
    memory: File,
}

impl Births {
    /// Makes the process that stubs are copied from.
    ///
    /// # Errors
    ///
    /// [`FloorError`] if it cannot be made.
    pub fn new(host: &Host) -> Result<Self, FloorError> {
        let memory = sealed(c"mayfly-floor", &[]).map_err(ForkError::Memory)?;
        Ok(Self { nursery: Nursery::new(host)?, memory })
    }

    /// Makes a stub; dropping it ends its process.
    ///
    /// # Errors
    ///
    /// [`FloorError`] if it cannot be made.
    pub fn birth(&self) -> Result<Stub, FloorError> {
        Ok(self.nursery.stub(&[], StubFiles { memory: self.memory.as_fd(), image: None })?)
    }
}

/// A stub that runs this code, and has made its first call.
fn start(nursery: &Nursery, code: &[u8]) -> Result<Stub, FloorError> {
    let mut page = code.to_vec();
    page.resize(PAGE_SIZE as usize, 0xcc);
    let file = sealed(c"mayfly-floor", &page).map_err(ForkError::Memory)?;
    let prot = Prot::READ | Prot::EXEC;
    let region = Region { file: file.as_fd(), offset: 0, address: USER_MIN, bytes: PAGE_SIZE, prot };
    let mut stub = nursery.stub(&[region], StubFiles { memory: file.as_fd(), image: None })?;
    stub.start(&Regs { rip: USER_MIN, ..Regs::default() }, 0, 0)?;
    stub.receive()?;
    Ok(stub)
}

fn timed(
    rounds: usize,
    stub: &mut Stub,
    mut round: impl FnMut(&mut Stub) -> Result<(), FloorError>,
) -> Result<Vec<Duration>, FloorError> {
    for _ in 0..WARM {
        round(stub)?;
    }
    let mut times = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let before = Instant::now();
        round(stub)?;
        times.push(before.elapsed());
    }
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_round_is_measured() {
        let floor = Floor::measure(&Host::probe().unwrap(), 200).unwrap();
        let counts = [&floor.by_value, &floor.trapped, &floor.ordered, &floor.birth, &floor.end].map(Vec::len);
        assert_eq!(counts, [200, 200, 200, 2, 2]);
    }
}
