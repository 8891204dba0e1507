// SPDX-License-Identifier: MIT OR Apache-2.0
//! The shutdown of `mayfly run`, in the order in which `mayfly::end_on_signals()` shuts a Drogon server down (decision
//! 0240).

use std::io;
use std::net::TcpListener;
use std::time::Duration;

use mayfly_tenancy::Server;
use socket2::{SockFilter, SockRef};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// How long requests in flight may take after the signal.
pub(crate) const FAREWELL: Duration = Duration::from_secs(5);
/// How long connections from before the signal are still accepted.
pub(crate) const SETTLE: Duration = Duration::from_millis(20);

/// How the server ends.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// All loops ended.
    InOrder,
    /// A second signal came first.
    AtOnce,
}

/// Waits for a signal. Then waits until all loops have ended (they drop their receivers of `stop`), or the time is up,
/// or another signal arrives. The loops close their copies of `listener`. Calls `ready` as soon as a signal ends the
/// server in this order: before that, it ends the process.
pub(crate) async fn on_signals(
    listener: TcpListener,
    stop: watch::Sender<bool>,
    server: &Server,
    ready: impl FnOnce(),
) -> io::Result<End> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    ready();
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    server.begin_end(FAREWELL);
    refuse_handshakes(&listener);
    let _ = stop.send(true);
    tokio::time::sleep(SETTLE).await;
    drop(listener);
    tokio::select! {
        () = stop.closed() => return Ok(End::InOrder),
        () = tokio::time::sleep(FAREWELL) => {
            tracing::warn!(target: "mayfly::server", "the time is up; what is still in work is answered with 503");
            // The loops go on, and send these answers.
            server.shutdown();
            return Ok(End::InOrder);
        }
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    tracing::warn!(target: "mayfly::server", "a second signal; requests in work are not waited for");
    Ok(End::AtOnce)
}

/// Drops the packets that open a connection (SYN without ACK), so that no connection is established that would be reset
/// when the listener closes. Clients retry by themselves, after a second, and are refused.
fn refuse_handshakes(listener: &TcpListener) {
    // <linux/bpf_common.h>. A filter of a TCP socket sees packets from the TCP header on; its 14th byte has the flags
    // (RFC 9293, 3.1).
    const LOAD_BYTE: u16 = 0x30;
    const AND: u16 = 0x54;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const FLAGS_AT: u32 = 13;
    const SYN: u32 = 0x02;
    const ACK: u32 = 0x10;
    let filter = [
        SockFilter::new(LOAD_BYTE, 0, 0, FLAGS_AT),
        SockFilter::new(AND, 0, 0, SYN | ACK),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ];
    // If the system refuses the filter, connections of the next milliseconds are reset.
    let _ = SockRef::from(listener).attach_filter(&filter);
}
