// SPDX-License-Identifier: MIT OR Apache-2.0
//! Threads that wait for input from outside.

use mayfly_engine::Machine;

use crate::base::arguments::int;
use crate::base::ids::{ConnectionId, PollableId};
use crate::event::interest::{poll_interest, select_interest};
use crate::event::look::Look;
use crate::fs::object::Object;
use crate::kernel::process::Process;
use crate::mm::user::UserMemory;
use crate::sched::threads::Waiting;

impl Process {
    /// A check of readiness for the current thread, with its pending signals.
    pub(crate) fn look(&self) -> Look {
        let own = self.threads.current().signals.pending.set();
        Look::with_signals(own.or(self.signals.pending.set()))
    }

    /// The index of the thread that would react first if bytes arrived on `connection`, or, if that is `None`, if a
    /// connection arrived at the application: the first that waits for that in a call.
    pub fn input_waiter(&mut self, machine: &mut Machine, connection: Option<ConnectionId>) -> Option<usize> {
        let target = self.inside_of(connection)?;
        self.waiter_of(machine, target)
    }

    /// Whether a thread waits for a connection to any of the program's listeners.
    pub fn waits_for_connections(&mut self, machine: &mut Machine) -> bool {
        self.listening().into_iter().any(|listener| self.waiter_of(machine, listener).is_some())
    }

    fn waiter_of(&self, machine: &mut Machine, target: PollableId) -> Option<usize> {
        let (before, from): (Vec<_>, Vec<_>) =
            self.threads.waits().partition(|(index, _)| *index < self.threads.current);
        from.into_iter()
            .chain(before)
            .find(|(_, waiting)| self.waits_for(machine, waiting, target))
            .map(|(index, _)| index)
    }

    /// Whether a thread may wait for input from `target`.
    fn waits_for(&self, machine: &mut Machine, waiting: &Waiting, target: PollableId) -> bool {
        let Waiting::Call { number, args, .. } = waiting else { return false };
        let [first, second, ..] = *args;
        let is_it = |fd: i32| match self.files.open_file(fd).map(|open| &open.object) {
            Ok(Object::Pollable(id)) => self.pollables.leads_to(*id, target, &mut Look::new()),
            _ => false,
        };
        let mut user = UserMemory { machine, space: &self.memory, inodes: self.overlay.inodes(), may_block: true };
        match i64::try_from(*number).unwrap_or(-1) {
            libc::SYS_read
            | libc::SYS_readv
            | libc::SYS_recvfrom
            | libc::SYS_recvmsg
            | libc::SYS_recvmmsg
            | libc::SYS_accept
            | libc::SYS_accept4
            | libc::SYS_epoll_wait
            | libc::SYS_epoll_pwait
            | libc::SYS_epoll_pwait2 => is_it(int(first)),
            libc::SYS_poll | libc::SYS_ppoll => {
                poll_interest(&mut user, first, second, self.files.limit()).into_iter().any(is_it)
            }
            libc::SYS_select | libc::SYS_pselect6 => {
                select_interest(&mut user, first, second, self.files.limit()).into_iter().any(is_it)
            }
            _ => false,
        }
    }
}
