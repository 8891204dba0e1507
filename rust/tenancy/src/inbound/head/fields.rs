// SPDX-License-Identifier: MIT OR Apache-2.0
//! The fields of a head.

use smallvec::SmallVec;

use crate::http1;
use crate::inbound::{COOKIE_FIELD, REFUSED_FIELD};

/// Number of fields that are kept on the stack; most heads have no more.
const FIELDS_ON_STACK: usize = 32;

/// The fields of a head. The struct is large, so it is never moved.
#[derive(Debug, Default)]
pub(in crate::inbound) struct Fields<'a> {
    pub(super) list: SmallVec<[Field<'a>; FIELDS_ON_STACK]>,
    /// One bit for each kind that occurs.
    pub(super) kinds: u16,
    /// Two fields have the same name.
    pub(super) has_repeats: bool,
}

impl<'a> Fields<'a> {
    pub(super) fn has(&self, kind: FieldKind) -> bool {
        self.kinds & kind.bit() != 0
    }

    /// The values of the fields of this kind.
    pub(super) fn of<'f>(&'f self, kind: FieldKind) -> impl Iterator<Item = &'a [u8]> + use<'a, 'f> {
        let list = if self.has(kind) { &self.list[..] } else { &[] };
        list.iter().filter(move |field| field.kind == kind).map(|field| field.value)
    }

    /// The elements of the lists in these fields (RFC 9110, 5.6.1).
    pub(super) fn elements<'f>(&'f self, kind: FieldKind) -> impl Iterator<Item = &'a [u8]> + use<'a, 'f> {
        let parts = self.of(kind).flat_map(|value| value.split(|byte| *byte == b','));
        parts.map(http1::trimmed).filter(|element| !element.is_empty())
    }
}

/// A field.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field<'a> {
    pub(super) kind: FieldKind,
    pub(super) name: &'a [u8],
    pub(super) value: &'a [u8],
}

impl Field<'_> {
    pub(super) fn is_named_as(&self, other: &Self) -> bool {
        self.name.eq_ignore_ascii_case(other.name)
    }
}

/// The kinds of fields that have a meaning here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FieldKind {
    Host,
    Connection,
    Length,
    Coding,
    Expect,
    Cookie,
    Upgrade,
    /// A field of Mayfly's own, which clients must not send.
    Private,
    Other,
}

impl FieldKind {
    pub(super) const fn bit(self) -> u16 {
        1 << self as u16
    }

    #[inline]
    pub(super) fn of(name: &[u8]) -> Self {
        let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
        match name.len() {
            4 if is("host") => Self::Host,
            6 if is("cookie") => Self::Cookie,
            6 if is("expect") => Self::Expect,
            7 if is("upgrade") => Self::Upgrade,
            10 if is("connection") => Self::Connection,
            14 if is("content-length") => Self::Length,
            17 if is("transfer-encoding") => Self::Coding,
            13 | 14 if is(COOKIE_FIELD) || is(REFUSED_FIELD) => Self::Private,
            _ => Self::Other,
        }
    }
}
