// SPDX-License-Identifier: MIT OR Apache-2.0
//! The `ioctl`s on sockets that ask for interfaces: netdevice(7). `if_nametoindex(3)` and Java's `NetworkInterface`
//! make them. None changes anything.

use crate::base::arguments::{count, int};
use crate::base::errno::Errno;
use crate::base::halt::{CallResult, Halt};
use crate::kernel::call::Call;
use crate::net::address::Address;
use crate::net::interfaces::{INTERFACES, Interface};

/// Requests of `<linux/sockios.h>`.
const SIOCGIFNAME: u64 = 0x8910;
const SIOCGIFCONF: u64 = 0x8912;
const SIOCGIFFLAGS: u64 = 0x8913;
const SIOCGIFADDR: u64 = 0x8915;
const SIOCGIFDSTADDR: u64 = 0x8917;
const SIOCGIFBRDADDR: u64 = 0x8919;
const SIOCGIFNETMASK: u64 = 0x891b;
const SIOCGIFMETRIC: u64 = 0x891d;
const SIOCGIFMTU: u64 = 0x8921;
const SIOCGIFHWADDR: u64 = 0x8927;
const SIOCGIFINDEX: u64 = 0x8933;
const SIOCGIFTXQLEN: u64 = 0x8942;

/// IFNAMSIZ, and the size of `struct ifreq`.
const NAME_BYTES: usize = 16;
const REQUEST_BYTES: u64 = 40;
/// The flags that `ifr_flags`, a short, can hold.
const FLAGS_SHOWN: i32 = 0xffff;

/// Answers a request about interfaces; `None`: it is not one.
pub(crate) fn ioctl(call: &mut Call<'_, '_>, request: u64, argument: u64) -> Option<CallResult> {
    let is_known = matches!(
        request,
        SIOCGIFNAME
            | SIOCGIFCONF
            | SIOCGIFFLAGS
            | SIOCGIFADDR
            | SIOCGIFDSTADDR
            | SIOCGIFBRDADDR
            | SIOCGIFNETMASK
            | SIOCGIFMETRIC
            | SIOCGIFMTU
            | SIOCGIFHWADDR
            | SIOCGIFINDEX
            | SIOCGIFTXQLEN
    );
    is_known.then(|| match request {
        SIOCGIFCONF => list(call, argument),
        SIOCGIFNAME => name(call, argument),
        _ => one(call, request, argument),
    })
}

fn value_at(argument: u64) -> Result<u64, Errno> {
    argument.checked_add(count(NAME_BYTES)).ok_or(Errno::EFAULT)
}

/// `struct sockaddr_in` of an interface's address.
fn encoded(host: [u8; 4]) -> Vec<u8> {
    Address::V4(host, 0).encode(libc::AF_INET)
}

fn padded(interface: &Interface) -> [u8; NAME_BYTES] {
    let mut name = [0; NAME_BYTES];
    for (slot, byte) in name.iter_mut().zip(interface.plain_name()) {
        *slot = *byte;
    }
    name
}

/// SIOCGIFCONF: the interfaces with IPv4 addresses, as many as fit.
fn list(call: &mut Call<'_, '_>, argument: u64) -> CallResult {
    let [len, buffer] = call.user().read_words(argument)?;
    // Programs that ask for the size needed pass no buffer, and any length.
    let room = u64::try_from(int(len)).unwrap_or(0);
    let mut used: u64 = 0;
    for interface in &INTERFACES {
        if buffer != 0 {
            if used.saturating_add(REQUEST_BYTES) > room {
                break;
            }
            let at = buffer.checked_add(used).ok_or(Errno::EFAULT)?;
            let entry = [&padded(interface)[..], &encoded(interface.address.0), &[0; 8]].concat();
            call.user().write(at, &entry)?;
        }
        used = used.saturating_add(REQUEST_BYTES);
    }
    call.user().write(argument, &u32::try_from(used).unwrap_or(0).to_le_bytes())?;
    Ok(0)
}

/// SIOCGIFNAME: the name of the interface with an index.
fn name(call: &mut Call<'_, '_>, argument: u64) -> CallResult {
    let index = call.user().read_u32(value_at(argument)?)?;
    let interface = INTERFACES.iter().find(|interface| interface.index == index).ok_or(Errno::ENODEV)?;
    call.user().write(argument, &padded(interface))?;
    Ok(0)
}

/// The other requests: a value of the interface with a name.
fn one(call: &mut Call<'_, '_>, request: u64, argument: u64) -> CallResult {
    let name = call.user().read_array::<NAME_BYTES>(argument)?;
    let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
    // The name of an address of an interface, `eth0:1`, means the interface.
    let name = name.split(|&byte| byte == b':').next().unwrap_or_default();
    let interface = INTERFACES.iter().find(|interface| interface.plain_name() == name).ok_or(Errno::ENODEV)?;
    let word = |value: u32| value.to_le_bytes().to_vec();
    let value = match request {
        SIOCGIFFLAGS => word((interface.flags & FLAGS_SHOWN).cast_unsigned()).into_iter().take(2).collect(),
        SIOCGIFADDR | SIOCGIFDSTADDR => encoded(interface.address.0),
        SIOCGIFBRDADDR => encoded(interface.broadcast_address()),
        SIOCGIFNETMASK => encoded(interface.mask()),
        SIOCGIFMETRIC => word(0),
        SIOCGIFMTU => word(interface.mtu),
        SIOCGIFHWADDR => [&interface.kind.to_le_bytes()[..], &interface.hardware, &[0; 8]].concat(),
        SIOCGIFINDEX => word(interface.index),
        SIOCGIFTXQLEN => word(1000),
        _ => return Err(Halt::Errno(Errno::ENOTTY)),
    };
    call.user().write(value_at(argument)?, &value)?;
    Ok(0)
}
