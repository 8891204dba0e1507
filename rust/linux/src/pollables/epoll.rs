// SPDX-License-Identifier: MIT OR Apache-2.0
//! Epoll sets: `epoll(7)`.
//!
//! A registration belongs to an open file, as on Linux, and ends when the file's last descriptor is closed:
//! [`Pollables::close`]. It is identified by the descriptor with which it was made.

use crate::base::context::Stream;
use crate::base::errno::Errno;
use crate::base::ids::PollableId;
use crate::event::epoll_set::{Epoll, Registration, Report, WatchTarget};
use crate::event::events::Events;
use crate::event::look::Look;
use crate::event::poll_bits::bits;
use crate::pollables::table::{PollableKind, Pollables};

/// Most registrations of a process; Linux has such a limit per user.
pub(crate) const REGISTRATIONS_MAX: usize = 4096;
/// Most epolls nested in each other: Linux's EP_MAX_NESTS, and the innermost.
pub(crate) const DEPTH_MAX: usize = 5;

impl Pollables {
    pub(crate) fn epoll(&self, id: PollableId) -> Result<&Epoll, Errno> {
        match self.kind(id) {
            Some(PollableKind::Epoll(epoll)) => Ok(epoll),
            _ => Err(Errno::EINVAL),
        }
    }

    fn epoll_mut(&mut self, id: PollableId) -> Result<&mut Epoll, Errno> {
        match self.get_mut(id).map(|pollable| &mut pollable.kind) {
            Some(PollableKind::Epoll(epoll)) => Ok(epoll),
            _ => Err(Errno::EINVAL),
        }
    }

    /// EPOLL_CTL_ADD.
    pub(crate) fn watch(
        &mut self,
        id: PollableId,
        fd: i32,
        target: WatchTarget,
        interest: u32,
        data: u64,
    ) -> Result<(), Errno> {
        if let WatchTarget::Pollable(target) = target
            && let Ok(inner) = self.epoll(target)
        {
            if interest & bits::EXCLUSIVE != 0 {
                return Err(Errno::EINVAL);
            }
            let mut look = Look::new();
            let below = self.depth(inner, id, &mut look).ok_or(Errno::ELOOP)?;
            let above = self.nesting_depth(id, &mut look).ok_or(Errno::ELOOP)?;
            if below.saturating_add(above) > DEPTH_MAX {
                return Err(Errno::ELOOP);
            }
        }
        if self.position(id, fd, target).is_ok() {
            return Err(Errno::EEXIST);
        }
        if self.registrations >= REGISTRATIONS_MAX {
            return Err(Errno::ENOSPC);
        }
        self.registrations = self.registrations.saturating_add(1);
        let registration = Registration { fd, target, interest, data, reported: None, disabled: false };
        self.epoll_mut(id)?.registrations.push(registration);
        if let WatchTarget::Pollable(target) = target
            && let Some(pollable) = self.get_mut(target)
        {
            match pollable.watchers.iter_mut().find(|(watcher, _)| *watcher == id) {
                Some((_, count)) => *count = count.saturating_add(1),
                None => pollable.watchers.push((id, 1)),
            }
        }
        // The new registration may make this epoll ready for its own watchers.
        self.record_event(id, crate::event::events::Event::Input);
        Ok(())
    }

    /// EPOLL_CTL_MOD.
    pub(crate) fn rewatch(
        &mut self,
        id: PollableId,
        fd: i32,
        target: WatchTarget,
        interest: u32,
        data: u64,
    ) -> Result<(), Errno> {
        let index = self.position(id, fd, target)?;
        if let Some(registration) = self.epoll_mut(id)?.registrations.get_mut(index) {
            if registration.interest & bits::EXCLUSIVE != 0 || interest & bits::EXCLUSIVE != 0 {
                return Err(Errno::EINVAL);
            }
            *registration = Registration { fd, target, interest, data, reported: None, disabled: false };
        }
        self.record_event(id, crate::event::events::Event::Input);
        Ok(())
    }

    /// EPOLL_CTL_DEL.
    pub(crate) fn forget(&mut self, id: PollableId, fd: i32, target: WatchTarget) -> Result<(), Errno> {
        let index = self.position(id, fd, target)?;
        let epoll = self.epoll_mut(id)?;
        epoll.registrations.remove(index);
        epoll.start = 0;
        self.registrations = self.registrations.saturating_sub(1);
        if let WatchTarget::Pollable(target) = target
            && let Some(pollable) = self.get_mut(target)
        {
            drop_watcher(&mut pollable.watchers, id, 1);
        }
        Ok(())
    }

    /// Removes all registrations of a closed pollable from an epoll.
    pub(crate) fn unwatch(&mut self, id: PollableId, target: WatchTarget) {
        let Ok(epoll) = self.epoll_mut(id) else { return };
        let before = epoll.registrations.len();
        epoll.registrations.retain(|registration| registration.target != target);
        epoll.start = 0;
        let gone = before.saturating_sub(epoll.registrations.len());
        self.registrations = self.registrations.saturating_sub(gone);
    }

    pub(crate) fn has_registrations(&self) -> bool {
        self.registrations > 0
    }

    /// Removes a closed output stream from all epolls.
    pub(crate) fn unwatch_log(&mut self, stream: Stream) {
        let all: Vec<PollableId> = self.ids().filter(|&id| self.epoll(id).is_ok()).collect();
        for id in all {
            self.unwatch(id, WatchTarget::Log(stream));
        }
    }

    /// Removes a closed epoll from the watchers of what it has watched.
    pub(crate) fn forget_watcher(&mut self, id: PollableId, epoll: &Epoll) {
        self.registrations = self.registrations.saturating_sub(epoll.registrations.len());
        for registration in &epoll.registrations {
            if let WatchTarget::Pollable(target) = registration.target
                && let Some(pollable) = self.get_mut(target)
            {
                drop_watcher(&mut pollable.watchers, id, 1);
            }
        }
    }

    fn position(&self, id: PollableId, fd: i32, target: WatchTarget) -> Result<usize, Errno> {
        let is_it = |registration: &Registration| registration.fd == fd && registration.target == target;
        self.epoll(id)?.registrations.iter().position(is_it).ok_or(Errno::ENOENT)
    }

    /// Depth of the epolls nested in `epoll`; `None` if `outer` is among them, or if there are too many.
    fn depth(&self, epoll: &Epoll, outer: PollableId, look: &mut Look) -> Option<usize> {
        let mut deepest = 0;
        for registration in &epoll.registrations {
            let WatchTarget::Pollable(id) = registration.target else { continue };
            if id == outer || !look.step() {
                return None;
            }
            if let Ok(inner) = self.epoll(id) {
                deepest = self.depth(inner, outer, look)?.max(deepest);
            }
        }
        Some(usize::saturating_add(deepest, 1))
    }

    /// Number of epolls in which an epoll is nested, itself included; `None` if there are too many.
    fn nesting_depth(&self, id: PollableId, look: &mut Look) -> Option<usize> {
        let mut highest = 0;
        for &(watcher, _) in &self.get(id)?.watchers {
            if !look.step() {
                return None;
            }
            highest = self.nesting_depth(watcher, look)?.max(highest);
        }
        Some(usize::saturating_add(highest, 1))
    }

    /// Up to `most` events of an epoll. They do not count as reported yet.
    pub(crate) fn reports(&self, id: PollableId, most: usize, look: &mut Look) -> Result<Vec<Report>, Errno> {
        let epoll = self.epoll(id)?;
        let (before, after) = epoll.registrations.split_at_checked(epoll.start).unwrap_or((&[], &epoll.registrations));
        let all = (epoll.start..).zip(after).chain((0..).zip(before));
        let mut reports = Vec::new();
        for (index, registration) in all {
            if reports.len() >= most {
                break;
            }
            let ready = self.wanted(registration, look);
            if ready != 0 {
                reports.push(Report { index, ready, data: registration.data });
            }
        }
        Ok(reports)
    }

    /// Marks events as reported. `most` is what the program asked for.
    pub(crate) fn mark_reported(&mut self, id: PollableId, reports: &[Report], most: usize, look: &mut Look) {
        for report in reports {
            let Some(registration) =
                self.epoll(id).ok().and_then(|epoll| epoll.registrations.get(report.index)).copied()
            else {
                continue;
            };
            let reported = match registration.target {
                WatchTarget::Pollable(target) => self.events(target, look),
                WatchTarget::Log(_) => Events::default(),
            };
            if let Ok(epoll) = self.epoll_mut(id)
                && let Some(slot) = epoll.registrations.get_mut(report.index)
            {
                slot.reported = Some(reported);
                slot.disabled = registration.interest & bits::ONESHOT != 0;
            }
        }
        if let Some(last) = reports.last()
            && reports.len() == most
            && let Ok(epoll) = self.epoll_mut(id)
        {
            let next = last.index.saturating_add(1);
            epoll.start = if next < epoll.registrations.len() { next } else { 0 };
        }
    }

    /// Whether marking these as reported changes nothing, as for plain level-triggered ones.
    pub(crate) fn leaves_no_trace(&self, id: PollableId, reports: &[Report], most: usize) -> bool {
        reports.len() < most
            && self.epoll(id).is_ok_and(|epoll| {
                reports.iter().all(|report| {
                    epoll
                        .registrations
                        .get(report.index)
                        .is_some_and(|registration| registration.interest & (bits::ET | bits::ONESHOT) == 0)
                })
            })
    }
}

fn drop_watcher(watchers: &mut Vec<(PollableId, usize)>, id: PollableId, by: usize) {
    if let Some((_, count)) = watchers.iter_mut().find(|(watcher, _)| *watcher == id) {
        *count = count.saturating_sub(by);
    }
    watchers.retain(|(_, count)| *count > 0);
}

impl Pollables {
    /// Whether `id` is `target`, or an epoll that input from `target` would make ready.
    pub(crate) fn leads_to(&self, id: PollableId, target: PollableId, look: &mut Look) -> bool {
        if id == target {
            return true;
        }
        let Ok(epoll) = self.epoll(id) else { return false };
        epoll.registrations.iter().any(|registration| match registration.target {
            WatchTarget::Pollable(inner)
                if !registration.disabled && registration.interest & bits::READ != 0 && look.step() =>
            {
                self.leads_to(inner, target, look)
            }
            _ => false,
        })
    }
}
