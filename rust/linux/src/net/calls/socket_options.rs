// SPDX-License-Identifier: MIT OR Apache-2.0
//! `setsockopt(2)` and `getsockopt(2)`. Options are stored and returned; most have no effect.

use super::sockets::socket_of;
use crate::base::arguments::int;
use crate::base::clock;
use crate::base::errno::Errno;
use crate::base::halt::{CallResult, Halt};
use crate::base::identity::{GID, PID, UID};
use crate::base::ids::PollableId;
use crate::kernel::call::Call;
use crate::net::socket::{LINGER_SECONDS, Socket};
use crate::pollables::table::Pollables;

/// `net.core.wmem_max` and `net.core.rmem_max`.
const BUFFER_MAX: i32 = 212_992;
const SOL_TCP: i32 = libc::IPPROTO_TCP;
/// Any longer time than a call takes: the call does not wait.
const AT_ONCE_NS: u64 = 1;
/// The only algorithm of TCP_CONGESTION, which no packet meets.
const CONGESTION: &[u8] = b"cubic";
const TCP_FASTOPEN_CONNECT: i32 = 30;

/// Initial value of an option; `None`: there is no such option.
fn default(socket: &Socket, level: i32, name: i32) -> Option<i32> {
    let tcp = socket.protocol == libc::IPPROTO_TCP;
    Some(match (level, name) {
        (libc::SOL_SOCKET, libc::SO_SNDBUF) => {
            if tcp {
                16_384
            } else {
                BUFFER_MAX
            }
        }
        (libc::SOL_SOCKET, libc::SO_RCVBUF) => {
            if tcp {
                131_072
            } else {
                BUFFER_MAX
            }
        }
        (libc::SOL_SOCKET, libc::SO_RCVLOWAT | libc::SO_SNDLOWAT) => 1,
        (
            libc::SOL_SOCKET,
            libc::SO_REUSEADDR
            | libc::SO_REUSEPORT
            | libc::SO_KEEPALIVE
            | libc::SO_BROADCAST
            | libc::SO_OOBINLINE
            | libc::SO_DONTROUTE
            | libc::SO_PRIORITY
            | libc::SO_TIMESTAMP
            | libc::SO_PASSCRED
            | libc::SO_INCOMING_CPU
            | libc::SO_BUSY_POLL
            | libc::SO_TIMESTAMPNS
            | libc::SO_RXQ_OVFL
            | libc::SO_NO_CHECK
            | libc::SO_LINGER,
        ) => 0,
        (libc::SOL_SOCKET, libc::SO_ZEROCOPY) if tcp => 0,
        (libc::SOL_SOCKET, libc::SO_MAX_PACING_RATE) => -1,
        (SOL_TCP, libc::TCP_KEEPIDLE) if tcp => 7200,
        (SOL_TCP, libc::TCP_KEEPINTVL) if tcp => 75,
        (SOL_TCP, libc::TCP_KEEPCNT) if tcp => 9,
        (SOL_TCP, libc::TCP_MAXSEG) if tcp => 536,
        (SOL_TCP, libc::TCP_QUICKACK) if tcp => 1,
        (SOL_TCP, libc::TCP_LINGER2) if tcp => 60,
        (
            SOL_TCP,
            libc::TCP_NODELAY
            | libc::TCP_CORK
            | libc::TCP_DEFER_ACCEPT
            | libc::TCP_FASTOPEN
            | libc::TCP_USER_TIMEOUT
            | libc::TCP_SYNCNT
            | libc::TCP_NOTSENT_LOWAT
            | libc::TCP_WINDOW_CLAMP
            | libc::TCP_THIN_LINEAR_TIMEOUTS
            | libc::TCP_THIN_DUPACK
            | libc::TCP_SAVE_SYN
            | libc::TCP_TIMESTAMP
            | TCP_FASTOPEN_CONNECT,
        ) if tcp => 0,
        (libc::IPPROTO_IP, libc::IP_TTL) if !socket.is_unix() => 64,
        (
            libc::IPPROTO_IP,
            libc::IP_TOS
            | libc::IP_RECVERR
            | libc::IP_PKTINFO
            | libc::IP_MTU_DISCOVER
            | libc::IP_FREEBIND
            | libc::IP_RECVTOS
            | libc::IP_RECVTTL
            | libc::IP_RECVORIGDSTADDR
            | libc::IP_BIND_ADDRESS_NO_PORT,
        ) if !socket.is_unix() => 0,
        (libc::IPPROTO_IP, libc::IP_MULTICAST_TTL | libc::IP_MULTICAST_LOOP | libc::IP_MULTICAST_ALL)
            if !socket.is_unix() =>
        {
            1
        }
        (
            libc::IPPROTO_IPV6,
            libc::IPV6_V6ONLY
            | libc::IPV6_TCLASS
            | libc::IPV6_RECVERR
            | libc::IPV6_RECVPKTINFO
            | libc::IPV6_RECVHOPLIMIT
            | libc::IPV6_RECVTCLASS
            | libc::IPV6_MTU_DISCOVER
            | libc::IPV6_FREEBIND,
        ) if socket.domain == libc::AF_INET6 => 0,
        (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS) if socket.domain == libc::AF_INET6 => 64,
        (libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_HOPS | libc::IPV6_MULTICAST_LOOP)
            if socket.domain == libc::AF_INET6 =>
        {
            1
        }
        _ => return None,
    })
}

/// The error for an unknown option.
fn unknown(socket: &Socket, level: i32) -> Errno {
    match level {
        libc::SOL_SOCKET | libc::IPPROTO_IP => {
            if socket.is_unix() && level != libc::SOL_SOCKET {
                Errno::EOPNOTSUPP
            } else {
                Errno::ENOPROTOOPT
            }
        }
        _ if socket.is_unix() => Errno::EOPNOTSUPP,
        _ => Errno::ENOPROTOOPT,
    }
}

/// `setsockopt(2)`.
pub(crate) fn setsockopt(call: &mut Call<'_, '_>) -> CallResult {
    let [fd, level, name, value, len, _] = call.args;
    let (id, _) = socket_of(call, fd)?;
    let (level, name, len) = (int(level), int(name), int(len));
    if len < 0 {
        return Err(Errno::EINVAL.into());
    }
    match (level, name) {
        (libc::SOL_SOCKET, libc::SO_RCVTIMEO | libc::SO_SNDTIMEO) => return set_timeout(call, id, name, value, len),
        (
            libc::SOL_SOCKET,
            libc::SO_TYPE
            | libc::SO_ERROR
            | libc::SO_ACCEPTCONN
            | libc::SO_DOMAIN
            | libc::SO_PROTOCOL
            | libc::SO_PEERCRED,
        ) => {
            return Err(Errno::ENOPROTOOPT.into());
        }
        // They need a privilege.
        (libc::SOL_SOCKET, libc::SO_SNDBUFFORCE | libc::SO_RCVBUFFORCE | libc::SO_MARK) => {
            return Err(Errno::EPERM.into());
        }
        (SOL_TCP, libc::TCP_CONGESTION) if call.process.pollables.socket(id)?.protocol == libc::IPPROTO_TCP => {
            return set_congestion(call, value, len);
        }
        _ => {}
    }
    let socket = call.process.pollables.socket(id)?;
    if default(socket, level, name).is_none() {
        return Err(unknown(socket, level).into());
    }
    let linger = level == libc::SOL_SOCKET && name == libc::SO_LINGER;
    let needed = if linger { 8 } else { 4 };
    let byte_enough = level == libc::IPPROTO_IP && len == 1;
    if len < needed && !byte_enough {
        return Err(Errno::EINVAL.into());
    }
    let given = if byte_enough {
        let [byte] = call.user().read_array(value)?;
        i32::from(byte)
    } else {
        call.user().read_u32(value)?.cast_signed()
    };
    let seconds =
        if linger { call.user().read_u32(value.checked_add(4).ok_or(Errno::EFAULT)?)?.cast_signed() } else { 0 };
    let kept = stored_value(level, name, given)?;
    let socket = call.process.pollables.edit().socket_mut(id)?;
    socket.set_option(level, name, kept);
    socket.apply_options();
    if linger && kept != 0 {
        socket.set_option(libc::SOL_SOCKET, LINGER_SECONDS, seconds);
    }
    Ok(0)
}

/// TCP_CONGESTION: accepts the one name.
fn set_congestion(call: &mut Call<'_, '_>, value: u64, len: i32) -> CallResult {
    let len = usize::try_from(len).ok().filter(|&len| len > 0).ok_or(Errno::EINVAL)?;
    let mut name = [0; 16];
    let name = name.get_mut(..len.min(16)).unwrap_or_default();
    call.user().read(value, name)?;
    let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
    if name == CONGESTION { Ok(0) } else { Err(Errno::ENOENT.into()) }
}

/// The value that Linux stores for a given one.
fn stored_value(level: i32, name: i32, given: i32) -> Result<i32, Errno> {
    Ok(match (level, name) {
        (libc::SOL_SOCKET, libc::SO_SNDBUF) => {
            given.cast_unsigned().min(BUFFER_MAX.cast_unsigned()).cast_signed().saturating_mul(2).max(4608)
        }
        (libc::SOL_SOCKET, libc::SO_RCVBUF) => {
            given.cast_unsigned().min(BUFFER_MAX.cast_unsigned()).cast_signed().saturating_mul(2).max(2304)
        }
        (libc::SOL_SOCKET, libc::SO_RCVLOWAT) => given.max(1),
        (libc::SOL_SOCKET, libc::SO_SNDLOWAT) => return Err(Errno::ENOPROTOOPT),
        (libc::SOL_SOCKET, libc::SO_PRIORITY | libc::SO_INCOMING_CPU | libc::SO_BUSY_POLL) => given,
        (libc::SOL_SOCKET, _)
        | (SOL_TCP, libc::TCP_NODELAY | libc::TCP_CORK)
        | (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY) => i32::from(given != 0),
        (SOL_TCP, libc::TCP_KEEPIDLE | libc::TCP_KEEPINTVL) if !(1..=32_767).contains(&given) => {
            return Err(Errno::EINVAL);
        }
        (SOL_TCP, libc::TCP_KEEPCNT) if !(1..=127).contains(&given) => return Err(Errno::EINVAL),
        _ => given,
    })
}

/// Sets a timeout from a `timeval`; 0 means none, and a negative one not to wait.
fn set_timeout(call: &mut Call<'_, '_>, id: PollableId, name: i32, value: u64, len: i32) -> CallResult {
    if len < 16 {
        return Err(Errno::EINVAL.into());
    }
    let [seconds, microseconds] = call.user().read_words(value)?;
    if microseconds >= 1_000_000 {
        return Err(Errno::EDOM.into());
    }
    let ns = if seconds.cast_signed() < 0 {
        AT_ONCE_NS
    } else {
        clock::total_ns(seconds, microseconds.saturating_mul(1000))
    };
    let socket = call.process.pollables.edit().socket_mut(id)?;
    if name == libc::SO_RCVTIMEO {
        socket.receive_timeout_ns = ns
    } else {
        socket.send_timeout_ns = ns
    }
    Ok(0)
}

/// `getsockopt(2)`.
pub(crate) fn getsockopt(call: &mut Call<'_, '_>) -> CallResult {
    let [fd, level, name, value, len_at, _] = call.args;
    let (id, _) = socket_of(call, fd)?;
    let (level, name) = (int(level), int(name));
    let len = usize::try_from(call.user().read_u32(len_at)?.cast_signed()).map_err(|_| Errno::EINVAL)?;
    super::remote::refresh(call, id);
    let error = match (level, name) {
        (libc::SOL_SOCKET, libc::SO_ERROR) => crate::net::calls::receive::take_error(call, id),
        _ => None,
    };
    let bytes = option_value(call, id, level, name, error)?;
    let part = bytes.get(..len.min(bytes.len())).unwrap_or_default();
    call.user().write(value, part)?;
    let reported_len = u32::try_from(part.len()).unwrap_or(0);
    call.user().write(len_at, &reported_len.to_le_bytes())?;
    Ok(0)
}

fn option_value(
    call: &Call<'_, '_>,
    id: PollableId,
    level: i32,
    name: i32,
    error: Option<Errno>,
) -> Result<Vec<u8>, Halt> {
    /// Size of `struct tcp_info` in Linux 6.1.
    const TCP_INFO_BYTES: usize = 240;
    let socket = call.process.pollables.socket(id)?;
    let timeval = |ns: u64| [(ns / 1_000_000_000).to_le_bytes(), (ns % 1_000_000_000 / 1000).to_le_bytes()].concat();
    let word = match (level, name) {
        (libc::SOL_SOCKET, libc::SO_ERROR) => error.map_or(0, Errno::number),
        (libc::SOL_SOCKET, libc::SO_TYPE) => socket.kind,
        (libc::SOL_SOCKET, libc::SO_DOMAIN) => socket.domain,
        (libc::SOL_SOCKET, libc::SO_PROTOCOL) => socket.protocol,
        (libc::SOL_SOCKET, libc::SO_ACCEPTCONN) => i32::from(socket.is_listening()),
        (libc::SOL_SOCKET, libc::SO_RCVTIMEO) => return Ok(timeval(socket.receive_timeout_ns)),
        (libc::SOL_SOCKET, libc::SO_SNDTIMEO) => return Ok(timeval(socket.send_timeout_ns)),
        (libc::SOL_SOCKET, libc::SO_LINGER) => {
            let on = socket.option(level, name).unwrap_or(0);
            let seconds = socket.option(level, LINGER_SECONDS).unwrap_or(0);
            return Ok([on.to_le_bytes(), seconds.to_le_bytes()].concat());
        }
        (libc::SOL_SOCKET, libc::SO_PEERCRED) => {
            let known = socket.is_unix() && (socket.is_connected() || socket.is_listening());
            let [pid, user, group] = if known { [PID, UID, GID] } else { [0, u32::MAX, u32::MAX] };
            return Ok([pid.to_le_bytes(), user.to_le_bytes(), group.to_le_bytes()].concat());
        }
        (SOL_TCP, libc::TCP_CONGESTION) if socket.protocol == libc::IPPROTO_TCP => {
            return Ok([CONGESTION, &[0; 11]].concat());
        }
        (libc::SOL_SOCKET, libc::SO_COOKIE) => {
            let number = call.process.pollables.get(id).map_or(0, |pollable| pollable.number);
            return Ok(number.to_le_bytes().to_vec());
        }
        (SOL_TCP, libc::TCP_INFO) if socket.protocol == libc::IPPROTO_TCP => {
            let mut info = vec![0; TCP_INFO_BYTES];
            if let Some(state) = info.first_mut() {
                *state = tcp_state(&call.process.pollables, socket);
            }
            return Ok(info);
        }
        _ => {
            let default = default(socket, level, name).ok_or_else(|| unknown(socket, level))?;
            socket.option(level, name).unwrap_or(default)
        }
    };
    Ok(word.to_le_bytes().to_vec())
}

/// The state of a connection, by the numbers of `<netinet/tcp.h>`. Packets inside the machine take no time, so there
/// are no states that wait for an answer.
fn tcp_state(pollables: &Pollables, socket: &Socket) -> u8 {
    const ESTABLISHED: u8 = 1;
    const FIN_WAIT_2: u8 = 5;
    const CLOSE: u8 = 7;
    const CLOSE_WAIT: u8 = 8;
    const LISTEN: u8 = 10;
    if socket.is_listening() {
        return LISTEN;
    }
    if !socket.is_connected() || socket.reset {
        return CLOSE;
    }
    let has_ended = match socket.stream() {
        Some(_) => false,
        None => socket.input.and_then(|queue| pollables.queue(queue)).is_none_or(|queue| queue.finished),
    };
    match (has_ended, socket.shut_write) {
        (false, false) => ESTABLISHED,
        (true, false) => CLOSE_WAIT,
        (false, true) => FIN_WAIT_2,
        (true, true) => CLOSE,
    }
}
