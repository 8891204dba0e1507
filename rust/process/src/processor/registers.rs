// SPDX-License-Identifier: MIT OR Apache-2.0
//! The program's registers between two runs: general ones, vector state, FS and GS base, and how an exit is answered.

use std::io;

use mayfly_machine::layout::is_program_address;
use mayfly_machine::{BadReturn, Regs, RunError, UserContext};
use mayfly_memory::memory::Memory;

use crate::processor::processor::{At, Next, Processor, initial_vector};
use crate::ring::vector::{self, vector_components};

impl Processor {
    /// The general registers as of the last exit, or as set since.
    #[inline]
    #[must_use]
    pub fn regs(&self) -> Regs {
        self.regs
    }

    /// Sets the general registers for the next run.
    #[inline]
    pub fn set_regs(&mut self, regs: &Regs) {
        self.regs = *regs;
        self.next = Next::Regs;
    }

    /// Changes the registers at an exit, and stays there, for tests. Of a call that is answered by value only arguments
    /// are known: of the others, R12 and R13 are taken.
    pub fn set_arguments(&mut self, regs: &Regs) {
        if self.at == At::Call && self.stop().is_ok() {
            let Regs { rax, rdi, rsi, rdx, r10, r8, r9, r12, r13, .. } = *regs;
            let Regs { rip, rflags, .. } = self.regs;
            self.at = At::Syscall;
            self.regs = Regs { rax, rdi, rsi, rdx, r10, r8, r9, r12, r13, rcx: rip, r11: rflags, ..self.regs };
        } else {
            self.regs = *regs;
        }
    }

    /// The user's general registers; `None` where only [`Processor::context`] can find them.
    #[must_use]
    pub fn user_regs(&self, _: &Memory) -> Option<Regs> {
        match (&self.next, self.at) {
            (Next::Regs | Next::Context(_), _) => Some(self.regs),
            (Next::Rewind, _) => None,
            (_, At::Syscall) => Some(Regs { rip: self.regs.rcx, ..self.regs }),
            (_, At::Signal | At::Born) => Some(self.regs),
            (_, At::Doorbell | At::Call | At::Rewinding) => None,
        }
    }

    /// What a [`VectorState`](mayfly_machine::VectorState) may hold: its components (XCR0), and the bytes that they take.
    #[must_use]
    pub fn vector_features(&self) -> (u64, usize) {
        (vector_components(), vector::bytes())
    }

    /// Takes the user's context. `None` if the stub is on its way into the frozen program.
    ///
    /// # Errors
    ///
    /// [`RunError`] if the host fails; the machine must not be used again then.
    pub fn context(&mut self, memory: &Memory) -> Result<Option<UserContext>, RunError> {
        if let Next::Context(context) = &self.next {
            return Ok(Some((**context).clone()));
        }
        if self.at == At::Rewinding || matches!(self.next, Next::Rewind) {
            return Ok(None);
        }
        if matches!(self.at, At::Doorbell | At::Call) {
            self.stop()?;
        }
        let Some(regs) = self.user_regs(memory) else { return Ok(None) };
        let vector = if self.at == At::Born {
            initial_vector()
        } else {
            let vector = self.stub()?.vector();
            vector.ok_or(RunError { call: "a signal's frame", source: io::ErrorKind::InvalidData.into() })?
        };
        Ok(Some(UserContext { regs, fs_base: self.fs_base, gs_base: self.gs_base, vector }))
    }

    /// Makes the next run go on with `context`, wherever the stub waits.
    ///
    /// # Errors
    ///
    /// None here; as for the other engine.
    pub fn set_context(&mut self, context: &UserContext) -> Result<(), RunError> {
        (self.regs, self.fs_base, self.gs_base) = (context.regs, context.fs_base, context.gs_base);
        self.next = Next::Context(Box::new(context.clone()));
        Ok(())
    }

    /// Completes a doorbell where the program goes on behind it.
    #[inline]
    pub fn return_from_doorbell(&mut self, value: u64) {
        self.next = Next::Value(value);
    }

    /// Completes a system call: the program goes on behind its `syscall` with `value` in RAX.
    ///
    /// # Errors
    ///
    /// [`BadReturn`] if the return address is not in the program's half, or if the last exit was not a system call.
    #[inline]
    pub fn return_from_syscall(&mut self, value: u64) -> Result<(), BadReturn> {
        let rip = self.regs.rcx;
        let is_call = matches!(self.at, At::Syscall | At::Call);
        if !is_call || !matches!(self.next, Next::Same) || !is_program_address(rip) {
            return Err(BadReturn { rip });
        }
        self.regs.rax = value;
        if self.at == At::Call {
            self.next = Next::Value(value);
        } else {
            (self.regs.rip, self.regs.rflags) = (rip, self.regs.r11);
            self.next = Next::Regs;
        }
        Ok(())
    }

    /// The FS and GS base.
    ///
    /// # Errors
    ///
    /// None here; as for the other engine.
    pub fn bases(&self) -> Result<(u64, u64), RunError> {
        Ok((self.fs_base, self.gs_base))
    }

    /// Sets the FS base, or the GS base.
    ///
    /// # Errors
    ///
    /// [`RunError`] for a base that is not canonical.
    pub fn set_bases(&mut self, fs_base: Option<u64>, gs_base: Option<u64>) -> Result<(), RunError> {
        for base in [fs_base, gs_base].into_iter().flatten() {
            if base.cast_signed() << 16 >> 16 != base.cast_signed() {
                return Err(RunError { call: "a segment's base", source: io::ErrorKind::InvalidInput.into() });
            }
        }
        self.fs_base = fs_base.unwrap_or(self.fs_base);
        self.gs_base = gs_base.unwrap_or(self.gs_base);
        Ok(())
    }
}
