// SPDX-License-Identifier: MIT OR Apache-2.0
//! The bits of `poll` and `epoll`.

/// The bits of `poll` and `epoll`, which are the same.
pub(crate) mod bits {
    pub(crate) const IN: u32 = 0x001;
    pub(crate) const PRI: u32 = 0x002;
    pub(crate) const OUT: u32 = 0x004;
    pub(crate) const ERR: u32 = 0x008;
    pub(crate) const HUP: u32 = 0x010;
    pub(crate) const NVAL: u32 = 0x020;
    pub(crate) const RDNORM: u32 = 0x040;
    pub(crate) const RDBAND: u32 = 0x080;
    pub(crate) const WRNORM: u32 = 0x100;
    pub(crate) const WRBAND: u32 = 0x200;
    pub(crate) const RDHUP: u32 = 0x2000;
    pub(crate) const EXCLUSIVE: u32 = 1 << 28;
    pub(crate) const WAKEUP: u32 = 1 << 29;
    pub(crate) const ONESHOT: u32 = 1 << 30;
    pub(crate) const ET: u32 = 1 << 31;

    pub(crate) const READ: u32 = IN | RDNORM;
    pub(crate) const WRITE: u32 = OUT | WRNORM;
    /// Events that input causes.
    pub(crate) const INPUTS: u32 = IN | PRI | RDNORM | RDBAND;
    pub(crate) const OUTPUTS: u32 = OUT | WRNORM | WRBAND;
}
